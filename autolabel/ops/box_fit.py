"""How well a mask fills the box that asked for it."""

from __future__ import annotations

from autolabel.core.types import Instance
from autolabel.ops.boxes import box_problem
from autolabel.ops.masks import bounds_xyxy

TOLERANCE_PX = 1.0
"""A mask cannot follow a box closer than this: small objects would all be misfits."""


def box_fit(instance: Instance, size_hw: tuple[int, int]) -> float:
    """IoU of the mask's tight box with the prompt box, clipped to the picture; 1 when no side is off by more than
    TOLERANCE_PX, 0 for a mask that is empty or not there, and for a box that is none."""
    bounds = None if instance.mask is None else bounds_xyxy(instance.mask)
    if bounds is None or box_problem(instance.box_xyxy, size_hw) is not None:
        return 0.0
    height, width = size_hw
    x0, y0, x1, y1 = instance.box_xyxy
    box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if max(abs(a - b) for a, b in zip(box, bounds, strict=True)) <= TOLERANCE_PX:
        return 1.0
    shared_w = min(box[2], bounds[2]) - max(box[0], bounds[0])
    shared_h = min(box[3], bounds[3]) - max(box[1], bounds[1])
    shared = max(shared_w, 0.0) * max(shared_h, 0.0)
    union = (box[2] - box[0]) * (box[3] - box[1]) + (bounds[2] - bounds[0]) * (bounds[3] - bounds[1]) - shared
    return shared / union if union > 0 else 0.0
