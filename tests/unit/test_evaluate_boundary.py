"""Boundary IoU and boundary F against small implementations written from the papers, on whole pictures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.evaluate.boundary import boundary_scores
from autolabel.ops.masks import encode
from tests.records import shapes
from tests.scenes import at


def band(mask, d):
    """Pixels of the mask with a pixel outside it at most d steps away, diagonal steps too."""
    h, w = mask.shape
    outside = np.pad(mask == 0, d, constant_values=True)
    near = np.zeros(mask.shape, bool)
    for dy in range(2 * d + 1):
        for dx in range(2 * d + 1):
            near |= outside[dy : dy + h, dx : dx + w]
    return near & (mask > 0)


def paper_boundary_iou(a, b):
    d = max(round(0.02 * math.hypot(*a.shape)), 1)
    band_a, band_b = band(a, d), band(b, d)
    union = (band_a | band_b).sum()
    return (band_a & band_b).sum() / union if union else 1.0


def contour(mask):
    """A pixel that differs from its right, its lower or its lower right neighbour; on the last row and column only
    the neighbours that exist along it."""
    h, w = mask.shape
    found = np.zeros(mask.shape, bool)
    for y in range(h):
        for x in range(w):
            places = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if y == h - 1:
                places = [(y, x + 1)]
            elif x == w - 1:
                places = [(y + 1, x)]
            found[y, x] = any(mask[p] != mask[y, x] for p in places if p[0] < h and p[1] < w)
    return found


def paper_boundary_f(a, b):
    bound = math.ceil(0.008 * math.hypot(*a.shape))
    points_a, points_b = np.argwhere(contour(a)), np.argwhere(contour(b))
    if not len(points_a) or not len(points_b):
        return float(len(points_a) == len(points_b))
    squared = ((points_a[:, None] - points_b[None]) ** 2).sum(2)
    precision = (squared.min(1) <= bound**2).mean()
    recall = (squared.min(0) <= bound**2).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def assert_as_in_the_papers(a, b):
    found = boundary_scores(encode(a), encode(b))
    assert found.iou == pytest.approx(paper_boundary_iou(a, b))
    assert found.f == pytest.approx(paper_boundary_f(a, b))


@pytest.mark.parametrize("name", shapes())
def test_shapes_beside_a_moved_disc(name):
    assert_as_in_the_papers(shapes()[name], at(75, 62, 33))


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from([(1, 1), (3, 40), (25, 25), (31, 60)]), st.floats(0, 1))
def test_any_two_masks_at_any_border(seed, size_hw, share):
    random = np.random.default_rng(seed)
    blocks = random.random((2, (size_hw[0] + 4) // 5, (size_hw[1] + 4) // 5)) < share
    a, b = (np.kron(m, np.ones((5, 5)))[: size_hw[0], : size_hw[1]].astype(np.uint8) for m in blocks)
    flips = random.random(size_hw) < 0.03
    assert_as_in_the_papers(a, b ^ flips.astype(np.uint8))


@pytest.mark.parametrize("name", shapes())
def test_equal_masks_agree_fully(name):
    rle = encode(shapes()[name])
    assert (boundary_scores(rle, rle).iou, boundary_scores(rle, rle).f) == (1, 1)


def test_both_are_symmetric():
    a, b = encode(at(60, 60)), encode(at(66, 58, 25))
    assert boundary_scores(a, b) == boundary_scores(b, a)


def test_a_large_object_that_is_a_little_too_wide_loses_far_more_boundary_iou_than_iou():
    whole, wider = at(80, 60, 50), at(80, 60, 53)
    iou = (whole & wider).sum() / (whole | wider).sum()
    assert boundary_scores(encode(whole), encode(wider)).iou < iou - 0.3
