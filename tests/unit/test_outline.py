import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.core.types import Rle
from autolabel.ops.masks import area_px, bounds_xyxy, encode, from_polygons
from autolabel.ops.outline import centre_texts, outline
from tests.records import part_areas_px, shapes


def check(mask):
    rle = encode(mask)
    found = outline(rle)
    polygons = found.polygons
    assert found.area_px == area_px(rle)
    assert found.bounds_xyxy == (bounds_xyxy(rle) or (0, 0, 0, 0))
    assert len(polygons) == len(part_areas_px(rle))
    if polygons:
        assert from_polygons(tuple(map(tuple, polygons)), rle.size_hw) == rle
    return polygons


@pytest.mark.parametrize("name", shapes())
def test_a_shape_comes_back_exactly_with_one_ring_a_part(name):
    check(shapes()[name])


@settings(max_examples=200)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_noise_of_any_grain_comes_back_exactly(h, w, share, blur, seed):
    noise = np.random.default_rng(seed).random((h, w)).astype(np.float32)
    grain = cv2.GaussianBlur(noise, (0, 0), blur) if blur > 0.3 else noise
    check((grain > np.quantile(grain, share)).astype(np.uint8))


def test_holes_in_long_chains_need_no_recursion():
    comb = np.ones((3, 4001), np.uint8)
    comb[1, 1::2] = 0
    (ring,) = check(comb)
    assert len(ring) > 4000


def test_only_true_corners_are_points():
    assert sorted(check(np.ones((5, 7), np.uint8))[0]) == sorted([0, 0, 7, 0, 7, 5, 0, 5])
    assert len(check(shapes()["line"])[0]) == 8


def test_runs_of_no_length_and_an_empty_mask_are_taken_as_they_are():
    assert outline(encode(np.zeros((4, 4), np.uint8))).polygons == []
    # Runs 3, 2, 0, 2 and 9; from the fourth on, each is written less the one two before.
    rle = Rle((4, 4), b"32009")
    assert outline(rle).area_px == area_px(rle) == 4
    assert from_polygons(tuple(map(tuple, outline(rle).polygons)), (4, 4)).counts == b"349"


@pytest.mark.parametrize("counts", [b"", b"9", b"P", b"\\\\", b"0o"])
def test_a_damaged_string_is_an_error(counts):
    with pytest.raises(ValueError, match="do not cover"):
        outline(Rle((4, 4), counts))


def cv2_ring(mask):
    """OpenCV's contour of a mask of one part without holes, without the points on straight runs; else None."""
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if len(contours) != 1:
        return None
    ring = np.roll(contours[0][:, 0, :], -1, axis=0)
    heading = np.sign(np.roll(ring, -1, axis=0) - ring)
    turns = (heading != np.roll(heading, 1, axis=0)).any(axis=1)
    ring = ring if len(ring) < 3 else ring[turns]
    return np.resize(ring, (max(3, len(ring)), 2))


def numbers(size):
    return np.array([f"{number:08}" for number in range(size)], "S8").view(np.uint64)


@settings(max_examples=200)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_the_ring_through_pixel_centres_is_opencvs_and_there_is_none_for_parts_and_holes(h, w, share, seed):
    mask = (np.random.default_rng(seed).random((h, w)) < share).astype(np.uint8)
    (text,) = centre_texts([encode(mask)], numbers(w), numbers(h))
    expected = cv2_ring(mask)
    assert (text is None) == (expected is None)
    assert text is None or [int(word) for word in text.split()] == expected.ravel().tolist()


def test_many_masks_at_once_are_each_one_alone():
    masks = [encode(mask) for mask in (*shapes().values(), np.zeros((120, 160), np.uint8))]
    assert centre_texts([], numbers(160), numbers(120)) == []
    each = [centre_texts([mask], numbers(160), numbers(120))[0] for mask in masks]
    assert centre_texts(masks, numbers(160), numbers(120)) == each


def test_masks_of_several_sizes_and_of_no_pictures_size_are_refused():
    with pytest.raises(ValueError, match="several sizes"):
        centre_texts([encode(np.ones((4, w), np.uint8)) for w in (4, 5)], numbers(5), numbers(4))
    with pytest.raises(ValueError, match="larger than any picture"):
        outline(Rle((1, 10_000_000), b"0"))


def test_a_long_mask_has_numbers_of_all_widths():
    mask = np.zeros((3, 1_200_001), np.uint8)
    mask[1, [0, 9, 99, 999, 9_999, 99_999, 999_999, 1_200_000]] = 1
    check(mask)
