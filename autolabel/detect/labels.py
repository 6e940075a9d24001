"""Boxes that already exist, as a Detector: the annotations of the source, turned upright. Imports no model.

Nothing is mended: a reversed or empty box comes out as it is, so that the labeler drops it with its reason.
Only an object that has a mask and no box gets the box of its mask. A crowd region is not an object that a box could
ask for: its mask stays, whatever the settings, and a crowd of a box alone comes out without a mask. How existing
masks are rasterised and turned: ops/annotations.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from autolabel.core.types import FRAME_ASSUMED, Category, Detections, Float32, Frame, Rle
from autolabel.ops import masks
from autolabel.ops.annotations import Canvas, is_point
from autolabel.ops.boxes import box_problem
from autolabel.ops.settings import flag

Value = TypeVar("Value")


class LabelsDetector:
    """Scores are 1.0. `keep_masks` hands existing masks on, to be kept as they are; without it every mask is made
    anew and the existing one goes along as `replaced`. Frames without labels have no detections; where the source does
    not say that nothing is in them, they are `unlabelled`."""

    categories: tuple[Category, ...] | None = None
    identity: Mapping[str, str] = {}

    def __init__(self, *, keep_masks: bool) -> None:
        self.keep_masks = flag("keep_masks", keep_masks)

    @property
    def hands_on(self) -> frozenset[str]:
        """The annotations' ids and keypoints, and masks that are to be made anew."""
        return frozenset({"ids", "keypoints"} if self.keep_masks else {"ids", "keypoints", "masks"})

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Raises ImageError `size_mismatch` when a label file declares another picture size, and `bad_label`
        when a mask does not fit the picture."""
        return [self._one(frame) for frame in frames]

    def _one(self, frame: Frame) -> Detections:
        labels = frame.ref.labels
        if labels is None or not len(labels):
            return replace(Detections.none(), unlabelled=labels is None)
        canvas = Canvas(labels, frame.info)
        found = [None if shape is None else canvas.mask(shape) for shape in labels.shapes]
        kept = [self.keep_masks or crowd for crowd in labels.crowd]
        polygons = [canvas.polygons(shape) for shape in labels.shapes]
        return Detections(
            self._boxes(canvas.boxes(labels.boxes_xyxy), found, kept, frame.info.size_hw),
            np.ones(len(labels), np.float32),
            labels.category_ids,
            _where(kept, found),
            _where(kept, polygons),
            labels.source_ids,
            labels.crowd,
            tuple(canvas.extra(extra) for extra in labels.extras),
            _where([not keep for keep in kept], found),
            notes=(FRAME_ASSUMED,) if canvas.assumed else (),
        )

    @staticmethod
    def _boxes(
        boxes_xyxy: Float32, found: Sequence[Rle | None], kept: Sequence[bool], size_hw: tuple[int, int]
    ) -> Float32:
        """The tight box of the mask where there is no box, and where a mask to be made anew has a box that nobody
        could answer: a bad box is no reason to lose an object that has a mask."""
        boxes = boxes_xyxy.copy()
        for row, mask in enumerate(found):
            unusable = is_point(boxes[row]) or (not kept[row] and box_problem(boxes[row], size_hw) is not None)
            if mask is not None and unusable:
                boxes[row] = masks.bounds_xyxy(mask) or boxes[row]
        return boxes


def _where(wanted: Sequence[bool], values: Sequence[Value | None]) -> tuple[Value | None, ...]:
    return tuple(value if want else None for want, value in zip(wanted, values, strict=True))
