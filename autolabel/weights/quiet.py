"""What keeps ultralytics quiet: off the network, off pip, out of the home folder, and out of this process.

Everything that imports ultralytics goes through here. Imports no model library itself before it is asked to.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autolabel.weights.access import from_environment


def quiet_environment() -> None:
    """Set what keeps ultralytics off the network, off pip and out of the home folder. Before its import."""
    os.environ["YOLO_AUTOINSTALL"] = "0"
    os.environ["ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS"] = "1"
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"
    os.environ["YOLO_OFFLINE"] = "1"
    os.environ.setdefault("YOLO_VERBOSE", "0")
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = str(_settings_folder())


def _settings_folder() -> Path:
    """In the cache, or where that cannot be written one that is gone with this process."""
    folder = from_environment().cache / "ultralytics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="autolabel-ultralytics-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def ultralytics_at_bay() -> Iterator[None]:
    """What ultralytics changes in the process while it is imported or loads a model is undone afterwards.

    That is: PIL.Image.open (would call pip on a broken picture), torch.save, and OMP_NUM_THREADS=1. torch is
    imported first, so that it never sees that 1.
    """
    import PIL.Image
    import torch

    quiet_environment()
    before_open, before_save = PIL.Image.open, torch.save
    threads = os.environ.get("OMP_NUM_THREADS")
    try:
        yield
    finally:
        PIL.Image.open, torch.save = before_open, before_save
        if threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)
