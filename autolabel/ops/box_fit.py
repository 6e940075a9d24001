"""How well a mask fills the box that asked for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autolabel.core.types import Float32, Instance, Rle
from autolabel.ops.boxes import box_problem, clip_xyxy, paired_iou_xyxy
from autolabel.ops.masks import bounds_xyxy

TOLERANCE_PX = 1.0
"""A mask cannot follow a box closer than this: small objects would all be misfits."""


def tight_iou(mask: Rle, box_xyxy: Sequence[float]) -> float:
    """IoU of the mask's tight box with the prompt box inside the picture; 0 for an empty mask. A label's box may
    overhang the picture; no mask can fill what is outside."""
    bounds = bounds_xyxy(mask)
    return (
        0.0 if bounds is None else float(paired_iou_xyxy(_row(bounds), clip_xyxy(_row(box_xyxy), mask.size_hw))[0])
    )


def box_fit(instance: Instance, size_hw: tuple[int, int]) -> float:
    """`tight_iou`, but 1 when no side is off by more than TOLERANCE_PX; 0 for a mask that is empty or not there, and
    for a box that is none."""
    bounds = None if instance.mask is None else bounds_xyxy(instance.mask)
    if instance.mask is None or bounds is None or box_problem(instance.box_xyxy, size_hw) is not None:
        return 0.0
    off_px = np.abs(clip_xyxy(_row(instance.box_xyxy), size_hw) - _row(bounds)).max()
    return 1.0 if off_px <= TOLERANCE_PX else tight_iou(instance.mask, instance.box_xyxy)


def _row(box_xyxy: Sequence[float]) -> Float32:
    return np.array([box_xyxy], np.float32)
