"""Panoptic quality by hand, and by a second way of counting."""

import numpy as np
import pytest

from tests.scenes import CAT, DOG, SIZE, one_picture


def block(x0, y0, x1, y1):
    mask = np.zeros(SIZE, np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def quality(objects, found, scores=(), **changes):
    q = one_picture(objects, found, scores, **changes).panoptic.overall
    return pytest.approx((q.pq, q.sq, q.rq))


def test_one_match_one_false_and_one_missed():
    true = [(CAT, block(0, 0, 10, 10)), (CAT, block(50, 50, 60, 60))]
    found = [(CAT, block(0, 0, 10, 8)), (CAT, block(100, 100, 110, 110))]
    assert quality(true, found) == (0.8 / 2, 0.8, 1 / 2)


def test_the_mean_is_over_the_classes_that_occur():
    true = [(CAT, block(0, 0, 10, 10)), (DOG, block(50, 50, 60, 60))]
    assert quality(true, true[:1]) == (0.5, 0.5, 0.5)


def test_a_match_needs_more_than_half():
    assert quality([(CAT, block(0, 0, 10, 10))], [(CAT, block(0, 0, 10, 5))]) == (0, 0, 0)
    assert quality([(CAT, block(0, 0, 10, 10))], [(CAT, block(0, 0, 10, 6))]) == (0.6, 0.6, 1)


def test_a_shared_pixel_belongs_to_the_higher_score():
    true = [(CAT, block(0, 0, 10, 10)), (DOG, block(0, 10, 10, 20))]
    found = [(CAT, block(0, 0, 10, 12)), (DOG, block(0, 8, 10, 20))]
    # The first one owns rows 0 to 11, the other keeps 12 to 19; or 0 to 7, and 8 to 19.
    assert quality(true, found, [0.9, 0.8]) == ((100 / 120 + 80 / 100) / 2, (100 / 120 + 80 / 100) / 2, 1)
    assert quality(true, found, [0.8, 0.9]) == ((80 / 100 + 100 / 120) / 2, (80 / 100 + 100 / 120) / 2, 1)


def test_a_shared_pixel_belongs_to_the_smaller_one_among_equals():
    true = [(CAT, block(0, 0, 40, 40)), (DOG, block(10, 10, 20, 20))]
    assert quality(true, true) == (1, 1, 1)
    assert quality(true, true[::-1]) == (1, 1, 1)


def test_what_lies_by_more_than_half_in_a_crowd_of_its_class_is_not_false():
    true = [(CAT, block(0, 0, 10, 10)), (CAT, block(50, 0, 100, 50))]
    inside, half_out, other = block(60, 10, 70, 20), block(95, 10, 110, 20), block(60, 10, 70, 20)
    assert quality(true, [true[0], (CAT, inside)], crowd=(1,)) == (1, 1, 1)
    assert quality(true, [true[0], (CAT, half_out)], crowd=(1,)) == (1 / 1.5, 1, 1 / 1.5)
    assert quality(true, [true[0], (DOG, other)], crowd=(1,)) == (0.5, 0.5, 0.5)


def test_an_object_without_a_visible_pixel_is_no_segment():
    true = [(CAT, block(0, 0, 10, 10))]
    assert quality(true, [(CAT, block(0, 0, 10, 10)), (CAT, block(2, 2, 4, 4))], [0.9, 0.8]) == (1, 1, 1)
