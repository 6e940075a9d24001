"""Boxes of a detector that is asked in words: of which class each is, and which stay. No model."""

from __future__ import annotations

# ruff: noqa: N803  (shape suffixes)
import numpy as np

from autolabel.core.types import MAX_DET, Detections, Float32
from autolabel.ops.boxes import area_xyxy, clip_xyxy
from autolabel.ops.duplicates import box_nms


def best_detections(
    boxes_xyxy: Float32,
    class_scores_NC: Float32,
    size_hw: tuple[int, int],
    *,
    conf: float,
    iou: float,
    max_det: int,
) -> Detections:
    """Boxes with their likeliest class where that is above `conf`, best first. Of boxes of one class with an IoU above
    `iou` one stays; those of which nothing is in the picture, but in its padding, are none."""
    scores, numbers = class_scores_NC.max(axis=1, initial=0), class_scores_NC.argmax(axis=1)
    boxes = clip_xyxy(boxes_xyxy, size_hw)
    # A box that is not finite is one: what it is of would go without a word.
    rows = np.flatnonzero((scores > conf) & ~(area_xyxy(boxes) <= 0))
    for number in np.unique(numbers[rows]):
        mine = rows[numbers[rows] == number]
        kept = mine[box_nms(boxes[mine], scores[mine], iou)]
        rows = rows[(numbers[rows] != number) | np.isin(rows, kept)]
    rows = rows[np.argsort(-scores[rows], kind="stable")][:max_det]
    return Detections(
        boxes[rows],
        scores[rows].astype(np.float32),
        numbers[rows].astype(np.int64) + 1,
        notes=(MAX_DET,) if len(rows) == max_det else (),
    )
