"""Masks on a canvas of another size than their picture: colours, and where a mask comes to lie."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import Rle
from autolabel.ops.masks import decode_crop

Colour = tuple[int, int, int]
"""RGB, 0 to 255."""


def colour_of(index: int) -> Colour:
    """Neighbouring numbers far apart on the colour circle; bright enough for any picture."""
    hue = (0.08 + index * 0.618033988749895) % 1.0
    r, g, b = colorsys.hsv_to_rgb(hue, 0.85 if index % 2 else 0.70, 1.0 if index % 3 else 0.9)
    return round(r * 255), round(g * 255), round(b * 255)


def rim_of(colour: Colour) -> Colour:
    """Dark, to lie below a bright line: the outline stays visible on any ground."""
    return round(colour[0] * 0.25), round(colour[1] * 0.25), round(colour[2] * 0.25)


def scaled_crop(
    mask: Rle, scale: float, canvas_hw: Sequence[int], origin_xy: tuple[int, int] = (0, 0)
) -> tuple[NDArray[np.bool_], int, int]:
    """The mask on a canvas that shows the picture from `origin_xy` on: a bool window, and where it lies.

    A mask that is there keeps one pixel at least; one that is empty or outside the canvas gives a (0, 0) window.
    """
    crop, x0, y0 = decode_crop(mask)
    x0, y0 = x0 - origin_xy[0], y0 - origin_xy[1]
    crop = crop[max(0, -y0) :, max(0, -x0) :]
    x0, y0 = max(0, x0), max(0, y0)
    # The canvas's own size was rounded, so it may end half a pixel early.
    if not crop.size or x0 * scale >= canvas_hw[1] + 0.5 or y0 * scale >= canvas_hw[0] + 0.5:
        return np.zeros((0, 0), np.bool_), 0, 0
    left, top = min(int(x0 * scale), canvas_hw[1] - 1), min(int(y0 * scale), canvas_hw[0] - 1)
    crop = crop[: max(1, math.ceil(canvas_hw[0] / scale) - y0), : max(1, math.ceil(canvas_hw[1] / scale) - x0)]
    width = max(1, min(round((x0 + crop.shape[1]) * scale), canvas_hw[1]) - left)
    height = max(1, min(round((y0 + crop.shape[0]) * scale), canvas_hw[0]) - top)
    how = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    shrunk = cv2.resize(crop * np.uint8(255), (width, height), interpolation=how)
    inside: NDArray[np.bool_] = shrunk >= 128
    if not inside.any():  # in float: a pixel of a thousand is 0 of 255
        inside = cv2.resize(crop.astype(np.float32), (width, height), interpolation=how) > 0
    return inside, left, top
