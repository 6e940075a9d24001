"""One model from pictures to masks, then the refiners. Says what is computed; knows no threads and asks no prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autolabel.core.errors import ImageError
from autolabel.core.protocols import InstanceModel
from autolabel.core.types import Frame, ImageRecord, Instance
from autolabel.engine.labeler import FrameLabeler, failed, one_by_one_on_error

NO_MASK = "no_mask: the model gave no mask"


@dataclass(eq=False, kw_only=True)
class OneStepLabeler(FrameLabeler):
    """`model` finds classes, boxes and masks at once; the rest is as in FrameLabeler. What the pictures' own labels
    hold is not looked at."""

    model: InstanceModel

    @property
    def identities(self) -> Mapping[str, Mapping[str, str]]:
        return {"labeler": self.model.identity}

    def label_frames(self, frames: list[Frame]) -> list[ImageRecord]:
        """One record a picture, in order; a picture that spoils its batch fails alone."""
        with self.times.of("find"):
            found = one_by_one_on_error(self.model.find, frames)
        return [
            failed(frame.ref, some.code, some.detail, frame.info)
            if isinstance(some, ImageError)
            else self.record(frame, some, unusable(some, frame))
            for frame, some in zip(frames, found, strict=True)
        ]


def unusable(instances: Sequence[Instance], frame: Frame) -> dict[int, str]:
    """Why objects cannot become labels, by index: a box that is none, or no mask."""
    from autolabel.ops.boxes import box_problem

    reasons = {}
    for one in instances:
        problem = box_problem(one.box_xyxy, frame.info.size_hw) or (NO_MASK if one.mask is None else None)
        if problem is not None:
            reasons[one.index] = problem
    return reasons
