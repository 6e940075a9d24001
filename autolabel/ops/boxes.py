"""Boxes as arrays: pure functions on `xyxy` float32 pixels, half-open, unless a name says otherwise.

Nothing here mends a bad box in silence: `box_problem` says what is wrong, the caller decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import Float32


def clip_xyxy(boxes_xyxy: Float32, size_hw: tuple[int, int]) -> Float32:
    """Move corners inside the image; boxes outside become empty, not negative."""
    h, w = size_hw
    return np.clip(boxes_xyxy, np.float32(0), np.array([w, h, w, h], np.float32))


def xywh_to_xyxy(boxes_xywh: NDArray[np.floating]) -> Float32:
    """Corner and size (N, 4), as COCO writes them, to two corners. Summed in float64."""
    boxes = np.asarray(boxes_xywh, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)


def cxcywh_to_xyxy(boxes_cxcywh: NDArray[np.floating]) -> Float32:
    """Centre and size (N, 4), as YOLO writes them, to two corners; the unit stays what it was."""
    boxes = np.asarray(boxes_cxcywh, np.float64).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1).astype(np.float32)


def scale_normalized(boxes_xyxy: NDArray[np.floating], size_hw: tuple[int, int]) -> Float32:
    """Corners in fractions of the image (N, 4) to pixels."""
    h, w = size_hw
    return (np.asarray(boxes_xyxy, np.float64).reshape(-1, 4) * (w, h, w, h)).astype(np.float32)


def box_problem(box_xyxy: Sequence[float] | NDArray[np.floating], size_hw: tuple[int, int]) -> str | None:
    """Why a box cannot be a prompt, as a drop reason, or None. Overhanging boxes are fine: clip them.

    SAM 2 answers such boxes with plausible masks and scores and no error, so they must stop before it.
    """
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    where = f"[{x0:.6g}, {y0:.6g}, {x1:.6g}, {y1:.6g}]"
    h, w = size_hw
    if not all(math.isfinite(v) for v in (x0, y0, x1, y1)):
        return f"bad_box: not finite {where}"
    if x1 < x0 or y1 < y0:
        return f"bad_box: corners reversed {where}"
    if x1 == x0 or y1 == y0:
        return f"bad_box: zero area {where}"
    if x1 <= 0 or y1 <= 0 or x0 >= w or y0 >= h:
        return f"bad_box: outside the {w}x{h} image {where}"
    return None


def are_sound(boxes_xyxy: Float32, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether `box_problem` finds nothing, for each box (N, 4)."""
    h, w = size_hw
    x0, y0, x1, y1 = boxes_xyxy.T
    sound = np.isfinite(boxes_xyxy).all(axis=1)
    return sound & (x1 > x0) & (y1 > y0) & (x1 > 0) & (y1 > 0) & (x0 < w) & (y0 < h)


def area_xyxy(boxes_xyxy: Float32) -> Float32:
    """Areas (N,) in square pixels; 0 for reversed boxes."""
    size = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    return size[:, 0] * size[:, 1]


def meet_xyxy(a_xyxy: Float32, b_xyxy: Float32) -> Float32:
    """Areas of the common part of every pair (N, M), in square pixels."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    size = np.maximum(high - low, 0)
    return size[..., 0] * size[..., 1]


def iou_xyxy(a_xyxy: Float32, b_xyxy: Float32) -> Float32:
    """Intersection over union of every pair, (N, M); 0 where both are empty."""
    inter = meet_xyxy(a_xyxy, b_xyxy)
    union = area_xyxy(a_xyxy)[:, None] + area_xyxy(b_xyxy)[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def paired_iou_xyxy(a_xyxy: Float32, b_xyxy: Float32) -> Float32:
    """`iou_xyxy` of each row with the same row alone, (N,)."""
    size = np.maximum(np.minimum(a_xyxy, b_xyxy)[:, 2:] - np.maximum(a_xyxy, b_xyxy)[:, :2], 0)
    inter = size[:, 0] * size[:, 1]
    union = area_xyxy(a_xyxy) + area_xyxy(b_xyxy) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
