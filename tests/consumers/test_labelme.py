"""LabelMe opens what `export=labelme` writes, by its own `LabelFile`."""

import pytest

from autolabel.export.labelme import LabelMeExporter
from tests.consumers.consumer import exact, image_of, iou_with_the_red, ious, read_with, subject
from tests.unit.test_export_labelme import SETTINGS

pytestmark = pytest.mark.slow


def opened(tmp_path, **changes):
    run = subject(tmp_path)
    LabelMeExporter(**{**SETTINGS, **changes}).export(run, tmp_path / "labelme")
    return run, read_with("labelme", tmp_path, tmp_path / "labelme")


def test_every_mask_comes_back(tmp_path):
    run, images = opened(tmp_path)
    assert ious(run, images) == exact(run)


def test_masks_lie_on_the_picture_as_labelme_turns_it(tmp_path):
    _, images = opened(tmp_path)
    # LabelMe writes turned pictures as JPEG once more, so a few red pixels are others.
    assert all(iou_with_the_red(image_of(images, f"turned{o}.jpg")) > 0.95 for o in range(1, 9))


def test_polygons_keep_objects_whole_and_come_back_half_a_pixel_larger(tmp_path):
    run, images = opened(tmp_path, shape="polygon")
    found = ious(run, images)
    assert {name: len(values) for name, values in found.items()} == {n: len(v) for n, v in exact(run).items()}
    assert found["cam 1/ä b.png"][0] == pytest.approx(0.958, abs=0.001)  # the disc of 30 px
