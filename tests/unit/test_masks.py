import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco_mask

from autolabel.core.types import Rle
from autolabel.ops.masks import area_px, bounds_xyxy, decode, decode_crop, encode, encode_crop, iou, run_lengths
from autolabel.ops.rle import runs_to_rle
from tests.records import shapes

any_mask = npst.arrays(
    np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1)
)


@settings(max_examples=60)
@given(any_mask)
def test_a_mask_comes_back_from_its_run_lengths(mask):
    rle = encode(mask)
    assert (decode(rle) == mask).all()
    assert area_px(rle) == mask.sum() == run_lengths(rle)[1::2].sum()


@settings(max_examples=200)
@given(any_mask, st.sampled_from(["C", "F"]), st.sampled_from([bool, np.uint8, np.float32]))
def test_a_mask_has_the_bytes_of_pycocotools(mask, order, dtype):
    for inside in (mask, mask[:0], mask[:, :0]):
        expected = coco_mask.encode(np.asfortranarray(inside))["counts"]
        assert encode(np.array(inside, dtype, order=order) * dtype(3)).counts == expected


@settings(max_examples=60)
@given(any_mask)
def test_the_crop_is_the_mask_in_its_tight_box(mask):
    rle = encode(mask)
    crop, x0, y0 = decode_crop(rle)
    if not mask.any():
        assert crop.size == 0
        assert bounds_xyxy(rle) is None
        return
    ys, xs = np.nonzero(mask)
    assert bounds_xyxy(rle) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert (crop == mask[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]).all()
    assert encode_crop(crop, x0, y0, rle.size_hw) == rle


@settings(max_examples=200)
@given(any_mask, *(st.integers(0, 3) for _ in range(4)), st.sampled_from([bool, np.uint8, np.float32]))
def test_a_crop_anywhere_in_a_picture_has_the_bytes_of_the_whole_mask(crop, left, top, right, bottom, dtype):
    whole = np.pad(crop, ((top, bottom), (left, right)))
    assert encode_crop((crop * 7).astype(dtype), left, top, whole.shape) == encode(whole)
    for h, w in ((0, 0), (0, crop.shape[1]), (crop.shape[0], 0)):  # nothing is inside
        assert encode_crop(crop[:h, :w], left, top, whole.shape) == encode(whole * 0)


@pytest.mark.parametrize(("x", "y"), [(-1, 0), (0, -1), (3, 0), (0, 2)])
def test_a_crop_that_is_not_inside_its_picture_is_refused(x, y):
    with pytest.raises(ValueError, match=r"^a crop of 3x4 px at .* does not lie in 5x5 px"):
        encode_crop(np.ones((4, 3), np.uint8), x, y, (5, 5))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_any_nonzero_value_is_inside(dtype):
    mask = np.array([[0, 1], [200, 3]]).astype(dtype)
    assert encode(mask) == encode(mask != 0)


def test_iou_counts_pixels():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert iou(encode(a), encode(b)) == pytest.approx(1 / 3)
    assert iou(encode(a), encode(np.zeros((4, 4), bool))) == 0


def test_iou_of_two_sizes_is_refused():
    with pytest.raises(ValueError, match="two sizes"):
        iou(encode(np.ones((2, 2))), encode(np.ones((2, 3))))


@pytest.mark.parametrize("runs", [[100], [100, 0], [50, 0, 50]])
def test_runs_without_a_pixel_are_an_empty_mask(runs):
    rle = runs_to_rle(np.array(runs, np.int64), (10, 10))
    assert area_px(rle) == 0
    assert bounds_xyxy(rle) is None
    assert decode_crop(rle)[0].shape == (0, 0)


def test_a_torn_string_is_refused():
    good = encode(shapes()["noise"])
    for cut in range(1, 40):
        with pytest.raises(ValueError, match="run"):
            run_lengths(Rle(good.size_hw, good.counts[:-cut]))


def test_only_two_axes_are_a_mask():
    with pytest.raises(ValueError, match="shape"):
        encode(np.ones((2, 2, 1)))
