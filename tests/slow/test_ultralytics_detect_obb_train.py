"""The trainer that the box exports are for takes them: it scans them without one corrupt label, and trains."""

import numpy as np
import pytest

from autolabel.export.yolo_detect import YoloDetectExporter
from autolabel.export.yolo_obb import YoloObbExporter
from tests.records import ListReader, disc, instance, picture, record, shapes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the trainer's own warnings are its own

SETTINGS = {
    "images": "copy",
    "empty_images": "keep",
    "parts": "keep",
    "min_area_px": 1,
    "crowd": "drop",
    "val_fraction": 0.25,
    "test_fraction": 0.0,
    "seed": 0,
    "stratify": False,
    "group_by": None,
}


def items(folder):
    for n in range(8):
        path = picture(folder / f"cam{n % 2}" / f"{n // 2} x.png", seed=n)
        masks = [disc(120, 160, 30 + 10 * n, 60, 20), *list(shapes().values())[n : n + 2]][: n % 4]
        objects = [instance(m, i, category_id=(3, 7)[i % 2]) for i, m in enumerate(masks)]
        yield record(f"cam{n % 2}/{n // 2} x.png", objects, path)


@pytest.mark.parametrize(
    ("model", "exporter"),
    [
        ("yolo11n.yaml", YoloDetectExporter(box="mask", **SETTINGS)),
        ("yolo11n.yaml", YoloDetectExporter(box="prompt", **SETTINGS)),
        ("yolo11n-obb.yaml", YoloObbExporter(**SETTINGS)),
    ],
    ids=["detect", "detect from prompts", "obb"],
)
def test_one_epoch_trains_on_an_export_without_a_corrupt_label(tmp_path, monkeypatch, model, exporter):
    from ultralytics import YOLO

    exporter.export(ListReader(list(items(tmp_path / "photos"))), tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    YOLO(model).train(
        data=str(tmp_path / "out" / "data.yaml"), epochs=1, imgsz=64, batch=2, device="cpu", workers=0, plots=False,
        project=str(tmp_path / "runs"), val=True, amp=False, seed=0,
    )  # fmt: skip
    scanned = [np.load(cache, allow_pickle=True).item() for cache in sorted((tmp_path / "out").rglob("*.cache"))]
    found, missing, empty, corrupt, total = np.sum([scan["results"] for scan in scanned], axis=0)
    assert (found, missing, empty, corrupt, total) == (8, 0, 2, 0, 8)
    assert list((tmp_path / "runs").rglob("last.pt"))
