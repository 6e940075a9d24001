"""Masks as they are drawn, smaller than they are."""

import numpy as np
import pytest

from autolabel.ops.drawing import scaled_crop
from autolabel.ops.masks import encode


@pytest.mark.parametrize("pixels", [[(0, 0)], [(0, 0), (999, 999)], [(500, 3), (501, 3)]])
@pytest.mark.parametrize("scale", [0.01, 0.003, 0.5, 1.0])
def test_a_mask_of_a_few_pixels_is_seen_however_small_the_picture_is_drawn(pixels, scale):
    mask = np.zeros((1000, 1000), np.uint8)
    mask[tuple(np.transpose(pixels))] = 1
    side = max(1, round(1000 * scale))
    inside, left, top = scaled_crop(encode(mask), scale, (side, side))
    assert inside.any()
    assert left + inside.shape[1] <= side
    assert top + inside.shape[0] <= side
