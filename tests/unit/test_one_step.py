"""A model that goes from pictures to objects in one step: every object is accounted for, every engine agrees."""

from collections.abc import Mapping

import numpy as np
import pytest

from autolabel.core.errors import ImageError
from autolabel.core.types import MAX_DET, Category, Frame, Instance, Instances
from autolabel.detect.label_map import LabelMap, MappedModel
from autolabel.engine.inline import InlineEngine
from autolabel.engine.one_step import OneStepLabeler
from autolabel.engine.threaded import ThreadedEngine
from autolabel.ops.masks import encode
from autolabel.refine.area import AreaRefiner
from autolabel.store.memory import MemoryStore
from tests.fakes import CATEGORIES, ColourDetector, album, draw
from tests.unit.test_engine import units_of

RENAMED = LabelMap(keep=None, drop=[], rename={"dog": "hound"}, merge=None, ids="contiguous")


class ColourModel:
    """The blocks of ColourDetector, filled, each with the mask that is asked for in `masks`."""

    categories: tuple[Category, ...] = CATEGORIES
    identity: Mapping[str, str] = {"weights": "none"}

    def __init__(self, fits: int = 10**6) -> None:
        self.fits = fits

    def find(self, frames):
        if len(frames) > self.fits or any("009" in frame.ref.image_id for frame in frames):
            raise ImageError("out_of_memory", "too many")
        return [self._one(frame) for frame in frames]

    def _one(self, frame: Frame) -> Instances:
        (found,) = ColourDetector().detect([frame])
        instances = []
        for i, (x0, y0, x1, y1) in enumerate(found.boxes_xyxy.tolist()):
            mask = np.zeros(frame.info.size_hw, bool)
            mask[int(y0) : int(y1), int(x0) : int(x1)] = True
            instances.append(Instance(i, int(found.category_ids[i]), (x0, y0, x1, y1), 0.5, encode(mask)))
        return Instances(tuple(instances), notes=("max_det",) * (len(instances) == 2))


class Given(ColourModel):
    """The same instances for any picture."""

    def __init__(self, *instances: Instance) -> None:
        super().__init__()
        self.instances = Instances(tuple(instances))

    def _one(self, frame: Frame) -> Instances:
        return self.instances


def labeler(model: object, *refiners: object, batch_size: int = 3) -> OneStepLabeler:
    return OneStepLabeler(
        model=model, refiners=refiners, batch_size=batch_size, batch_mb=256, max_pixels=10**8, min_side=1
    )


def records(model: object, folder, *refiners: object, engine: object = None):
    store = MemoryStore()
    (engine or InlineEngine()).run(labeler(model, *refiners), units_of(folder), store)
    return list(store.records())


@pytest.mark.parametrize("workers", [1, 3])
def test_engines_agree_and_a_picture_that_fails_costs_itself_alone(workers, tmp_path):
    album(tmp_path, 11)
    found = records(ColourModel(), tmp_path)
    assert found == records(ColourModel(), tmp_path, engine=ThreadedEngine(workers=workers, ahead=2, memory_mb=1))
    assert found == records(ColourModel(fits=1), tmp_path)
    assert [r.image_id for r in found] == [ref.image_id for unit in units_of(tmp_path) for ref in unit.refs]
    assert [r.code for r in found if r.status == "failed"] == ["out_of_memory"]
    assert sum(len(r.instances) for r in found) > 10


def test_what_cannot_become_a_label_is_dropped_with_its_reason_and_the_rest_stays(tmp_path):
    draw(tmp_path / "a.png", {})
    good, empty = encode(np.eye(40, 60, dtype=bool)), encode(np.zeros((40, 60), bool))
    boxes = [(0, 0, 9, 9), (0, 0, np.nan, 9), (9, 0, 3, 9), (5, 5, 5, 9), (70, 0, 90, 9)]
    some = [Instance(i, 1, box, 0.5, good) for i, box in enumerate(boxes)]
    some += [Instance(5, 1, boxes[0], 0.5, None), Instance(6, 1, boxes[0], 0.5, empty)]
    (record,) = records(Given(*some), tmp_path)
    words = [(v.reason or "kept").split(" [")[0] for v in record.verdicts]
    assert words == ["kept", "bad_box: not finite", "bad_box: corners reversed", "bad_box: zero area",
                     "bad_box: outside the 60x40 image", "no_mask: the model gave no mask",
                     "empty_mask: no pixel is inside"]  # fmt: skip
    assert [i.index for i in record.instances] == [0]


@pytest.mark.parametrize("map_of", [lambda model: model, lambda model: MappedModel(model, RENAMED)])
def test_pictures_in_which_the_model_found_all_that_it_may_are_noted(tmp_path, map_of):
    album(tmp_path, 8)
    found = [r for r in records(map_of(ColourModel()), tmp_path) if r.status != "failed"]
    limited = [MAX_DET in r.info.notes for r in found]
    assert limited == [len(r.candidates) == 2 for r in found]
    assert {True, False} == set(limited)


def test_refiners_judge_what_the_model_found(tmp_path):
    album(tmp_path, 4)
    found = records(
        ColourModel(), tmp_path, AreaRefiner(min_px=10**6, max_px=None, min_fraction=None, max_fraction=None)
    )
    assert {r.status for r in found} == {"empty"}
    assert {str(v.reason).split(":")[0] for r in found for v in r.verdicts} == {"min_area"}


def test_classes_are_mapped_and_those_left_out_are_not_looked_for(tmp_path):
    album(tmp_path, 8)
    labels = LabelMap(keep=None, drop=["cat"], rename={"dog": "hound"}, merge=None, ids="contiguous")
    mapped = MappedModel(ColourModel(), labels)
    assert [(c.id, c.name) for c in mapped.categories] == [(1, "hound"), (2, "owl")]
    before, after = records(ColourModel(), tmp_path), records(mapped, tmp_path)
    for old, new in zip(before, after, strict=True):
        stayed = [(i.category_id - 1, i.mask) for i in old.candidates if i.category_id != 1]
        assert [(i.category_id, i.mask) for i in new.candidates] == stayed
        assert [i.index for i in new.candidates] == list(range(len(stayed)))
