import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from autolabel.ops.masks import area_px, encode, from_polygons, iou
from autolabel.ops.polygons import coco_polygons, yolo_iou, yolo_rasterize, yolo_ring
from tests.records import disc, shapes, twelve_parts

SHAPES = shapes()
noise = npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 1))
some_noise = noise.filter(lambda mask: mask.any())


def parts(mask):
    return cv2.connectedComponents(mask, connectivity=8)[0] - 1


def written(ring, size_hw):
    """The fractions as a label file carries them."""
    fractions = ring.points_xy / np.array(size_hw[::-1])
    return np.array([f"{v:.6f}" for v in fractions.ravel()], np.float32).reshape(-1, 2)


def through_the_loader(mask, **options):
    ring = yolo_ring(encode(mask), **options)
    return ring, yolo_rasterize(written(ring, mask.shape), mask.shape)


@pytest.mark.parametrize("name", SHAPES)
def test_coco_polygons_give_the_mask_back(name):
    rle = encode(SHAPES[name])
    polygons = coco_polygons(rle)
    assert from_polygons(tuple(polygons), rle.size_hw) == rle
    assert len(polygons) == parts(SHAPES[name])


@settings(max_examples=150)
@given(some_noise)
def test_coco_polygons_of_noise_give_the_mask_back(mask):
    rle = encode(mask)
    assert from_polygons(tuple(coco_polygons(rle)), rle.size_hw) == rle


@settings(max_examples=150)
@given(some_noise)
def test_a_yolo_ring_is_wrong_only_in_the_pixels_it_admits(mask):
    ring, back = through_the_loader(mask)
    assert int(((back == 1) & (mask == 0)).sum()) == ring.bridge_px
    assert int(((back == 0) & (mask == 1)).sum()) == ring.left_out_px
    assert ring.parts == parts(mask)
    assert ring.parts > 1 or (back == mask).all()


@settings(max_examples=60)
@given(some_noise)
def test_keeping_far_parts_loses_no_pixel(mask):
    ring, back = through_the_loader(mask, keep_far_parts=True)
    assert ring.left_out == 0
    assert (back >= mask).all()


@pytest.mark.parametrize("name", [name for name in SHAPES if parts(SHAPES[name]) == 1])
def test_a_yolo_ring_of_one_part_is_exact(name):
    _, back = through_the_loader(SHAPES[name])
    assert (back == SHAPES[name]).all()


def test_two_large_parts_come_back_above_098():
    mask = disc(480, 640, 160, 240, 120) | disc(480, 640, 460, 240, 120)
    ring, back = through_the_loader(mask)
    assert ring.left_out == 0
    assert iou(encode(back), encode(mask)) >= 0.98


def test_twelve_parts_are_all_there_and_come_back_above_097():
    ring, back = through_the_loader(twelve_parts())
    assert (ring.parts, ring.left_out) == (12, 0)
    assert iou(encode(back), encode(twelve_parts())) >= 0.97


def test_a_far_speck_is_left_out_rather_than_a_line_drawn_to_it():
    ring, back = through_the_loader(SHAPES["speck"])
    assert (ring.left_out, ring.left_out_px, ring.bridge_px) == (1, 1, 0)
    assert back.sum() == SHAPES["speck"].sum() - 1
    kept = yolo_ring(encode(SHAPES["speck"]), keep_far_parts=True)
    assert kept.bridge_px > 50


def test_the_loader_is_imitated_exactly():
    from ultralytics.data.utils import polygon2mask

    mask = SHAPES["twelve parts"]
    ring = written(yolo_ring(encode(mask)), mask.shape)
    theirs = polygon2mask(mask.shape, [(ring * np.float32([160, 120])).reshape(-1)])
    assert (theirs == yolo_rasterize(ring, mask.shape)).all()


@settings(max_examples=60)
@given(some_noise, st.floats(0, 1), st.floats(0, 1))
def test_the_measured_iou_is_that_of_whole_images(mask, dx, dy):
    ring = written(yolo_ring(encode(mask)), mask.shape) * np.float32([dx, dy])
    back = encode(yolo_rasterize(ring, mask.shape))
    assert yolo_iou(ring, encode(mask)) == pytest.approx(iou(back, encode(mask)))


def test_six_decimals_hold_the_pixel_of_a_huge_image():
    mask = np.zeros((4, 40_000), np.uint8)
    mask[1:3, 1::2], mask[0] = 1, 1
    _, back = through_the_loader(mask)
    assert (back == mask).all()


def test_an_empty_mask_has_no_polygon_and_no_ring():
    empty = encode(np.zeros((5, 5), np.uint8))
    assert coco_polygons(empty) == []
    with pytest.raises(ValueError, match="empty"):
        yolo_ring(empty)


def test_straight_runs_carry_no_points_in_their_middle():
    assert len(coco_polygons(encode(SHAPES["full"]))[0]) == 8
    assert len(yolo_ring(encode(SHAPES["full"])).points_xy) == 4
    assert area_px(encode(SHAPES["full"])) == 120 * 160
