"""How well two masks agree at their edges: boundary IoU and boundary F. Works on the objects' crop.

Boundary IoU: Cheng, Girshick, Dollar, Berg, Kirillov, "Boundary IoU", CVPR 2021 (arXiv 2103.16562): the IoU of
the pixels within `d` of the contour, inside each mask; `d` is 2 % of the picture's diagonal, distances as in the
authors' code (a pixel's neighbours are eight). The picture's border is contour.

Boundary F: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation"
(DAVIS), CVPR 2016: contour pixels count as found within 0.8 % of the diagonal. The picture's border is not a contour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from autolabel.core.types import Rle, UInt8
from autolabel.ops.masks import bounds_xyxy
from autolabel.ops.windows import window_pixels

BAND_RATIO = 0.02
"""Width of the band of boundary IoU, of the picture's diagonal."""
BOUND_RATIO = 0.008
"""Distance up to which boundary F takes two contours for one, of the picture's diagonal."""


@dataclass(frozen=True, slots=True)
class BoundaryScores:
    iou: float
    f: float


def boundary_scores(found: Rle, truth: Rle) -> BoundaryScores:
    """Both measures in [0, 1]; 1 for two equal masks, also for two empty ones."""
    a, b, reaches_end = _crops(found, truth)
    diagonal = math.hypot(*found.size_hw)
    return BoundaryScores(_band_iou(a, b, diagonal), _contour_f(a, b, reaches_end, diagonal))


def _crops(found: Rle, truth: Rle) -> tuple[UInt8, UInt8, tuple[bool, bool]]:
    """Both masks in the box of both, with a row and a column of the picture in front where there is one, and
    whether the box reaches the picture's last row and last column."""
    solid = [box for box in (bounds_xyxy(found), bounds_xyxy(truth)) if box is not None]
    if not solid:
        empty = np.zeros((0, 0), np.uint8)
        return empty, empty, (False, False)
    h, w = found.size_hw
    left, top = max(min(s[0] for s in solid) - 1, 0), max(min(s[1] for s in solid) - 1, 0)
    right, bottom = min(max(s[2] for s in solid) + 1, w), min(max(s[3] for s in solid) + 1, h)
    window = left, top, right, bottom
    return window_pixels(found, window), window_pixels(truth, window), (bottom == h, right == w)


def _band_iou(a: UInt8, b: UInt8, diagonal: float) -> float:
    width = max(round(BAND_RATIO * diagonal), 1)
    band_a, band_b = _band(a, width), _band(b, width)
    union = int(np.count_nonzero(band_a | band_b))
    return int(np.count_nonzero(band_a & band_b)) / union if union else 1.0


def _band(mask: UInt8, width: int) -> UInt8:
    """The pixels of the mask within `width` of its outside; what is beyond the crop is outside."""
    if not mask.size:
        return mask
    # Further in than half the crop nothing is left, and OpenCV's time grows with the kernel.
    width = min(width, (min(mask.shape) + 1) // 2)
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(padded, np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    return mask - np.asarray(inner[1:-1, 1:-1], np.uint8)


def _contour_f(a: UInt8, b: UInt8, reaches_end: tuple[bool, bool], diagonal: float) -> float:
    bound = math.ceil(BOUND_RATIO * diagonal)
    contour_a, contour_b = _contour(a, reaches_end), _contour(b, reaches_end)
    n, m = int(contour_a.sum()), int(contour_b.sum())
    if not n or not m:
        return 1.0 if n == m else 0.0
    precision = _near(contour_a, contour_b, bound) / n
    recall = _near(contour_b, contour_a, bound) / m
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _contour(mask: UInt8, reaches_end: tuple[bool, bool]) -> UInt8:
    """Pixels that differ from the one to the right, below or between (DAVIS: seg2bmap), with its rule for the
    picture's last row and column; beyond the crop lies background elsewhere."""
    after = np.pad(mask, ((0, 1), (0, 1)))
    if reaches_end[0]:
        after[-1] = after[-2]
    if reaches_end[1]:
        after[:, -1] = after[:, -2]
    here, right, below, between = mask, after[:-1, 1:], after[1:, :-1], after[1:, 1:]
    return np.asarray((here != right) | (here != below) | (here != between), np.uint8)


def _near(contour: UInt8, other: UInt8, bound: int) -> int:
    """How many pixels of `contour` have one of `other` within `bound` pixels."""
    distance = cv2.distanceTransform(1 - other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return int(np.count_nonzero(distance[contour > 0] <= bound + 1e-3))
