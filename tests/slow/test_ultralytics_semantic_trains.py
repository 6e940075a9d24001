"""The trainer that the semantic export is for takes it: it finds every mask, and trains and validates."""

import numpy as np
import pytest

from autolabel.core.types import Category
from autolabel.export.semantic_png import SemanticPngExporter
from tests.records import ListReader, disc, instance, picture, record, shapes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the trainer's own warnings are its own

SETTINGS = {
    "images": "copy", "ignore_border_px": 1, "holes": "keep", "parts": "keep", "overlaps": "score", "min_area_px": 1,
    "crowd": "ignore", "val_fraction": 0.25, "test_fraction": 0.0, "seed": 0, "stratify": False, "group_by": None,
}  # fmt: skip


def items(tmp_path, categories):
    for n in range(8):
        path = picture(tmp_path / "photos" / f"cam{n % 2}" / f"{n // 2} x.png", seed=n)
        masks = [disc(120, 160, 30 + 10 * n, 60, 20), *list(shapes().values())[n : n + 2]][: n % 4]
        objects = [instance(m, i, category_id=categories[i % len(categories)].id) for i, m in enumerate(masks)]
        yield record(f"cam{n % 2}/{n // 2} x.png", objects, path)


@pytest.mark.parametrize(
    ("categories", "background", "num_classes"),
    [
        ((Category(3, "cat"), Category(7, "dog")), "class", 3),
        ((Category(3, "cat"), Category(7, "dog")), "ignore", 2),
        ((Category(3, "cat"),), "class", 1),
    ],
)
def test_one_epoch_trains_on_an_export_without_a_corrupt_mask(
    tmp_path, monkeypatch, categories, background, num_classes
):
    from ultralytics import YOLO

    run = ListReader(list(items(tmp_path, categories)), categories)
    SemanticPngExporter(background=background, **SETTINGS).export(run, tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    model = YOLO("yolo26n-sem.yaml")
    model.train(
        data=str(tmp_path / "set" / "data.yaml"), epochs=1, imgsz=64, batch=2, device="cpu", workers=0, plots=False,
        project=str(tmp_path / "runs"), val=True, amp=False, seed=0,
    )  # fmt: skip
    caches = sorted((tmp_path / "set").rglob("*.cache"))
    scanned = [np.load(cache, allow_pickle=True).item() for cache in caches]
    found, missing, _, corrupt, total = np.sum([scan["results"] for scan in scanned], axis=0)
    assert (found, missing, corrupt, total) == (8, 0, 0, 8)
    assert len(model.names) == num_classes
    assert list((tmp_path / "runs").rglob("last.pt"))
