"""Memory does not grow with the number of pictures, nor with boxes times pixels."""

import json
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


def peak_mib(source: Path, run: Path, *settings: str) -> float:
    """Largest resident memory of a whole `autolabel label`."""
    arguments = [str(source), f"run={run}", "engine.workers=2", *settings]
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
    ("settings", "few", "many", "mib"),
    [
        (["detect=colour", "segment=box", "export=[coco,yolo]"], 200, 1000, 40),
        # What a model takes differs by 50 MiB from run to run, however many pictures there are.
        (["detect=colour", "segment=nano", "segment.weights=random:0", "export=[coco]"], 20, 220, 80),
    ],
    ids=["no model", "nano"],
)
def test_many_times_the_pictures_need_no_more_memory(settings, few, many, mib, tmp_path):
    (tmp_path / "configs" / "detect").mkdir(parents=True)
    node = {"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}
    OmegaConf.save(OmegaConf.create(node), tmp_path / "configs" / "detect" / "colour.yaml")
    random = np.random.default_rng(0)
    for count in (few, many):
        for i in range(count):
            x, y = (int(v) for v in random.integers(10, 300, 2))
            draw(tmp_path / f"in{count}" / f"{i:04}.png", {0: (x, y, x + 90, y + 60)}, (480, 640))
    peaks = [
        peak_mib(
            tmp_path / f"in{count}", tmp_path / f"run{count}", f"--config-dir={tmp_path / 'configs'}", *settings
        )
        for count in (few, many)
    ]
    # A decoded picture is 0.9 MB: keeping every tenth of 800 more would already show, every second of 200.
    assert peaks[1] - peaks[0] < mib, peaks


def test_hundreds_of_boxes_on_twelve_megapixels_need_no_mask_of_their_size(tmp_path):
    h, w = 3000, 4000
    random = np.random.default_rng(0)
    draw(tmp_path / "0.png", {0: (500, 500, 2500, 2000)}, (h, w))
    peaks = []
    for count in (10, 300):
        corners = random.integers(0, (w - 600, h - 600), (count, 2)).tolist()
        annotations = [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": [x, y, 500, 500], "area": 250000, "iscrowd": 0}
            for i, (x, y) in enumerate(corners, start=1)
        ]
        labels = {
            "images": [{"id": 1, "file_name": "0.png", "width": w, "height": h}],
            "categories": [{"id": 1, "name": "thing"}],
            "annotations": annotations,
        }
        source = tmp_path / f"{count}.json"
        source.write_text(json.dumps(labels))
        run = tmp_path / f"run{count}"
        peaks.append(peak_mib(source, run, "detect=labels", "segment=nano", "refine=none", "export=[coco]"))
        coco = json.loads((run / "export" / "coco" / "instances.json").read_text())
        assert len(coco["annotations"]) > count / 2
    # As dense masks they would be 3500 MB, as logits of the picture's size 14000.
    assert peaks[1] - peaks[0] < 150, peaks
