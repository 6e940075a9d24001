import numpy as np
import pytest

from autolabel.ops.components import drop_islands, fill_holes, keep_largest, split_parts
from autolabel.ops.masks import area_px, decode, encode
from tests.records import disc, hole_areas_px, part_areas_px, shapes


def test_parts_come_largest_first():
    mask = np.zeros((20, 20), np.uint8)
    mask[1:4, 1:4], mask[10:16, 10:16], mask[19, 0] = 1, 1, 1
    assert [area_px(part) for part in split_parts(encode(mask))] == [36, 9, 1]


def test_pixels_that_touch_at_a_corner_are_one_part():
    line = encode(np.eye(5, dtype=np.uint8))
    assert split_parts(line) == [line]


def test_holes_are_filled_up_to_the_limit_and_no_further():
    mask = np.ones((20, 20), np.uint8)
    mask[2:4, 2:4], mask[10:13, 10:13] = 0, 0
    rle = encode(mask)
    assert hole_areas_px(rle) == [9, 4]
    assert hole_areas_px(fill_holes(rle, 4)) == [9]
    assert area_px(fill_holes(rle, 9)) == 400
    assert fill_holes(rle, 3) is rle


@pytest.mark.parametrize("notch", [(0, 5), (10, 19), (19, 19)])
def test_background_at_the_border_of_the_mask_is_no_hole(notch):
    mask = np.ones((20, 20), np.uint8)
    mask[notch] = 0
    assert fill_holes(encode(mask), 1000) == encode(mask)


def test_a_mask_of_one_part_keeps_every_island_limit():
    rle = encode(disc(30, 30, 15, 15, 8))
    assert drop_islands(rle, 10**6) is rle


def test_islands_go_up_to_the_limit_and_the_largest_part_stays():
    mask = shapes()["two pixels"]
    assert area_px(drop_islands(encode(mask), 100)) == 1
    speck = encode(shapes()["speck"])
    assert part_areas_px(drop_islands(speck, 1)) == part_areas_px(speck)[:1]
    assert drop_islands(speck, 0) is speck


def test_the_largest_part_is_kept_with_its_holes():
    mask = shapes()["ring"].copy()
    mask[0, 0] = 1
    kept = decode(keep_largest(encode(mask)))
    assert (kept == shapes()["ring"]).all()


def test_empty_masks_stay_empty():
    empty = encode(np.zeros((9, 9), np.uint8))
    assert fill_holes(empty, 5) is drop_islands(empty, 5) is keep_largest(empty) is empty
    assert split_parts(empty) == []
