"""What must be set before anything imports a model library."""

import os
import tempfile

from autolabel.weights.quiet import quiet_environment

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="autolabel-ultralytics-"))
os.environ["AUTOLABEL_OFFLINE"] = "1"
quiet_environment()

from tests.remote import bucket, leaking  # noqa: E402, F401 - fixtures, after the environment is set
