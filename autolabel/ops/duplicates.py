"""Which of several boxes or masks of one thing stay. Greedy, best first; ties keep the order given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autolabel.core.types import Float32, Int64, Rle
from autolabel.ops.boxes import iou_xyxy
from autolabel.ops.masks import ious


def box_nms(boxes_xyxy: Float32, scores: Float32, max_iou: float) -> Int64:
    """Rows that stay, best score first: a row goes when its box has an IoU above `max_iou` with one that stays.

    As `torchvision.ops.nms` on a CPU, in its arithmetic.
    """
    rest = np.argsort(-scores, kind="stable")
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        # As torch does: the limit is not rounded to float32, so that an IoU of 0.3 is above a limit of 0.3.
        rest = rest[iou_xyxy(boxes_xyxy[best][None], boxes_xyxy[rest])[0].astype(np.float64) <= max_iou]
    return np.array(kept, np.int64)


def mask_nms(masks: Sequence[Rle], boxes_xyxy: Float32, scores: Float32, max_iou: float) -> Int64:
    """The same with the IoU of masks; `boxes_xyxy` hold them, and only masks whose boxes meet are compared."""
    rest = np.argsort(-scores, kind="stable")
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        near = iou_xyxy(boxes_xyxy[best][None], boxes_xyxy[rest])[0] > 0
        double = np.zeros(len(rest), bool)
        if near.any():
            double[near] = ious([masks[best]], [masks[i] for i in rest[near]])[0] > max_iou
        rest = rest[~double]
    return np.array(kept, np.int64)
