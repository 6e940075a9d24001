"""Components of somebody's own: what they may give back, and what is said, with their name, of what they may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autolabel import AutoLabeler
from autolabel.app.build import as_component
from autolabel.core.errors import ComponentError, ConfigError, Malformed
from autolabel.core.types import NO_OBJECT, Category, Detections, Dropped, ImageRef, Instance, Instances, Prompts
from autolabel.detect.label_map import LabelMap, MappedDetector, MappedModel
from autolabel.detect.tiles import TiledDetector
from autolabel.engine.inline import InlineEngine
from autolabel.ops.returned import blaming
from autolabel.prompt.box import BoxPrompter
from autolabel.segment.box import BoxSegmenter, box_rle
from tests.fakes import CATEGORIES, ColourDetector, draw, labeler
from tests.unit.test_engine import run
from tests.unit.test_one_step import RENAMED
from tests.unit.test_one_step import labeler as one_step

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


# detectors and models of one step


class Finds(ColourDetector):
    """With other columns, or something else altogether."""

    def __init__(self, **columns):
        super().__init__()
        self.columns = columns

    def _one(self, frame):
        return replace(super()._one(frame), **self.columns)


class Says(Finds):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def detect(self, frames):
        return self.answer

    find = detect


TRANSPOSED = box_rle(np.array([6, 6, 9, 9], np.float32), SIZE[::-1])
FROM_ZERO = np.array([0, 1, 2])
UNKNOWN = "'a.png': an object is of class 0, but the classes have the ids 1, 2, 3"
WRONG_SIZE = r"'a.png': a mask has the size \(60, 40\), which must be \(40, 60\)"


def mapped(detector):
    return MappedDetector(
        detector, LabelMap(keep=None, drop=["dog"], rename=None, merge=None, ids="kept"), CATEGORIES
    )


def tiled(detector):
    return TiledDetector(inner=detector, size=32, overlap=0.2, whole_picture=False, match_iou=0.5)


@pytest.mark.parametrize(
    ("detector", "said"),
    [
        (Finds(category_ids=FROM_ZERO), rf"detect \(tests.*Finds\): {UNKNOWN}"),
        (mapped(Finds(category_ids=FROM_ZERO)), rf"detect \(tests.*Finds\): {UNKNOWN}"),
        (tiled(Says([Detections(np.ones((1, 4)), np.ones(1), np.zeros(1, int))] * 6)), rf"detect.inner .*Says\): {UNKNOWN}"),
        (Finds(masks=(None, TRANSPOSED, None)), rf"detect \(tests.*Finds\): {WRONG_SIZE}"),
        (Finds(replaced=(None, TRANSPOSED, None)), rf"detect \(tests.*Finds\): {WRONG_SIZE}"),
        (Finds(masks=(None, np.ones(SIZE), None)), "a mask must be an Rle"),
        (Says([]), "asked about 1 picture and gave a list of 0"),
        (Says(None), "must give a list, got a NoneType"),
        (Says([np.ones((3, 4))]), "must give Detections, got a ndarray"),
    ],
)  # fmt: skip
def test_what_a_detector_may_not_give_stops_the_run_at_the_first_picture(tmp_path, detector, said):
    with pytest.raises(ComponentError, match=said):
        labelled(tmp_path, detector=detector, categories=CATEGORIES)


ONE = Instance(0, 1, (1.0, 1.0, 9.0, 9.0), 0.5, OWN)


@pytest.mark.parametrize("map_of", [lambda model: model, lambda model: MappedModel(model, RENAMED)])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([Instances((replace(ONE, category_id=0),))], UNKNOWN),
        ([Instances((replace(ONE, mask=TRANSPOSED),))], WRONG_SIZE),
        ([Instances((ONE, ONE))], "the index of an instance must be its position"),
        ([Instances((ONE, None))], "must give Instances of Instance objects"),
        ([[ONE]], "must give Instances of Instance objects"),
        ([], "gave a list of 0"),
    ],
)  # fmt: skip
def test_what_a_model_of_one_step_may_not_give_names_it(tmp_path, map_of, answer, said):
    draw(tmp_path / "a.png", {}, SIZE)
    ours = one_step(map_of(Says(answer)))
    ours.categories = ours.model.categories
    with pytest.raises(ComponentError, match=rf"^labeler \(tests.*Says\): .*{said}"):
        run(InlineEngine(), tmp_path, ours)


def test_a_mask_of_another_size_names_the_segmenter(tmp_path):
    class Transposes(BoxSegmenter):
        def segment(self, frames, prompts):
            return [[replace(a, mask=TRANSPOSED) for a in some] for some in super().segment(frames, prompts)]

    with pytest.raises(ComponentError, match=rf"^segment \(tests.*Transposes\): {WRONG_SIZE}"):
        labelled(tmp_path, segmenter=Transposes())


def test_the_classes_of_the_run_are_known_where_pictures_are_labelled(tmp_path, monkeypatch):
    monkeypatch.setattr(Named, "_one", lambda self, frame: Finds(category_ids=FROM_ZERO)._one(frame))
    draw(tmp_path / "a.png", BLOCKS, SIZE)
    (tmp_path / "detect").mkdir()
    (tmp_path / "detect" / "mine.yaml").write_text(f"_target_: {__name__}.Named\n")
    labeler = AutoLabeler.from_config(
        ["detect=mine", "segment=box", "decode.isolated=false"], config_dir=str(tmp_path)
    )
    with pytest.raises(ComponentError, match=UNKNOWN):
        list(labeler.label([tmp_path / "a.png"]))


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
        (first(index=7), "instance 7 was not given to it"),
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


# what is harmless


class Torch(ColourDetector):
    """What `boxes.xyxy`, `.conf` and `.cls` of a model's result are."""

    def _one(self, frame):
        import torch

        found = super()._one(frame)
        return Detections(
            torch.from_numpy(found.boxes_xyxy),
            torch.from_numpy(found.scores),
            torch.from_numpy(found.category_ids).float(),
        )


