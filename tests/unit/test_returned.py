"""Components of somebody's own: what they may give back, and what is said, with their name, of what they may not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autolabel import AutoLabeler
from autolabel.core.errors import ComponentError
from autolabel.core.types import NO_OBJECT, Category, Dropped, Prompts
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


# classes


class Named(ColourDetector):
    """Of classes that the test gives."""

    def __init__(self):
        super().__init__()


class NamedModel(Named):
    def find(self, frames):
        return []


@pytest.mark.parametrize(("key", "kind"), [("detect", Named), ("labeler", NamedModel)])
@pytest.mark.parametrize(
    ("categories", "said"),
    [
        ([Category(1, "cat"), Category(1, "dog")], "the classes 'cat' and 'dog' have the same id 1"),
        ([Category(-1, "cat")], "whole ids from 0 on, got Category"),
        ([Category("1", "cat")], "whole ids from 0 on, got Category"),
        ([Category(True, "cat")], "whole ids from 0 on, got Category"),
        (["cat"], "whole ids from 0 on, got 'cat'"),
        ([Category(1, " ")], "class 1 needs a name"),
        ([Category(1, 7)], "class 1 needs a name, got 7"),
        ([], "categories is empty"),
        (7, "must give a list"),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_told_apart_are_refused_before_labelling(
    key, kind, categories, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(kind, "categories", categories)
    (tmp_path / key).mkdir()
    (tmp_path / key / "mine.yaml").write_text(f"_target_: {kind.__module__}.{kind.__name__}\n")
    with pytest.raises(ComponentError, match=rf"^{key} \(tests.*{kind.__name__}\): .*{said}"):
        AutoLabeler.from_config([f"{key}=mine"], config_dir=str(tmp_path))


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


# refiners


class Judge:
    """What `judge` makes of the instances: those kept, and those dropped."""

    def __init__(self, judge):
        self.judge = judge

    def refine(self, instances, image):
        return self.judge(list(instances))


def first(**changed):
    """The first instance with other fields; nothing dropped."""
    return lambda some: ([replace(some[0], **changed), *some[1:]], [])


def renumbered(some):
    return [replace(one, index=i) for i, one in enumerate(sorted(some, key=lambda one: one.box_xyxy[1]))], []


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (first(category_id=2), "instance 0 has another category_id, 2 in place of 1"),
        (first(detector_score=0.1), "another detector_score"),
        (first(box_xyxy=(0.0, 0.0, 1.0, 1.0)), "another box_xyxy"),
        (first(extra="{}"), "another extra"),
        (first(origin="label"), "another origin"),
        (first(polygons=((1.0, 1.0, 2.0, 2.0, 3.0, 1.0),)), "other polygons"),
        (first(mask=None), "a mask must be an Rle"),
        (first(mask=np.ones(SIZE, np.uint8)), "a mask must be an Rle"),
        (first(mask=box_rle(np.array([0, 0, 4, 4]), SIZE[::-1])), r"has the size \(60, 40\), which must be \(40, 60\)"),
        (first(quality="good"), "quality must be a number or None"),
        (first(index=7), "instance 7 is none that it was given"),
        (renumbered, "instance 0 has another category_id"),
        (lambda some: (some[1:], []), "instance 0 is neither kept nor dropped"),
        (lambda some: ([*some, some[0]], []), "or comes back twice"),
        (lambda some: (some, [Dropped(some[0], "odd: number")]), "or comes back twice"),
        (lambda some: (some[1:], [Dropped(some[0], None)]), "needs a reason"),
        (lambda some: (some[1:], [Dropped(some[0], " ")]), "needs a reason"),
        (lambda some: (some[1:], [some[0]]), "must be Dropped, got a Instance"),
        (lambda some: ([one.mask for one in some], []), "must give Instances, got a Rle"),
        (lambda some: some, "must give two lists"),
        (lambda some: None, "must give two lists"),
        (lambda some: (None, []), "must give a list, got a NoneType"),
    ],
)  # fmt: skip
def test_what_a_refiner_may_not_do_names_it(tmp_path, judge, said):
    with pytest.raises(ComponentError, match=rf"^refine \(tests.*Judge\): .*{said}"):
        labelled(tmp_path, refiners=[Judge(judge)])


def test_a_refiner_may_change_masks_and_quality_and_the_order_and_drop(tmp_path):
    def judge(some):
        changed = replace(some[2].with_mask(OWN), quality=np.float32(0.5))
        return (changed, some[0]), (Dropped(replace(some[1], quality=np.float32(0.25)), "odd: number"),)

    record = labelled(tmp_path, refiners=[Judge(judge)])
    assert [(i.index, i.category_id, i.quality) for i in record.instances] == [(0, 1, None), (2, 3, 0.5)]
    assert record.instances[1].mask == OWN
    assert [type(v.quality) for v in record.verdicts] == [type(None), float, float]
    assert [v.reason for v in record.verdicts] == [None, "odd: number", None]
