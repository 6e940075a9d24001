"""Connected parts and holes of a mask: what is small is filled or dropped. Works on the object's crop.

Parts are 8-connected and holes 4-connected, as in polygons.py: two pixels that touch at a corner are one
part, and background that touches at a corner is two holes. Background that reaches the tight box is outside.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import Int64, Rle, UInt8
from autolabel.ops.masks import decode_crop, encode_crop


def fill_holes(rle: Rle, max_px: int) -> Rle:
    """Holes of at most `max_px` pixels become inside. The same object when there is none."""
    crop, x0, y0 = decode_crop(rle)
    if not crop.size:
        return rle
    labels, areas = _holes(crop)
    small = np.concatenate([[False], areas <= max_px])
    return encode_crop(crop | small[labels], x0, y0, rle.size_hw) if small.any() else rle


def drop_islands(rle: Rle, max_px: int) -> Rle:
    """Parts of at most `max_px` pixels become outside; the largest part stays, whatever its size."""
    return _keep_parts(rle, lambda areas: areas > max_px)


def keep_largest(rle: Rle) -> Rle:
    """Only the largest part (the first in reading order among equals)."""
    return _keep_parts(rle, lambda areas: np.zeros(len(areas), bool))


def split_parts(rle: Rle) -> list[Rle]:
    """One mask a part, largest first (reading order among equals); the same object when it is a single part."""
    crop, x0, y0 = decode_crop(rle)
    if not crop.size:
        return []
    labels, areas = _label(crop, 8)
    if len(areas) == 1:
        return [rle]
    order = np.argsort(-areas, kind="stable").tolist()
    return [encode_crop((labels == i + 1).astype(np.uint8), x0, y0, rle.size_hw) for i in order]


def _keep_parts(rle: Rle, wanted: Callable[[Int64], NDArray[np.bool_]]) -> Rle:
    crop, x0, y0 = decode_crop(rle)
    if not crop.size:
        return rle
    labels, areas = _label(crop, 8)
    keep = wanted(areas)
    keep[int(np.argmax(areas))] = True
    if keep.all():
        return rle
    return encode_crop(np.concatenate([[False], keep])[labels].astype(np.uint8), x0, y0, rle.size_hw)


def _label(mask: UInt8, connectivity: int) -> tuple[NDArray[np.int32], Int64]:
    """Label image (0 is outside) and the pixels of labels 1, 2, ..."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity, ltype=cv2.CV_32S)
    return labels, stats[1:, cv2.CC_STAT_AREA].astype(np.int64)


def _holes(crop: UInt8) -> tuple[NDArray[np.int32], Int64]:
    """Label image of the holes alone, and their pixels."""
    labels, areas = _label(np.pad(1 - crop, 1, constant_values=1), 4)
    # The frame of the padding belongs to the outside, so its label is the outside's.
    outside = int(labels[0, 0])
    rank = np.arange(len(areas) + 1) - (np.arange(len(areas) + 1) > outside)
    rank[outside] = 0
    return rank[labels[1:-1, 1:-1]].astype(np.int32), np.delete(areas, outside - 1)