class Lists(ColourDetector):
    def _one(self, frame):
        found = super()._one(frame)
        boxes, scores, ids = (column.tolist() for column in (found.boxes_xyxy, found.scores, found.category_ids))
        return Detections(boxes, scores, ids, crowd=np.zeros(len(ids), bool), source_ids=[np.int64(7), None, None])


class PlainPrompts(BoxPrompter):
    def prompt(self, frames, detections, asked):
        return [
            Prompts(
                boxes_xyxy=found.boxes_xyxy.tolist(), objects=[0.0, 1.0, 2.0], windows_xyxy=[[0, 0, 60, 40]] * 3
            )
            for found in detections
        ]


class NumpyAnswers(BoxSegmenter):
    def segment(self, frames, prompts):
        return [
            [replace(a, prompt=np.int64(a.prompt), predicted_iou=np.float32(1)) for a in some]
            for some in super().segment(frames, prompts)
        ]


def test_what_a_detector_notes_of_a_picture_is_in_its_record_behind_what_reading_it_noted(tmp_path):
    notes = ["dim_light", "max_det"]
    found = labelled(tmp_path, detector=Finds(notes=notes))
    assert found.info.notes == (*labelled(tmp_path).info.notes, "dim_light", "max_det")
    detections = replace(Detections.none(), notes=notes)
    for some in (detections.select([]), Detections.none().plus(detections), detections.plus(detections)):
        assert some.notes == ("dim_light", "max_det")
    for bad in ("max_det", 3):
        with pytest.raises(Malformed, match="notes must be a tuple"):
            replace(detections, notes=bad)


@pytest.mark.parametrize(
    "parts", [{"detector": Torch()}, {"detector": Lists()}, {"prompter": PlainPrompts(pad=0.0)}, {"segmenter": NumpyAnswers()}]
)  # fmt: skip
def test_lists_tensors_and_numpys_numbers_give_the_same_record(tmp_path, parts):
    usual, record = labelled(tmp_path), labelled(tmp_path, **parts)
    source_ids = [7, None, None] if isinstance(parts.get("detector"), Lists) else [None] * 3
    assert [replace(i, source_id=None) for i in record.candidates] == list(usual.candidates)
    assert [i.source_id for i in record.candidates] == source_ids
    fields = [v for i in record.candidates for v in (i.category_id, i.source_id, i.crowd, i.predicted_iou)]
    assert {type(v) for v in fields} <= {int, bool, float, type(None)}


