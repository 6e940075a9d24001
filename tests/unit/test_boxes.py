"""Box arithmetic, and what is said of boxes that cannot be used."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autolabel.ops.boxes import (
    area_xyxy,
    box_problem,
    clip_xyxy,
    cxcywh_to_xyxy,
    iou_xyxy,
    scale_normalized,
    xywh_to_xyxy,
)

SIZE = (100, 200)
BOXES = arrays(np.float32, st.tuples(st.integers(0, 4), st.just(4)), elements=st.floats(-300, 300, width=32))


@given(BOXES)
def test_clipping_never_leaves_the_image_and_never_reverses(boxes):
    ordered = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1)
    clipped = clip_xyxy(ordered, SIZE)
    assert clipped.dtype == np.float32
    assert (clipped >= 0).all()
    assert (clipped <= [200, 100, 200, 100]).all()
    assert (clipped[:, 2:] >= clipped[:, :2]).all()


@given(BOXES)
def test_what_coco_and_yolo_write_of_a_box_leads_back_to_it(boxes):
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    np.testing.assert_allclose(xywh_to_xyxy(np.hstack([low, high - low])), boxes, atol=1e-4)
    there = np.hstack([(low + high) / 2, high - low]) / [200, 100, 200, 100]
    np.testing.assert_allclose(scale_normalized(cxcywh_to_xyxy(there), SIZE), boxes, atol=1e-3)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((0, 0, 200, 100), None),
        ((-5, -5, 300, 300), None),
        ((0.0, 0.0, 0.1, 0.1), None),
        ((float("nan"), 0, 1, 1), "bad_box: not finite"),
        ((0, 0, float("inf"), 1), "bad_box: not finite"),
        ((10, 0, 5, 5), "bad_box: corners reversed"),
        ((0, 10, 5, 5), "bad_box: corners reversed"),
        ((5, 5, 5, 9), "bad_box: zero area"),
        ((0, 0, 0, 0), "bad_box: zero area"),
        ((200, 0, 220, 10), "bad_box: outside the 200x100 image"),
        ((0, -20, 10, 0), "bad_box: outside the 200x100 image"),
    ],
)
def test_a_bad_box_is_named(box, reason):
    found = box_problem(box, SIZE)
    assert found is None if reason is None else found.startswith(reason)


@given(BOXES, BOXES)
def test_iou_is_a_share_and_one_with_itself(a, b):
    iou = iou_xyxy(a, b)
    assert iou.shape == (len(a), len(b))
    assert ((iou >= 0) & (iou <= 1 + 1e-5)).all()
    solid = a[area_xyxy(a) > 1]
    np.testing.assert_allclose(np.diag(iou_xyxy(solid, solid)), 1, rtol=1e-4)


def test_iou_of_half_overlapping_boxes_is_a_third():
    a, b = np.array([[0, 0, 2, 2]], np.float32), np.array([[1, 0, 3, 2], [5, 5, 6, 6]], np.float32)
    np.testing.assert_allclose(iou_xyxy(a, b), [[1 / 3, 0]], rtol=1e-6)
