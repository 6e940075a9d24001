"""torchvision's reference loader and its Mask R-CNN take a COCO export: one training step on pictures baked upright."""

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from autolabel.export.coco import CocoExporter
from tests.records import CATEGORIES, ListReader, disc, instance, picture, record, shapes
from tests.unit.test_export_coco import SETTINGS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # torchvision's own warnings are its own


class CocoDetection(torch.utils.data.Dataset):
    """As torchvision's `CocoDetection` with the `ConvertCocoPolysToMask` of its reference scripts, which knows
    polygons alone, drops crowds and does not rotate."""

    def __init__(self, root, file):
        self.root, self.coco = root, COCO(file)
        self.ids = sorted(self.coco.imgs)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, at):
        image = self.coco.loadImgs(self.ids[at])[0]
        with Image.open(self.root / image["file_name"]) as opened:
            picture = opened.convert("RGB")
        width, height = picture.size
        annotations = [a for a in self.coco.imgToAnns[image["id"]] if a["iscrowd"] == 0]
        boxes = torch.as_tensor([a["bbox"] for a in annotations], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        target = {
            "boxes": boxes,
            "labels": torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64),
            "masks": masks_of([a["segmentation"] for a in annotations], height, width),
            "image_id": image["id"],
        }
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        return pixels, target


def masks_of(segmentations, height, width):
    masks = []
    for polygons in segmentations:
        found = coco_mask.decode(coco_mask.frPyObjects(polygons, height, width))
        masks.append(torch.as_tensor(found, dtype=torch.uint8).reshape(height, width, -1).any(dim=2))
    return torch.stack(masks) if masks else torch.zeros((0, height, width), dtype=torch.uint8)


@pytest.fixture
def exported(tmp_path):
    wanted = [shapes()["ring"], shapes()["two parts"], disc(120, 160, 50, 50, 20)]
    items = []
    for n in range(2):
        objects = [instance(mask, i, category_id=(3, 7)[i % 2]) for i, mask in enumerate(wanted)]
        objects.append(instance(shapes()["disc"], 3, crowd=True))
        items.append(record(f"cam/{n}.jpg", objects, picture(tmp_path / "photos" / f"{n}.jpg", seed=n)))
    CocoExporter(**{**SETTINGS, "images": "upright"}).export(ListReader(items), tmp_path / "coco")
    return wanted, CocoDetection(tmp_path / "coco" / "images", tmp_path / "coco" / "instances.json")


def test_the_reference_loader_reads_every_mask_exactly(exported):
    wanted, data = exported
    _, target = data[0]
    assert [(mask.numpy() == expected).all() for mask, expected in zip(target["masks"], wanted, strict=True)] == [
        True
    ] * 3


def test_mask_rcnn_trains_one_step(exported):
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    _, data = exported
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=1 + max(category.id for category in CATEGORIES),
        min_size=96,
        max_size=128,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    pictures, targets = zip(*(data[i] for i in range(len(data))), strict=True)
    losses = model(list(pictures), list(targets))
    total = sum(losses.values())
    total.backward()
    optimizer.step()
    assert "loss_mask" in losses
    assert bool(torch.isfinite(total))
