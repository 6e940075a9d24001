"""The training script of the nano detector runs from pictures to loadable weights, and goes on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("ultralytics")

from scripts.evaluate_nano_detector import detect, load_model
from scripts.nano.compose import Composer
from scripts.nano.dataset import load_pictures
from scripts.train_nano_detector import main

pytestmark = [
    pytest.mark.slow,
    # pycocotools 2.0.11 on numpy 2.4, when it decodes a mask.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures with one bright rectangle each, as one COCO data set that is labelled completely."""
    root = tmp_path_factory.mktemp("data root")
    folder = root / "masks" / "coco_train"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 9):
        pixels = rng.integers(0, 90, (90, 120, 3), dtype=np.uint8)
        x, y, w, h = 20 + number, 15, 50, 40
        pixels[y : y + h, x : x + w] = 220
        cv2.imwrite(str(folder / "images" / f"{number}.png"), pixels)
        split = "val" if number > 6 else "train"
        images.append(
            {"id": number, "file_name": f"images/{number}.png", "width": 120, "height": 90, "split": split}
        )
        outline = [x, y, x + w, y, x + w, y + h, x, y + h]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [outline], "iscrowd": 0}
        )
    categories = [{"id": 1, "name": "person"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(coco), "utf-8")
    return root


def test_a_smoke_run_writes_weights_that_load_and_detect_and_resumes(data_root: Path, tmp_path: Path) -> None:
    folders = ["--data-root", str(data_root), "--cache-dir", str(tmp_path / "cache")]
    folders += ["--out-dir", str(tmp_path / "out"), "--weights-dir", str(tmp_path / "weights")]
    main([*folders, "--smoke"])
    main([*folders, "--smoke", "--resume"])

    records = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [record["step"] for record in records if record["kind"] == "start"] == [0, 4]
    description = json.loads((tmp_path / "weights" / "detector.json").read_text("utf-8"))
    model = load_model(description, tmp_path / "weights" / "detector.safetensors")
    again = ["--out-dir", str(tmp_path / "again"), "--init", str(tmp_path / "weights" / "detector.safetensors")]
    main([*folders[:4], *again, "--weights-dir", str(tmp_path / "more"), "--smoke"])
    more = json.loads((tmp_path / "more" / "detector.json").read_text("utf-8"))
    assert more["continued_from"]["sha256"] == description["sha256"]
    boxes = detect(model, np.zeros((70, 200, 3), np.uint8), image_size=128, conf=0.0, iou=0.6)
    assert boxes.shape[1] == 5
    assert (boxes[:, :4] >= 0).all()
    assert (boxes[:, 2] <= 200).all()


def test_equal_seeds_compose_equal_pictures_with_tight_boxes(data_root: Path, tmp_path: Path) -> None:
    pictures = load_pictures(data_root, tmp_path, ("coco_train",), "train")
    ours, theirs = (Composer(pictures=pictures, seed=7) for _ in range(2))
    for _ in range(20):
        one, other = ours.example(96), theirs.example(96)
        np.testing.assert_array_equal(one.image_rgb, other.image_rgb)
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
        assert one.weights.shape == (96, 96)
        assert (one.boxes_xyxy[:, 2:] > one.boxes_xyxy[:, :2]).all()
        assert ((one.boxes_xyxy >= 0) & (one.boxes_xyxy <= 96)).all()
