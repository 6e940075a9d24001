"""supervision loads COCO exports with masks. It draws polygons in a way of its own, and run lengths exactly."""

import pytest

from autolabel.export.coco import CocoExporter
from tests.consumers.consumer import exact, image_of, iou_with_the_red, ious, read_with, subject
from tests.unit.test_export_coco import SETTINGS

pytestmark = pytest.mark.slow


def loaded(tmp_path, segmentation):
    run = subject(tmp_path)
    settings = {**SETTINGS, "images": "upright", "segmentation": segmentation}
    CocoExporter(**settings).export(run, tmp_path / "coco")
    return run, read_with("supervision", tmp_path, tmp_path / "coco")


def test_every_mask_comes_back_from_run_lengths(tmp_path):
    run, images = loaded(tmp_path, "rle")
    assert ious(run, images) == exact(run)
    assert all(iou_with_the_red(image_of(images, f"turned{o}.jpg")) == 1.0 for o in range(1, 9))


def test_no_object_of_polygons_is_lost_or_cut_but_each_is_half_a_pixel_larger(tmp_path):
    run, images = loaded(tmp_path, "polygon")
    found = ious(run, images)
    assert {name: len(values) for name, values in found.items()} == {n: len(v) for n, v in exact(run).items()}
    assert found["cam 1/ä b.png"][0] == pytest.approx(0.958, abs=0.001)  # the disc of 30 px
