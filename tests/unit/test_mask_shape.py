import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from autolabel.core.types import Rle
from autolabel.ops.mask_shape import mask_shape
from autolabel.ops.masks import area_px, bounds_xyxy, decode, encode
from tests.records import hole_areas_px, part_areas_px, shapes

BOX = (10.4, 20.6, 70.5, 61.5)
small = arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


def outline_px(mask):
    padded = np.pad(mask.astype(int), 1)
    return int(np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum())


def border_px(mask):
    return int(mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum())


def check(rle):
    found, mask = mask_shape(rle, BOX), decode(rle)
    parts, holes = part_areas_px(rle), hole_areas_px(rle)
    assert (found.area_px, found.box_xyxy) == (area_px(rle), bounds_xyxy(rle) or (0, 0, 0, 0))
    assert (found.outline_px, found.border_px) == (outline_px(mask), border_px(mask))
    assert (found.parts, found.largest_part_px) == (len(parts), max(parts, default=0))
    assert (found.holes, found.hole_px) == (len(holes), sum(holes))
    assert found.inside_px == int(mask[21:61, 10:70].sum())


@pytest.mark.parametrize("name", [*shapes(), "empty"])
def test_every_number_is_that_of_the_pixels(name):
    check(encode({**shapes(), "empty": np.zeros((120, 160), np.uint8)}[name]))


@given(small)
def test_every_number_is_that_of_the_pixels_of_any_mask(mask):
    check(encode(mask))


def test_runs_of_length_zero_change_nothing():
    # 3 background, 2 + 0 + 4 foreground, 3 background, in a 4x3 mask
    torn = Rle((4, 3), b"32023")
    assert decode(torn).sum() == 6
    check(torn)


@pytest.mark.parametrize("counts", [b"", b"5", b"PPYo0", b"o"])
def test_a_damaged_string_is_refused(counts):
    with pytest.raises(ValueError, match="do not cover"):
        mask_shape(Rle((4, 3), counts), BOX)
