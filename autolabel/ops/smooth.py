"""Smoother masks: a median, or opening and closing, on the object's crop. The largest radius within a bound is taken.

Beyond the border of the picture a mask is taken to go on as it ends there, so that cut objects stay cut straight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from autolabel.core.types import Rle, UInt8
from autolabel.ops.masks import decode_crop, encode_crop

Filter = Callable[[UInt8, int], UInt8]


def smoothed(rle: Rle, how: Filter, radius_px: int, min_iou: float) -> Rle:
    """By the largest radius up to `radius_px` that keeps an IoU of at least `min_iou` with the mask as it was. The
    same object when nothing changes, or too much by any radius."""
    crop, x0, y0 = decode_crop(rle)
    if not crop.size:
        return rle
    for radius in range(radius_px, 0, -1):
        changed = _on_crop(crop, x0, y0, rle.size_hw, how, radius)
        # No filter reaches beyond the mask's bounds, so the two pictures hold all of both masks.
        padded, left, top = changed
        before = np.zeros_like(padded)
        before[y0 - top : y0 - top + crop.shape[0], x0 - left : x0 - left + crop.shape[1]] = crop
        iou = np.count_nonzero(before & padded) / np.count_nonzero(before | padded)
        if iou >= min_iou:
            return rle if iou == 1 else encode_crop(padded, left, top, rle.size_hw)
    return rle


def median(mask: UInt8, radius: int) -> UInt8:
    """Each pixel as most of the square of 2 radius + 1 around it."""
    size = 2 * radius + 1
    around = cv2.boxFilter(mask, cv2.CV_32S, (size, size), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return (2 * around > size * size).astype(np.uint8)


def open_close(mask: UInt8, radius: int) -> UInt8:
    """Spikes that no disc of the radius fits into go, then gaps that none fits into are filled."""
    widths = _half_widths(radius)
    eroded = _eroded(mask, widths)
    if not eroded.any():  # so it is for every radius that is too large for the object
        return eroded
    opened = 1 - _eroded(1 - eroded, widths)
    return _eroded(1 - _eroded(1 - opened, widths), widths)


def _half_widths(radius: int) -> list[int]:
    """Half widths of the rows of cv2's disc, which are centred runs, from its middle row to its last."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return [int(row.sum()) // 2 for row in disc[radius:]]


def _eroded(mask: UInt8, half_widths: Sequence[int]) -> UInt8:
    """Where the disc fits, as cv2.erode says, by the rows of the disc and not by its pixels; what is beyond the array
    hinders nothing. A mask's dilation is the erosion of what is not in it."""
    fits, wide, reach = np.ones_like(mask), mask, 0
    for dy, half_width in reversed(list(enumerate(half_widths))):
        if half_width > reach:  # the rows grow towards the middle: each is the one before, and a little more
            row = np.ones((1, 2 * (half_width - reach) + 1), np.uint8)
            wide = np.asarray(cv2.erode(wide, row), np.uint8)
            reach = half_width
        fits[dy:] &= wide[: len(wide) - dy]
        fits[: len(wide) - dy] &= wide[dy:]
    return fits


def _on_crop(
    crop: UInt8, x0: int, y0: int, size_hw: tuple[int, int], how: Filter, radius: int
) -> tuple[UInt8, int, int]:
    """The filtered crop with a margin inside the picture, and where it lies."""
    height, width = crop.shape
    # Closing looks up to 2 radii beyond the crop, and fills nothing there: a pixel of it tells where the mask ends.
    pad = 2 * radius + 1
    room = (y0, size_hw[0] - y0 - height, x0, size_hw[1] - x0 - width)
    near = [min(1, space) for space in room]
    inner = np.pad(crop, ((near[0], near[1]), (near[2], near[3])))
    filtered = how(np.pad(inner, pad, mode="edge"), radius)
    return np.ascontiguousarray(filtered[pad:-pad, pad:-pad]), x0 - near[2], y0 - near[0]
