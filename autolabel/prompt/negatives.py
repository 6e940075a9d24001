"""The box, and clicks that say "not this one" on its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autolabel.core.protocols import About
from autolabel.core.types import Detections, Float32, Frame, Int64, Prompts
from autolabel.ops.boxes import area_xyxy, box_problem, meet_xyxy
from autolabel.ops.points import centres_xy, padded
from autolabel.ops.settings import count, fraction
from autolabel.prompt.box import box_prompts, pad_xyxy
from autolabel.prompt.box_point import inside_xy


class NegativesPrompter:
    """Neighbours are the other objects of the picture, those with masks of their own too, whose point (the
    most-inside one of a mask, else the middle of the box) lies in the box widened by `reach` times its size; the
    `max_points` nearest to its middle. An object that shares more than `max_overlap` of the smaller of both boxes is
    no neighbour: it may be a part, or the same thing found twice. Boxes are widened by `pad`.
    """

    identity: Mapping[str, str] = {}
    about: About = "boxes"

    def __init__(self, *, reach: float, max_points: int, max_overlap: float, pad: float) -> None:
        self._reach = fraction("reach", reach)
        self._max_points = count("max_points", max_points, 1, 64)
        self._max_overlap = fraction("max_overlap", max_overlap)
        self._pad = fraction("pad", pad)

    def prompt(
        self, frames: Sequence[Frame], detections: Sequence[Detections], asked: Sequence[Sequence[int]]
    ) -> list[Prompts]:
        return [self._one(*one) for one in zip(frames, detections, asked, strict=True)]

    def _one(self, frame: Frame, found: Detections, rows: Sequence[int]) -> Prompts:
        prompts = box_prompts(frame, found, rows, self._pad)
        clicks = self._clicks(found, rows, frame.info.size_hw)
        points, signs = padded(clicks, [np.zeros(len(xy), np.int64) for xy in clicks])
        return replace(prompts, points_xy=points, point_signs=signs) if signs.shape[1] else prompts

    def _clicks(self, found: Detections, rows: Sequence[int], size_hw: tuple[int, int]) -> list[Float32]:
        boxes = found.boxes_xyxy
        sound = np.array([box_problem(box, size_hw) is None for box in boxes], bool)
        shared = overlap_of_smaller(boxes[sound])
        others, points, middles = np.flatnonzero(sound), inside_xy(found)[sound], centres_xy(boxes)
        widened = pad_xyxy(boxes, self._reach, size_hw)
        place: Int64 = np.cumsum(sound) - 1
        clicks = []
        for row in rows:
            near = (points >= widened[row, :2]).all(axis=1) & (points < widened[row, 2:]).all(axis=1)
            near &= (shared[place[row]] <= self._max_overlap) & (others != row)
            found_xy = points[near]
            order = np.argsort(np.square(found_xy - middles[row]).sum(axis=1), kind="stable")
            clicks.append(found_xy[order[: self._max_points]])
        return clicks


def overlap_of_smaller(boxes_xyxy: Float32) -> Float32:
    """The common part of every pair of boxes as a fraction of the smaller one (N, N)."""
    areas = area_xyxy(boxes_xyxy)
    smaller = np.minimum(areas[:, None], areas[None])
    common = meet_xyxy(boxes_xyxy, boxes_xyxy)
    return np.divide(common, smaller, out=np.zeros_like(common), where=smaller > 0)
