"""The VOC readers of torchvision take the export as the devkit that it is."""

import numpy as np
import pytest

from autolabel.export.voc import VocExporter
from autolabel.ops.masks import bounds_xyxy
from tests.records import ListReader, disc, instance, picture, record

pytestmark = pytest.mark.slow

SETTINGS = {
    "images": "upright", "box": "mask", "void_border_px": 0, "holes": "keep", "parts": "keep", "overlaps": "score",
    "min_area_px": 1, "crowd": "void", "val_fraction": 0.0, "test_fraction": 0.0, "seed": 0, "stratify": False,
    "group_by": None,
}  # fmt: skip


def test_pictures_boxes_and_masks_are_those_of_the_run(tmp_path):
    from torchvision.datasets import VOCDetection, VOCSegmentation

    masks = [disc(120, 160, 40 + 20 * n, 60, 15) for n in range(3)]
    items = [
        record(f"cam 1/{n}.jpg", [instance(m)], picture(tmp_path / f"{n}.jpg", seed=n), split="train")
        for n, m in enumerate(masks)
    ]
    VocExporter(**SETTINGS).export(ListReader(items), tmp_path / "VOCdevkit" / "VOC2012")
    areas = VOCSegmentation(str(tmp_path), year="2012", image_set="train")
    boxes = VOCDetection(str(tmp_path), year="2012", image_set="train")
    assert (len(areas), len(boxes)) == (3, 3)
    for mask, (image, target), (_, annotation) in zip(masks, areas, boxes, strict=True):
        assert image.size == (160, 120)
        assert (np.array(target) == mask).all()
        (found,) = annotation["annotation"]["object"]
        x0, y0, x1, y1 = bounds_xyxy(instance(mask).mask)
        assert found["name"] == "cat"
        assert found["bndbox"] == {"xmin": str(x0 + 1), "ymin": str(y0 + 1), "xmax": str(x1), "ymax": str(y1)}
