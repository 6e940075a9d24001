"""What CVAT's own packages make of `export=cvat`: Datumaro, by which CVAT converts, and the mask decoder of its SDK.
CVAT's server itself, a dozen containers, is not run."""

import pytest

from autolabel.export.cvat import CvatExporter
from tests.consumers.consumer import exact, image_of, iou_with_the_red, ious, read_with, subject
from tests.unit.test_export_cvat import SETTINGS

pytestmark = pytest.mark.slow


def exported(tmp_path, images):
    run = subject(tmp_path)
    CvatExporter(**{**SETTINGS, "images": images}).export(run, tmp_path / "cvat")
    return run


def test_every_mask_comes_back_from_the_sdk(tmp_path):
    run = exported(tmp_path, "copy")
    images = read_with("cvat_sdk", tmp_path, tmp_path / "cvat")
    assert ious(run, images) == exact(run)
    assert all(iou_with_the_red(image_of(images, f"turned{o}.jpg")) == 1.0 for o in range(1, 9))


def test_every_mask_comes_back_from_datumaro(tmp_path):
    run = exported(tmp_path, "upright")  # Datumaro, unlike CVAT, does not turn pictures
    images = read_with("datumaro", tmp_path, "cvat", tmp_path / "cvat")
    assert ious(run, images) == exact(run)
    assert all(iou_with_the_red(image_of(images, f"turned{o}.jpg")) == 1.0 for o in range(1, 9))
