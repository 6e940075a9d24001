"""Components of somebody's own: what they may give back, and what is said, with their name, of what they may not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autolabel.core.errors import ComponentError
from autolabel.core.types import NO_OBJECT, Prompts
from autolabel.engine.inline import InlineEngine
from autolabel.prompt.box import BoxPrompter
from autolabel.segment.box import box_rle
from tests.fakes import ColourDetector, draw, labeler
from tests.unit.test_engine import run

SIZE = (40, 60)
BLOCKS = {0: (5, 5, 25, 25), 1: (20, 20, 40, 30), 2: (30, 2, 50, 20)}
OWN = box_rle(np.array([6, 6, 9, 9], np.float32), SIZE)


def labelled(folder, **parts):
    """The record of a picture with three blocks, labelled by a pipeline with these parts."""
    draw(folder / "a.png", BLOCKS, SIZE)
    ours = labeler(refiners=parts.pop("refiners", ()))
    for name, part in parts.items():
        setattr(ours, name, part)
    (record,) = run(InlineEngine(), folder, ours)
    return record


# prompters


class Asks(BoxPrompter):
    """About every box, whether it was asked for or not, with these columns."""

    def __init__(self, **columns):
        self.columns = columns

    def prompt(self, frames, detections, asked):
        return [Prompts(boxes_xyxy=found.boxes_xyxy, **self.columns) for found in detections]


class HasMask(ColourDetector):
    """The first object comes with a mask of the source."""

    def _one(self, frame):
        return replace(super()._one(frame), masks=(OWN, None, None))


@pytest.mark.parametrize("prompter", [Asks(), Asks(refused={0: "no_prompt: there is none"})])
def test_a_mask_of_the_source_stays_whatever_a_prompter_asks(tmp_path, prompter):
    record = labelled(tmp_path, detector=HasMask(), prompter=prompter)
    assert [(i.index, i.origin) for i in record.instances] == [(0, "label"), (1, "model"), (2, "model")]
    assert record.instances[0].mask == OWN


@pytest.mark.parametrize(
    "columns",
    [{"objects": np.array([0, 1, 3])}, {"objects": np.array([0, 1, NO_OBJECT - 1])}, {"refused": {7: "no_prompt: why"}}],
)  # fmt: skip
def test_a_prompt_for_no_object_names_the_prompter(tmp_path, columns):
    with pytest.raises(
        ComponentError, match=r"prompt \(tests.*Asks\): 'a.png': there is no object (3|-2|7) to ask"
    ):
        labelled(tmp_path, prompter=Asks(**columns))
