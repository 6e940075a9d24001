"""The box and one click inside the object. Refuses to guess where an object is that has no mask yet: there it is the
middle of the box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autolabel.core.protocols import About
from autolabel.core.types import Detections, Float32, Frame, Prompts
from autolabel.ops.points import centres_xy, most_inside_xy
from autolabel.ops.settings import fraction, one_of
from autolabel.prompt.box import box_prompts


class BoxPointPrompter:
    """`point` is `inside` (the most-inside point of the mask that an object already has, else the middle of its
    box) or `centre` (always the middle). Boxes are widened by `pad` as `prompt=box` does."""

    identity: Mapping[str, str] = {}
    about: About = "boxes"

    def __init__(self, *, point: str, pad: float) -> None:
        self._from_mask = one_of("point", point, ("inside", "centre")) == "inside"
        self._pad = fraction("pad", pad)

    def prompt(
        self, frames: Sequence[Frame], detections: Sequence[Detections], asked: Sequence[Sequence[int]]
    ) -> list[Prompts]:
        return [self._one(*one) for one in zip(frames, detections, asked, strict=True)]

    def _one(self, frame: Frame, found: Detections, rows: Sequence[int]) -> Prompts:
        points = inside_xy(found) if self._from_mask else centres_xy(found.boxes_xyxy)
        return replace(
            box_prompts(frame, found, rows, self._pad),
            points_xy=points[list(rows)][:, None],
            point_signs=np.ones((len(rows), 1), np.int64),
        )


def inside_xy(found: Detections) -> Float32:
    """A point (N, 2) in each object: the most-inside one of its mask, kept or to be replaced, else the middle of its
    box."""
    points = centres_xy(found.boxes_xyxy)
    for i, (kept, replaced) in enumerate(zip(found.masks, found.replaced, strict=True)):
        mask = kept or replaced
        inside = None if mask is None else most_inside_xy(mask)
        if inside is not None:
            points[i] = inside
    return points
