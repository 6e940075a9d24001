"""Close-ups and cut objects of the nano models' training scenes: parts of the picture that hold some of the object."""

import numpy as np
import pytest

from scripts.nano import compose, scenes
from scripts.nano.dataset import ObjectMask

SIZE_HW = (300, 448)
SEEDS = range(200)


def thing(x0, y0, x1, y1):
    return ObjectMask({}, (x0, y0, x1, y1), 1, "cat", is_part=False, is_crowd=False)


OBJECTS = [thing(0.0, 0.0, 448.0, 300.0), thing(200.0, 20.0, 260.0, 290.0), thing(10.0, 250.0, 440.0, 300.0)]


def of_scenes(rng, target):
    return scenes._rectangle_inside(rng, target, SIZE_HW, (512, 512))


def of_compositions(rng, target):
    top, left, height, width = compose._close_up(rng, target, SIZE_HW, aspect=1.3)
    return left, top, left + width, top + height


@pytest.mark.parametrize("close_up", [of_scenes, of_compositions])
@pytest.mark.parametrize("target", OBJECTS)
def test_a_close_up_is_a_part_of_the_picture_with_some_of_the_object(close_up, target):
    x0, y0, x1, y1 = target.bbox_xyxy
    cut = 0
    for seed in SEEDS:
        left, top, right, bottom = close_up(np.random.default_rng(seed), target)
        assert 0 <= left < right <= SIZE_HW[1]
        assert 0 <= top < bottom <= SIZE_HW[0]
        assert min(right, x1) - max(left, x0) > 0
        assert min(bottom, y1) - max(top, y0) > 0
        cut += left > x0 or top > y0 or right < x1 or bottom < y1
    assert cut > 0.8 * len(SEEDS)


def test_a_pasted_object_may_lie_over_the_edge_with_half_of_a_side_at_most():
    over = 0
    for seed in SEEDS:
        there, kept = scenes._landing(np.random.default_rng(seed), (40, 90), 128)
        for length, place, part in zip((40, 90), there, kept, strict=True):
            assert 0 <= place.start < place.stop <= 128
            assert place.stop - place.start == part.stop - part.start >= length / 2
            over += part != slice(0, length)
    assert over > 20