def test_numpys_numbers_of_a_model_of_one_step_are_plain_ones(tmp_path):
    draw(tmp_path / "a.png", {}, SIZE)
    numpys = Instance(0, np.int64(1), np.array([1, 1, 9, 9], np.float32), np.float32(0.5), OWN, np.float32(0.25))
    (record,) = run(InlineEngine(), tmp_path, one_step(Says([Instances([numpys])])))
    (found,) = record.instances
    assert found == replace(ONE, predicted_iou=0.25)
    assert {type(v) for v in (*found.box_xyxy, found.detector_score, found.predicted_iou)} == {float}
    assert type(found.category_id) is int


def test_nothing_found_is_empty_lists():
    assert (len(Detections([], [], [])), len(Prompts(boxes_xyxy=[], windows_xyxy=[]))) == (0, 0)


BOXES = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Detections(BOXES, np.ones(2), [0.5, 1]), "category_ids must hold whole numbers, got \\[0.5, 1.0\\]"),
        (lambda: Detections(BOXES, np.ones(2), [np.nan, 1]), "category_ids must hold whole numbers"),
        (lambda: Detections(BOXES, np.ones(2), ["a", "b"]), "category_ids must be an array of numbers"),
        (lambda: Detections(BOXES, np.ones(2), None), "category_ids must be an array of numbers"),
        (lambda: Detections([[1, 2], [1]], np.ones(2), [1, 1]), "boxes_xyxy must be an array: "),
        (lambda: Detections(BOXES[0], np.ones(4), np.ones(4)), r"boxes_xyxy must have shape \(N, 4\), got \(4,\)"),
        (lambda: Detections(BOXES, np.ones(3), np.ones(2)), "2 boxes, but scores"),
        (lambda: Detections(BOXES, np.ones(2), np.ones(2), source_ids=(1,)), "2 boxes, but 1 source_ids"),
        (lambda: Detections(BOXES, np.ones(2), np.ones(2), masks=None), "masks must be a tuple, got None"),
        (lambda: Prompts(points_xy=np.ones((2, 1, 2)), point_signs=np.ones((2, 3))), r"points \(2, 1, 2\) need one sign each"),
        (lambda: Prompts(boxes_xyxy=BOXES, windows_xyxy=BOXES + 0.5), "windows_xyxy must hold whole numbers"),
        (lambda: Prompts(boxes_xyxy=BOXES[:, :3]), r"boxes_xyxy must have shape \(N, 4\), got \(2, 3\)"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_its_type_says_which_and_a_component_that_makes_it_is_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
    with (
        pytest.raises(ComponentError, match=rf"^detect \(tests.*ColourDetector\): {said}"),
        blaming("detect", ColourDetector()),
    ):
        make()


@pytest.mark.parametrize(
    ("columns", "said"),
    [({"source_ids": ("a", None, None)}, "source_ids must hold int, got str"),
     ({"extras": ({}, "", "")}, "extras must hold str, got dict"),
     ({"notes": (1,)}, "notes must hold str, got int")],
)  # fmt: skip
def test_columns_that_cannot_be_stored_name_the_detector(tmp_path, columns, said):
    with pytest.raises(ComponentError, match=rf"^detect \(tests.*Finds\): {said}"):
        labelled(tmp_path, detector=Finds(**columns))


def test_masks_as_arrays_name_the_prompter(tmp_path):
    with pytest.raises(ComponentError, match=r"^prompt \(tests.*Asks\): 'a.png': masks must hold Rles or None"):
        labelled(tmp_path, prompter=Asks(masks=(np.ones(SIZE),) * 3))


def test_a_path_of_a_picture_may_be_a_path():
    assert ImageRef("a", Path("b/a.png")).path == "b/a.png"


@pytest.mark.parametrize(
    ("group", "lacks"), [("detect", "identity"), ("detect", "categories"), ("segment", "identity")]
)
def test_a_component_that_does_not_say_what_it_must_is_refused(group, lacks):
    class Whole:
        identity, categories = {}, None

        def run(self, *_):
            pass

        detect = segment = run

    assert as_component(Whole(), group, group)
    delattr(Whole, lacks)
    with pytest.raises(ConfigError, match=f"{group}._target_: Whole needs `{lacks}`"):
        as_component(Whole(), group, group)
