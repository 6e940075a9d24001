"""One model from pictures to masks, then the refiners. Says what is computed; knows no threads and asks no prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from autolabel.core.errors import ImageError
from autolabel.core.protocols import InstanceModel
from autolabel.core.types import Frame, ImageInfo, ImageRecord, ImageRef, Instance, Instances
from autolabel.engine.labeler import FinishOne, FrameLabeler, failed, one_by_one_on_error

NO_MASK = "no_mask: the model gave no mask"


@dataclass(eq=False, kw_only=True)
class OneStepLabeler(FrameLabeler):
    """`model` finds classes, boxes and masks at once; the rest is as in FrameLabeler. What the pictures' own labels
    hold is not looked at."""

    model: InstanceModel

    @property
    def identities(self) -> Mapping[str, Mapping[str, str]]:
        return {"labeler": self.model.identity}

    def find_in(self, frames: list[Frame]) -> list[FinishOne]:
        """A picture that spoils its batch fails alone."""
        from autolabel.ops.returned import instances_of

        with self.times.of("find"):
            found = one_by_one_on_error(lambda some: instances_of(self.model, some, self.categories), frames)
        return [
            partial(failed, frame.ref, some.code, some.detail, frame.info)
            if isinstance(some, ImageError)
            else partial(self._record, frame.ref, frame.info, some)
            for frame, some in zip(frames, found, strict=True)
        ]

    def _record(self, ref: ImageRef, info: ImageInfo, some: Instances) -> ImageRecord:
        return self.record(ref, info, some.found, unusable(some.found, info.size_hw), some.notes)


def unusable(instances: Sequence[Instance], size_hw: tuple[int, int]) -> dict[int, str]:
    """Why objects cannot become labels, by index: a box that is none, or no mask."""
    from autolabel.ops.boxes import box_problem

    reasons = {}
    for one in instances:
        problem = box_problem(one.box_xyxy, size_hw) or (NO_MASK if one.mask is None else None)
        if problem is not None:
            reasons[one.index] = problem
    return reasons
