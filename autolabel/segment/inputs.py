"""Prompts as SAM's prompt encoder takes them: points with labels, and low-resolution mask logits. No model.

Prompts of one shape (a box or not, so many points, a mask or not) go through the decoder together; others apart,
so that each is asked exactly as it would be alone.

Letters in shapes: N prompts, P points, h and w the model's mask input, H and W the picture, R the model's image side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from autolabel.core.types import Float32, Int64, Prompts, Rle
from autolabel.ops.masks import decode
from autolabel.ops.points import PADDING, farthest_inside

# sam2/modeling/sam/prompt_encoder.py: the corners of a box are points with these labels.
_CORNER_LABELS = (2, 3)
_SURELY = 0.999
"""A pixel of a given mask is believed this much: logits of +-6.9, as those of a clear answer of the model."""


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Prompts of one shape. `rows` (N,) are their numbers in the image's prompts, `xy` (N, P, 2) and `labels` (N, P)
    the corners of the box first and then the points, in pixels of the picture; None when there are masks alone.
    `boxes_xyxy` (N, 4) is of NaN without boxes."""

    rows: Int64
    boxes_xyxy: Float32
    xy: Float32 | None
    labels: Int64 | None
    masks: tuple[Rle, ...] | None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, index: slice | Int64) -> Inputs:
        return Inputs(
            self.rows[index],
            self.boxes_xyxy[index],
            None if self.xy is None else self.xy[index],
            None if self.labels is None else self.labels[index],
            None if self.masks is None else tuple(np.array(self.masks, object)[index]),
        )

    def boxes_for_prior(self) -> Float32:
        """The boxes (N, 4), NaN where something that is asked with beside the box knows better: an earlier mask, a
        negative click, or a positive one out of the box."""
        if self.masks is not None or self.xy is None or self.labels is None:
            return np.full_like(self.boxes_xyxy, np.nan)
        low, high = self.boxes_xyxy[:, None, :2], self.boxes_xyxy[:, None, 2:]
        out_of_box = ((self.xy < low) | (self.xy > high)).any(axis=2)
        better = ((self.labels == 0) | ((self.labels == 1) & out_of_box)).any(axis=1)
        return np.where(better[:, None], np.float32(np.nan), self.boxes_xyxy)

    def logits(self, side_hw: tuple[int, int]) -> Float32 | None:
        """The masks as (N, h, w) mask input; None without masks."""
        return None if self.masks is None else np.stack([to_logits(mask, side_hw) for mask in self.masks])

    def without_points(self) -> Inputs:
        return replace(self, xy=None, labels=None)

    def with_point(self, points_xy: Float32) -> Inputs:
        """One more point (N, 2) inside each object."""
        one = np.ones((len(self), 1), np.int64)
        if self.xy is None or self.labels is None:
            return replace(self, xy=points_xy[:, None], labels=one)
        return replace(
            self,
            xy=np.concatenate([self.xy, points_xy[:, None]], axis=1),
            labels=np.concatenate([self.labels, one], axis=1),
        )


def by_shape(prompts: Prompts) -> list[Inputs]:
    """The prompts in groups of one shape; those that hold nothing are left out."""
    n = len(prompts)
    boxes = np.full((n, 4), np.nan, np.float32) if prompts.boxes_xyxy is None else prompts.boxes_xyxy
    signs = np.full((n, 0), PADDING, np.int64) if prompts.point_signs is None else prompts.point_signs
    points = np.zeros((n, 0, 2), np.float32) if prompts.points_xy is None else prompts.points_xy
    masks = (None,) * n if prompts.masks is None else prompts.masks
    boxed = [not np.isnan(box).all() for box in boxes]
    counts = (signs != PADDING).sum(axis=1)
    groups: dict[tuple[bool, int, bool], list[int]] = defaultdict(list)
    for row in range(n):
        if boxed[row] or counts[row] or masks[row] is not None:
            groups[boxed[row], int(counts[row]), masks[row] is not None].append(row)
    return [
        _group(rows, boxes, points, signs, masks, has_box=has_box, count=count, has_mask=has_mask)
        for (has_box, count, has_mask), rows in groups.items()
    ]


def _group(
    rows: Sequence[int],
    boxes: Float32,
    points: Float32,
    signs: Int64,
    masks: Sequence[Rle | None],
    *,
    has_box: bool,
    count: int,
    has_mask: bool,
) -> Inputs:
    n = len(rows)
    xy, labels = [], []
    if has_box:
        xy.append(boxes[rows].reshape(n, 2, 2))
        labels.append(np.tile(np.array(_CORNER_LABELS, np.int64), (n, 1)))
    if count:
        real = signs[rows] != PADDING
        xy.append(points[rows][real].reshape(n, count, 2))
        labels.append(signs[rows][real].reshape(n, count))
    return Inputs(
        np.array(rows, np.int64),
        boxes[rows],
        np.concatenate(xy, axis=1).astype(np.float32) if xy else None,
        np.concatenate(labels, axis=1).astype(np.int64) if xy else None,
        tuple(mask for row in rows if (mask := masks[row]) is not None) if has_mask else None,
    )


def to_model_xy(xy: Float32, size_hw: tuple[int, int], side: int) -> Float32:
    """Points (N, P, 2) of the picture in pixels of the model's square."""
    h, w = size_hw
    # In this order and in float32, as in sam2: the quotient is rounded before the product.
    return (xy / np.array([w, h], np.float32) * np.float32(side)).astype(np.float32)


def to_logits(mask: Rle, side_hw: tuple[int, int]) -> Float32:
    """A mask of the picture as mask input (h, w): the logit of the covered part of each cell, at most +-6.9."""
    h, w = side_hw
    covered = cv2.resize(decode(mask).astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    belief = np.clip(covered, 1 - _SURELY, _SURELY)
    return np.log(belief / (1 - belief)).astype(np.float32)


def inner_points(logits: Float32, size_hw: tuple[int, int]) -> Float32:
    """For each map (N, h, w) its most-inside point (N, 2) in pixels of the picture; where nothing is inside,
    the place of the highest logit."""
    n, h, w = logits.shape
    cells = np.zeros((n, 2), np.float32)
    for i, one in enumerate(logits):
        if (one > 0).any():
            cells[i] = farthest_inside(one > 0)
        else:
            row, column = divmod(int(one.argmax()), w)
            cells[i] = column, row
    height, width = size_hw
    return ((cells + 0.5) * np.array([width / w, height / h])).astype(np.float32)
