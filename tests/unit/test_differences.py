"""What differs between two runs: the laws of a difference, and of a Pareto front."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.core.errors import ConfigError
from autolabel.core.types import Category, Verdict
from autolabel.evaluate.differences import KINDS, DifferenceTally, compare_pictures, compare_runs, joined, rules
from autolabel.evaluate.pareto import pareto_front
from autolabel.ops.masks import area_px
from tests.records import CATEGORIES, disc, failed, instance, record

BY = rules(CATEGORIES, CATEGORIES, match_iou=0.5, moved_iou=0.8)
CAT, DOG = (category.id for category in CATEGORIES)
SWAPPED = {
    "added": "removed",
    "removed": "added",
    "now_kept": "now_dropped",
    "now_dropped": "now_kept",
    "moved": "moved",
    "class_changed": "class_changed",
}


QUICK = settings(max_examples=30)


def found(index, x=40, r=20, category_id=CAT, **changes):
    return instance(disc(120, 160, x, 60, r), index, category_id=category_id, **changes)


def dropping(picture, *indices):
    verdicts = [Verdict("area: on purpose") if c.index in indices else Verdict() for c in picture.candidates]
    return replace(picture, verdicts=tuple(verdicts))


def kinds(before, after, by=BY):
    return [one.kind for one in compare_pictures(before, after, by).differences]


def pictures(draw_x, dropped, classes):
    """A record with one disc at each x."""
    objects = [found(i, x, category_id=c) for i, (x, c) in enumerate(zip(draw_x, classes, strict=True))]
    return dropping(record("a.png", objects, size_hw=(120, 160)), *dropped)


a_picture = st.lists(st.tuples(st.integers(10, 150), st.sampled_from([CAT, DOG]), st.booleans()), max_size=5).map(
    lambda rows: pictures(
        [x for x, _, _ in rows], [i for i, row in enumerate(rows) if row[2]], [c for _, c, _ in rows]
    )
)


@QUICK
@given(a_picture)
def test_a_picture_does_not_differ_from_itself(picture):
    same = compare_pictures(picture, picture, BY)
    assert same.differences == ()
    assert same.identical == len(picture.instances)


@QUICK
@given(a_picture, a_picture)
def test_swapped_runs_give_swapped_differences(one, other):
    there, back = compare_pictures(one, other, BY), compare_pictures(other, one, BY)
    forward = {
        (SWAPPED[d.kind], d.after and d.after.index, d.before and d.before.index) for d in there.differences
    }
    assert forward == {(d.kind, d.before and d.before.index, d.after and d.after.index) for d in back.differences}
    assert (there.identical, there.close) == (back.identical, back.close)


@QUICK
@given(a_picture, a_picture)
def test_every_kept_object_is_accounted_for_once(one, other):
    compared = compare_pictures(one, other, BY)
    paired = compared.identical + compared.close
    left = [d.before.index for d in compared.differences if d.before and d.kind != "now_kept"]
    right = [d.after.index for d in compared.differences if d.after and d.kind != "now_dropped"]
    assert len(left) == len(set(left)) == len(one.instances) - paired
    assert len(right) == len(set(right)) == len(other.instances) - paired


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_removing_one_object_is_exactly_one_removal(gone):
    objects = [found(0, 30), found(1, 80), found(2, 130)]
    after = record("a.png", [one for one in objects if one.index != gone])
    compared = compare_pictures(record("a.png", objects), after, BY)
    (one,) = compared.differences
    assert (one.kind, one.before) == ("removed", objects[gone])
    assert one.share == area_px(objects[gone].mask) / (120 * 160)
    assert compared.identical == 2


def test_an_object_of_another_class_is_neither_added_nor_removed():
    before, after = found(0), found(0, category_id=DOG)
    (one,) = compare_pictures(record("a.png", [before]), record("a.png", [after]), BY).differences
    assert (one.kind, one.before, one.after, one.iou) == ("class_changed", before, after, 1.0)


@pytest.mark.parametrize(("shift", "expected"), [(0, []), (1, []), (6, ["moved"]), (30, ["removed", "added"])])
def test_a_mask_has_moved_when_it_overlaps_but_not_enough(shift, expected):
    assert kinds(record("a.png", [found(0, 60)]), record("a.png", [found(0, 60 + shift)])) == expected


def test_the_same_box_is_the_same_object_however_the_masks_differ():
    box = (10.0, 10.0, 90.0, 90.0)
    thin, full = found(0, 40, 4, box_xyxy=box), found(0, 40, 40, box_xyxy=box)
    assert kinds(record("a.png", [thin]), record("a.png", [full])) == ["moved"]


def test_what_one_run_drops_is_found_again_with_its_reason():
    picture = record("a.png", [found(0, 40), found(1, 120)])
    (one,) = compare_pictures(picture, dropping(picture, 1), BY).differences
    assert (one.kind, one.reason, one.before.index) == ("now_dropped", "area: on purpose", 1)
    assert kinds(dropping(picture, 1), picture) == ["now_kept"]
    assert kinds(dropping(picture, 1), dropping(picture, 1)) == []


def test_an_object_that_never_became_a_mask_is_found_by_its_box():
    kept = record("a.png", [found(0)])
    without = replace(kept.candidates[0], mask=None)
    none = replace(kept, status="empty", candidates=(without,), verdicts=(Verdict("no_mask: none"),))
    assert kinds(kept, none) == ["now_dropped"]
    assert kinds(none, none) == []


def test_of_objects_on_one_spot_those_of_one_class_meet():
    pair = [found(0), found(1, category_id=DOG)]
    turned = [found(0, category_id=DOG), found(1)]
    assert kinds(record("a.png", pair), record("a.png", turned)) == []


def test_two_vocabularies_are_not_compared_by_class():
    apart = rules([Category(1, "object")], CATEGORIES, match_iou=0.5, moved_iou=0.8)
    assert not apart.classes
    assert kinds(record("a.png", [found(0, category_id=1)]), record("a.png", [found(0)]), apart) == []


def test_classes_are_compared_by_name():
    renumbered = rules(CATEGORIES, [Category(40, "cat")], match_iou=0.5, moved_iou=0.8)
    assert kinds(record("a.png", [found(0)]), record("a.png", [found(0, category_id=40)]), renumbered) == []


@pytest.mark.parametrize(
    ("one", "other", "meeting"),
    [
        (record("a", [found(0)]), None, "only_before"),
        (None, record("a", [found(0)]), "only_after"),
        (failed("a"), record("a", [found(0)]), "other_status"),
        (failed("a"), failed("a"), "compared"),
        (record("a", [found(0)]), record("a", [], size_hw=(60, 80)), "other_picture"),
    ],
)
def test_objects_are_compared_only_on_the_same_picture(one, other, meeting):
    compared = compare_pictures(one, other, BY)
    assert compared.meeting == meeting
    assert compared.differences == ()


def test_another_file_under_the_same_id_is_another_picture(tmp_path):
    (tmp_path / "1").write_bytes(b"1")
    (tmp_path / "2").write_bytes(b"2")
    one, other = (record("a", [found(0)], path=tmp_path / name) for name in "12")
    assert compare_pictures(one, other, BY).meeting == "other_picture"


@QUICK
@given(st.sets(st.text(st.characters(codec="utf-8"), min_size=1)), st.sets(st.text(min_size=1, max_size=3)))
def test_the_join_meets_every_id_once_in_order(ours, theirs):
    theirs = {text for text in theirs if not any("\ud800" <= c <= "\udfff" for c in text)}

    def stream(ids):
        return iter([failed(i) for i in sorted(ids, key=str.encode)])

    pairs = list(joined(stream(ours), stream(theirs)))
    assert [(a or b).image_id for a, b in pairs] == sorted(ours | theirs, key=str.encode)
    assert {a.image_id for a, b in pairs if a and b} == ours & theirs


def test_the_strongest_are_those_that_change_most_of_the_picture():
    before = [record(f"{i}.png", [found(0, 60, r)]) for i, r in enumerate([5, 30, 10, 20])]
    after = [replace(one, status="empty", candidates=(), verdicts=()) for one in before]
    tally = DifferenceTally(BY, examples=2)
    for picture in compare_runs(before, after, BY):
        tally.add(picture)
    assert [picture.record.image_id for picture, _ in tally.strongest("removed")] == ["1.png", "3.png"]
    assert {kind: tally.kinds[kind] for kind in KINDS if tally.kinds[kind]} == {"removed": 4}
    assert tally.classes == {"cat": {"removed": 4}}


def test_no_examples_are_kept_when_none_are_wanted():
    tally = DifferenceTally(BY, examples=0)
    for picture in compare_runs([record("a", [found(0)])], [record("a", [])], BY):
        tally.add(picture)
    assert tally.kinds["removed"] == 1
    assert tally.strongest("removed") == []


@pytest.mark.parametrize(
    "wrong", [{"match_iou": 0}, {"match_iou": "x"}, {"moved_iou": 1.5}, {"match_iou": 0.9, "moved_iou": 0.5}]
)
def test_thresholds_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="_iou must be"):
        rules(CATEGORIES, CATEGORIES, **{"match_iou": 0.5, "moved_iou": 0.8, **wrong})


def test_the_front_is_what_nobody_beats_on_both_scales():
    points = [(1, 9), (5, 5), (9, 1), (4, 4), (5, 4), None, (5, 5)]
    assert pareto_front(points) == [True, True, True, False, False, False, True]
    assert pareto_front([]) == []
    assert pareto_front([None]) == [False]


@QUICK
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_everything_off_the_front_is_beaten_by_something_on_it(points):
    front = pareto_front(points)
    on = np.array([p for p, kept in zip(points, front, strict=True) if kept])
    for point, kept in zip(points, front, strict=True):
        beaten = ((on >= point).all(axis=1) & (on != point).any(axis=1)).any()
        assert beaten != kept
