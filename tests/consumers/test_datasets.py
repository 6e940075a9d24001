"""Hugging Face `datasets` loads what `export=parquet` writes, from disk and streamed."""

import pytest

from autolabel.export.parquet import ParquetExporter
from tests.consumers.consumer import exact, image_of, iou_with_the_red, ious, read_with, subject
from tests.unit.test_export_parquet import SETTINGS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", ["disk", "streamed"])
def test_every_mask_comes_back_and_lies_on_its_picture(tmp_path, mode):
    run = subject(tmp_path)
    ParquetExporter(**SETTINGS).export(run, tmp_path / "parquet")
    images = read_with("datasets", tmp_path, mode, tmp_path / "parquet")
    assert ious(run, images) == exact(run)
    assert all(iou_with_the_red(image_of(images, f"turned{o}.jpg")) == 1.0 for o in range(1, 9))
