"""Memory does not grow with the number of pictures."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from tests.fakes import draw

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def peak_mib(folder: Path, configs: Path, run: Path, *settings: str) -> float:
    """Largest resident memory of a whole `autolabel label`."""
    arguments = [str(folder), "--config-dir", str(configs), f"run={run}", "engine.workers=2", *settings]
    process = subprocess.Popen(
        [sys.executable, "-m", "autolabel.app.main", "label", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


@pytest.mark.parametrize(
    ("settings", "few", "many"),
    [
        (["detect=colour", "segment=box", "export=[coco,yolo]"], 200, 1000),
        (["detect=colour", "segment=nano", "segment.weights=random:0", "export=[coco]"], 20, 100),
    ],
    ids=["no model", "nano"],
)
def test_five_times_the_pictures_need_no_more_memory(settings, few, many, tmp_path):
    (tmp_path / "configs" / "detect").mkdir(parents=True)
    node = {"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}
    OmegaConf.save(OmegaConf.create(node), tmp_path / "configs" / "detect" / "colour.yaml")
    random = np.random.default_rng(0)
    for count in (few, many):
        for i in range(count):
            x, y = (int(v) for v in random.integers(10, 300, 2))
            draw(tmp_path / f"in{count}" / f"{i:04}.png", {0: (x, y, x + 90, y + 60)}, (480, 640))
    peaks = [
        peak_mib(tmp_path / f"in{count}", tmp_path / "configs", tmp_path / f"run{count}", *settings)
        for count in (few, many)
    ]
    # A decoded picture is 0.9 MB: keeping every tenth of the 800 more would already show.
    assert peaks[1] - peaks[0] < 40, peaks
