"""Which answers of an automatic grid are objects: sure, stable, whole, and each only once. Asks nothing.

The filters of `SAM2AutomaticMaskGenerator` in its order, on run lengths instead of full-size masks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from autolabel.core.types import Float32, ImageInfo, PromptedMask, Sieve
from autolabel.ops.duplicates import box_nms, mask_nms
from autolabel.ops.masks import area_px, bounds_xyxy
from autolabel.ops.windows import Window

EDGE_PX = 20.0
"""Nearer than this to a window's border inside the picture, a mask is taken to be cut off (sam2/utils/amg.py)."""
_OPEN = np.array([0, 0, 1, 1], np.float32)


def sifted(
    answers: Sequence[tuple[Window | None, PromptedMask]], sieve: Sieve, image: ImageInfo
) -> tuple[PromptedMask, ...]:
    """The answers that pass the sieve: first within each window, then between windows, where smaller ones win."""
    by_window: dict[Window | None, list[PromptedMask]] = defaultdict(list)
    for window, answer in answers:
        by_window[window].append(answer)
    left: list[PromptedMask] = []
    areas: list[float] = []
    for window, some in by_window.items():
        good = [a for a in some if _passes(a, sieve, image) and not _cut_off(a, window, image)]
        best = [good[i] for i in box_nms(_corners(good), _scores(good), sieve.box_iou)]
        left += best
        areas += [_area(window, image)] * len(best)
    if len(by_window) > 1:
        closeness = np.float32(1) / np.array(areas, np.float32)
        left = [left[i] for i in box_nms(_corners(left), closeness, sieve.window_iou)]
    if sieve.mask_iou is not None:
        masks, boxes = [answer.mask for answer in left], _corners(left) + _OPEN
        left = [left[i] for i in mask_nms(masks, boxes, _scores(left), sieve.mask_iou)]
    return tuple(left)


def _passes(answer: PromptedMask, sieve: Sieve, image: ImageInfo) -> bool:
    area = area_px(answer.mask)
    return (
        answer.predicted_iou > sieve.min_predicted_iou
        and (answer.stability is None or answer.stability >= sieve.min_stability)
        and max(sieve.min_area_px, 1) <= area <= sieve.max_area_fraction * image.width * image.height
    )


def _cut_off(answer: PromptedMask, window: Window | None, image: ImageInfo) -> bool:
    """Whether the mask comes near a border of the window that is not one of the picture."""
    if window is None:
        return False
    box = _corners([answer])[0]
    near_window = np.abs(box - np.array(window, np.float32)) <= EDGE_PX
    near_picture = np.abs(box - np.array([0, 0, image.width, image.height], np.float32)) <= EDGE_PX
    return bool((near_window & ~near_picture).any())


def _corners(answers: Sequence[PromptedMask]) -> Float32:
    """First and last pixel of each mask (N, 4), as sam2 measures boxes: the last one is inside."""
    bounds = [bounds_xyxy(answer.mask) or (0, 0, 1, 1) for answer in answers]
    return np.array(bounds, np.float32).reshape(-1, 4) - _OPEN


def _scores(answers: Sequence[PromptedMask]) -> Float32:
    return np.array([answer.predicted_iou for answer in answers], np.float32)


def _area(window: Window | None, image: ImageInfo) -> float:
    x0, y0, x1, y1 = window or (0, 0, image.width, image.height)
    return float((x1 - x0) * (y1 - y0))
