"""What ultralytics writes beside its work."""

from __future__ import annotations

import os
import subprocess
import sys

ASKED_TWICE = """
import os
from pathlib import Path
from autolabel.weights.quiet import quiet_environment
quiet_environment()
first = os.environ["YOLO_CONFIG_DIR"]
quiet_environment()
print(Path(first).is_dir(), first == os.environ["YOLO_CONFIG_DIR"], len(os.listdir(os.environ["TMPDIR"])))
"""


def test_where_the_cache_cannot_be_written_the_settings_folder_is_one_and_gone_at_the_end(tmp_path):
    (tmp_path / "file").write_text("")
    fleeting = tmp_path / "fleeting"
    fleeting.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "YOLO_CONFIG_DIR"}
    environment |= {"AUTOLABEL_CACHE": str(tmp_path / "file" / "cache"), "TMPDIR": str(fleeting)}

    done = subprocess.run(
        [sys.executable, "-c", ASKED_TWICE], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["True", "True", "1"]
    assert not list(fleeting.iterdir())
