"""FiftyOne imports what `export=fiftyone` and `export=coco` write into its database, and draws the masks.

Its database is MongoDB: FIFTYONE_DATABASE_URI names a running one; else FiftyOne starts the `mongod` that it brings,
where its package has one for this system.
"""

import pytest

from autolabel.export.coco import CocoExporter
from autolabel.export.fiftyone import FiftyOneExporter
from tests.consumers.consumer import exact, image_of, iou_with_the_red, ious, read_with, subject
from tests.rasters import photo
from tests.records import ListReader, disc
from tests.unit import test_export_coco, test_export_fiftyone

pytestmark = pytest.mark.slow


def test_every_mask_comes_back_and_lies_on_its_picture(tmp_path):
    run = subject(tmp_path)
    # Sides by which few pixels can be divided without a remainder: FiftyOne cuts corners to whole pixels.
    odd = photo(tmp_path, "odd.png", [disc(97, 149, 3 * n + 9.5, 2 * n + 8, n % 5 + 3) for n in range(40)])
    run = ListReader([*run.items, odd])
    FiftyOneExporter(**test_export_fiftyone.SETTINGS).export(run, tmp_path / "out")
    images = read_with("fiftyone", tmp_path, "FiftyOneDataset", tmp_path / "out")
    assert ious(run, images) == exact(run)
    assert all(iou_with_the_red(image_of(images, f"turned{o}.jpg")) == 1.0 for o in range(1, 9))


@pytest.mark.parametrize("segmentation", ["polygon", "rle"])
def test_coco_keeps_every_object(tmp_path, segmentation):
    run = subject(tmp_path)
    settings = {**test_export_coco.SETTINGS, "images": "upright", "segmentation": segmentation}
    CocoExporter(**settings).export(run, tmp_path / "out")
    images = read_with("fiftyone", tmp_path, "COCODetectionDataset", tmp_path / "out")
    found = ious(run, images)
    assert {name: len(values) for name, values in found.items()} == {n: len(v) for n, v in exact(run).items()}
