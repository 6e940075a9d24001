"""The label map: which classes are labelled, under which names and ids."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.core.errors import ConfigError
from autolabel.core.types import Category, Detections, Frame, ImageInfo, ImageRef
from autolabel.detect.label_map import LabelMap, MappedDetector
from autolabel.detect.none import NoDetector

COCO = (Category(1, "person"), Category(3, "car"), Category(6, "bus"), Category(8, "truck"), Category(18, "dog"))
NAMES = [category.name for category in COCO]
FRAME = Frame(ImageRef("a", "a"), np.zeros((9, 9, 3), np.uint8), ImageInfo(9, 9))


def label_map(**changed) -> LabelMap:
    return LabelMap(**{"keep": None, "drop": [], "rename": {}, "merge": {}, "ids": "kept", **changed})


def mapped(**changed):
    found = label_map(**changed).apply(COCO)
    return [(c.id, c.name) for c in found.categories], dict(found.ids)


class OneOfEach:
    """Finds one object of every class, at a place of its own."""

    categories = COCO
    identity: Mapping[str, str] = {"weights": "none"}

    def detect(self, frames):
        boxes = np.array([[c.id, 0, c.id + 1, 1] for c in COCO], np.float32)
        ids = np.array([c.id for c in COCO], np.int64)
        return [Detections(boxes, ids / np.float32(100), ids, extras=tuple(NAMES)) for _ in frames]


def test_without_settings_nothing_changes():
    assert label_map().changes_nothing
    assert mapped() == ([(c.id, c.name) for c in COCO], {c.id: c.id for c in COCO})


def test_keep_and_drop_choose_and_keep_the_ids():
    assert mapped(keep=["dog", "person", "car"], drop=["car"]) == ([(1, "person"), (18, "dog")], {1: 1, 18: 18})


def test_a_merged_class_has_the_lowest_id_of_its_members():
    categories, ids = mapped(merge={"vehicle": ["truck", "car", "bus"]})
    assert categories == [(1, "person"), (3, "vehicle"), (18, "dog")]
    assert ids == {1: 1, 3: 3, 6: 3, 8: 3, 18: 18}


def test_contiguous_ids_count_from_one_without_gaps():
    categories, ids = mapped(drop=["person"], merge={"vehicle": ["bus", "truck"]}, ids="contiguous")
    assert categories == [(1, "car"), (2, "vehicle"), (3, "dog")]
    assert ids == {3: 1, 6: 2, 8: 2, 18: 3}


def test_names_may_change_places():
    assert mapped(rename={"dog": "car", "car": "dog"})[0] == [
        (1, "person"), (3, "dog"), (6, "bus"), (8, "truck"), (18, "car")
    ]  # fmt: skip


def test_a_merged_class_may_be_called_as_one_of_its_members():
    assert mapped(merge={"car": ["car", "bus"]})[0][1] == (3, "car")


def test_other_fields_of_a_class_stay_where_its_members_agree():
    classes = (Category(1, "a", "x"), Category(2, "b", "x"), Category(3, "c", "y"), Category(4, "d", "z"))
    found = label_map(merge={"ab": ["a", "b"], "cd": ["c", "d"]}).apply(classes)
    assert [c.extra for c in found.categories] == ["x", ""]


TWICE = (Category(1, "other", "animal"), Category(2, "dog", "animal"), Category(7, "other", "vehicle"))


@pytest.mark.parametrize(
    ("setting", "ids"),
    [({"drop": ["dog"]}, {1: 1, 7: 7}), ({"keep": ["other"]}, {1: 1, 7: 7}), ({"drop": ["other"]}, {2: 2}),
     ({"ids": "contiguous"}, {1: 1, 2: 2, 7: 3}), ({"rename": {"dog": "cat"}}, {1: 1, 2: 2, 7: 7}),
     ({"merge": {"other": ["other"]}}, {1: 1, 2: 2, 7: 1}), ({"merge": {"any": ["dog", "other"]}}, {1: 1, 2: 1, 7: 1})],
)  # fmt: skip
def test_two_classes_of_one_name_become_one_only_where_merge_says_so(setting, ids):
    found = label_map(**setting).apply(TWICE)
    assert found.ids == ids
    assert [c.id for c in found.categories] == sorted(set(ids.values()))
    if "merge" not in setting:
        extra = {c.id: c.extra for c in TWICE}
        assert [c.extra for c in found.categories] == [extra[old] for old in ids]


def test_of_two_classes_of_one_name_none_is_renamed():
    with pytest.raises(ConfigError, match=r"1 and 7 are both called 'other'.*labels.merge=\{rest: \[other\]\}"):
        label_map(rename={"other": "rest"}).apply(TWICE)


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"keep": ["persn"]}, "did you mean person"), ({"drop": ["giraffe"]}, "there are bus, car"),
     ({"rename": {"Car": "x"}}, "did you mean car"), ({"merge": {"x": ["car", "trck"]}}, "did you mean truck"),
     ({"keep": []}, "^keep"), ({"keep": "car"}, "^keep"), ({"drop": NAMES}, "no class"),
     ({"drop": [3]}, "^drop"), ({"rename": {"car": ""}}, "^rename.car"), ({"rename": ["car"]}, "^rename"),
     ({"rename": {"car": "bus"}}, "another class"), ({"rename": {"car": "x", "bus": "x"}}, r"labels.merge=\{x: \[bus, car\]"),
     ({"merge": {"dog": ["car", "bus"]}}, "another class"), ({"merge": {"x": ["car"], "y": ["car"]}}, "'x' and in 'y'"),
     ({"merge": {"x": "car"}}, "^merge.x"), ({"rename": {"car": "x"}, "merge": {"y": ["car"]}}, "both name car"),
     ({"ids": "dense"}, "^ids")],
)  # fmt: skip
def test_a_map_that_makes_no_sense_is_refused_with_its_key(setting, words):
    with pytest.raises(ConfigError, match=words):
        mapped(**setting)


def test_a_mapped_detector_moves_whole_rows_and_leaves_out_the_rest():
    detector = MappedDetector(
        OneOfEach(), label_map(drop=["person"], merge={"v": ["car", "bus"]}, ids="contiguous"), COCO
    )
    (found,) = detector.detect([FRAME])
    assert [(c.id, c.name) for c in detector.categories] == [(1, "v"), (2, "truck"), (3, "dog")]
    assert found.category_ids.tolist() == [1, 1, 2, 3]
    assert found.extras == ("car", "bus", "truck", "dog")
    assert found.boxes_xyxy[:, 0].tolist() == [3, 6, 8, 18]
    assert detector.identity == OneOfEach.identity


def test_only_the_class_of_no_detector_is_that_of_new_objects():
    """Not a class that is the only one left: what a prompt finds may be of any other."""
    none = NoDetector(category="object")
    rename = label_map(rename={"object": "thing"})
    assert MappedDetector(none, rename, none.categories).class_of_new == none.class_of_new == 1
    contiguous = MappedDetector(none, label_map(ids="contiguous"), none.categories)
    assert contiguous.class_of_new == contiguous.categories[0].id
    assert MappedDetector(OneOfEach(), label_map(keep=["dog"]), COCO).class_of_new is None


@given(
    keep=st.none() | st.lists(st.sampled_from(NAMES), min_size=1),
    drop=st.lists(st.sampled_from(NAMES), max_size=3),
    members=st.lists(st.sampled_from(NAMES), unique=True),
    ids=st.sampled_from(["kept", "contiguous"]),
)
@settings(max_examples=60)
def test_every_chosen_class_has_one_place_and_nothing_else_does(keep, drop, members, ids):
    chosen = [c for c in COCO if (keep is None or c.name in keep) and c.name not in drop]
    made = label_map(keep=keep, drop=drop, merge={"new": members}, ids=ids)
    if not chosen:
        with pytest.raises(ConfigError):
            made.apply(COCO)
        return
    found = made.apply(COCO)
    assert set(found.ids) == {c.id for c in chosen}
    assert set(found.ids.values()) == {c.id for c in found.categories}
    assert len({c.name for c in found.categories}) == len(found.categories)
    assert [c.id for c in found.categories] == sorted(c.id for c in found.categories)
    if ids == "contiguous":
        assert [c.id for c in found.categories] == list(range(1, len(found.categories) + 1))
