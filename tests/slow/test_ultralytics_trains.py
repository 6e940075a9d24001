"""The trainer that the YOLO export is for takes it: it scans it without one corrupt label, and trains."""

import numpy as np
import pytest

from autolabel.export.yolo import YoloExporter
from tests.records import ListReader, disc, instance, picture, record, shapes
from tests.unit.test_export_yolo import SETTINGS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the trainer's own warnings are its own


@pytest.fixture
def exported(tmp_path):
    items = []
    for n in range(8):
        path = picture(tmp_path / "photos" / f"cam{n % 2}" / f"{n // 2} x.png", seed=n)
        masks = [disc(120, 160, 30 + 10 * n, 60, 20), *list(shapes().values())[n : n + 2]][: n % 4]
        objects = [instance(m, i, category_id=(3, 7)[i % 2]) for i, m in enumerate(masks)]
        items.append(record(f"cam{n % 2}/{n // 2} x.png", objects, path))
    YoloExporter(**SETTINGS).export(ListReader(items), tmp_path / "yolo")
    return tmp_path / "yolo"


def test_one_epoch_trains_on_an_export_without_a_corrupt_label(exported, tmp_path, monkeypatch):
    from ultralytics import YOLO

    monkeypatch.chdir(tmp_path)
    model = YOLO("yolo11n-seg.yaml")
    model.train(
        data=str(exported / "data.yaml"), epochs=1, imgsz=64, batch=2, device="cpu", workers=0, plots=False,
        project=str(tmp_path / "runs"), val=True, amp=False, seed=0,
    )  # fmt: skip
    caches = sorted(exported.rglob("*.cache"))
    scanned = [np.load(cache, allow_pickle=True).item() for cache in caches]
    found, missing, empty, corrupt, total = np.sum([scan["results"] for scan in scanned], axis=0)
    assert (missing, corrupt, total) == (0, 0, 8)
    assert found == 8
    assert empty == 2
    assert (tmp_path / "runs").rglob("last.pt")
