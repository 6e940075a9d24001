import cv2
import numpy as np
import pytest

from autolabel.ops.masks import encode, from_polygons, iou
from autolabel.ops.polygons import coco_polygons, yolo_iou, yolo_ring
from autolabel.ops.simplify import simplify_rings
from tests.records import shapes


def jagged(h=1080, w=1920):
    """A blob of some 700 px with a rough outline, as a segmenter draws fur."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).random((h, w)).astype(np.float32), (0, 0), 2) - 0.5
    y, x = np.mgrid[:h, :w]
    rough = (np.hypot(x - w / 2, y - h / 2) - 350 < 40 * noise).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(rough)
    return encode(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))


def coco(mask, least):
    rings = [np.array(p, float).reshape(-1, 2) for p in coco_polygons(mask)]
    return rings, *simplify_rings(
        rings, least, lambda found: iou(from_polygons(tuple(tuple(r.ravel()) for r in found), mask.size_hw), mask)
    )


def yolo(mask, least):
    size = np.array(mask.size_hw[::-1])
    rings = [yolo_ring(mask).points_xy]
    return rings, *simplify_rings(rings, least, lambda found: yolo_iou(found[0] / size, mask))


@pytest.mark.parametrize("write", [coco, yolo])
@pytest.mark.parametrize("least", [1.0, 0.99, 0.9])
def test_no_object_comes_back_below_the_floor_that_its_exact_ring_keeps(write, least):
    for name, shape in shapes().items():
        rings, _, exact = write(encode(shape), 2.0)
        before, after, found = write(encode(shape), least)
        assert found >= min(least, exact), name
        assert sum(map(len, after)) <= sum(map(len, before)), name
        assert len(after) == len(rings), name


@pytest.mark.parametrize(("write", "most"), [(coco, 0.15), (yolo, 0.3)])
def test_a_jagged_outline_becomes_far_fewer_points(write, most):
    before, after, found = write(jagged(), 0.98)
    assert found >= 0.98
    assert sum(map(len, before)) > 1000
    assert sum(map(len, after)) < most * sum(map(len, before))


def test_a_floor_that_nothing_reaches_leaves_the_rings_as_they_are():
    rings = [np.array([[0.0, 0.0], [9.0, 0.0], [9.0, 9.0], [0.0, 9.0]])]
    found, value = simplify_rings(rings, 0.9, lambda _: 0.5)
    assert (found[0] == rings[0]).all()
    assert value == 0.5
