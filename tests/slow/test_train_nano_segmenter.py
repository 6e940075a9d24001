"""The trainer runs end to end on a handful of pictures, resumes, and writes weights that load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = "scripts.train_nano_segmenter"

pytestmark = pytest.mark.slow


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Three data sets of discs on noise, in the form of the real ones."""
    rng = np.random.default_rng(0)
    for name in ("duts_tr", "coco_train", "ccp_fashion"):
        folder = tmp_path / "data" / "masks" / name
        (folder / "images").mkdir(parents=True)
        images, annotations = [], []
        for i in range(1, 5):
            image = rng.integers(0, 120, (96, 128, 3), np.uint8)
            cv2.circle(image, (60, 48), 20 + i, (200, 180, 160), -1)
            cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
            disc = cv2.ellipse2Poly((60, 48), (20 + i, 20 + i), 0, 0, 360, 10)
            images.append(
                {
                    "id": i,
                    "file_name": f"images/{i}.png",
                    "width": 128,
                    "height": 96,
                    "split": "val" if i == 4 else "train",
                }
            )
            annotations.append(
                {"id": i, "image_id": i, "category_id": 1, "segmentation": [disc.ravel().tolist()], "iscrowd": 0}
            )
        coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
        (folder / "instances.json").write_text(json.dumps(coco), "utf-8")
    return tmp_path / "data"


def train(data_root: Path, workdir: Path, *more: str) -> Path:
    out = workdir / "segmenter.safetensors"
    command = [
        sys.executable,
        "-m",
        SCRIPT,
        "--smoke",
        "--data",
        data_root,
        "--workdir",
        workdir,
        "--out",
        out,
        *more,
    ]
    subprocess.run([str(part) for part in command], check=True, timeout=300, cwd=PROJECT)
    return out


def test_smoke_run_exports_weights_that_load_strictly(data_root: Path, tmp_path: Path) -> None:
    out = train(data_root, tmp_path / "work")
    about = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert about["steps"] == 6
    assert [(phase["boxes"], phase["clicks"]) for phase in about["phases"]] == [(2, 1), (2, 1)]
    assert about["bytes"] == out.stat().st_size < 12e6
    check = (
        "from pathlib import Path; from scripts.nano.segmenter import build_segmenter, load_weights;"
        f"load_weights(build_segmenter(), Path({str(out)!r}))"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120, cwd=PROJECT)


def test_resumed_run_continues_where_it_stopped(data_root: Path, tmp_path: Path) -> None:
    train(data_root, tmp_path / "work")
    out = train(data_root, tmp_path / "work", "--resume", "--steps", "8")
    assert json.loads(out.with_suffix(".json").read_text("utf-8"))["steps"] == 8


def test_a_run_may_go_on_from_exported_weights_and_says_so(data_root: Path, tmp_path: Path) -> None:
    first = json.loads(train(data_root, tmp_path / "first").with_suffix(".json").read_text("utf-8"))
    weights = tmp_path / "first" / "segmenter.safetensors"
    prompts = ["--clicks", "2", "--correction-rate", "1", "--rounds", "2", "--filled-box-rate", "1"]
    second = train(data_root, tmp_path / "second", "--init", str(weights), *prompts)
    about = json.loads(second.with_suffix(".json").read_text("utf-8"))
    assert about["continued_from"]["sha256"] == first["sha256"]
    assert [(phase["boxes"], phase["clicks"]) for phase in about["phases"]] == [(1, 2), (1, 2)]
    assert (about["correction_rate"], about["rounds"], about["filled_box_rate"]) == (1, 2, 1)
