"""Runs on the true boxes: objects are paired by annotation, so that failures count."""

import json
from dataclasses import replace

import numpy as np
import pytest

from autolabel.core.types import Category, Verdict
from autolabel.evaluate.table import beside
from tests.scenes import CAT, DOG, at, judge, ref, run, run_record, truth

OBJECTS = [(CAT, at(40, 40)), (DOG, at(110, 70)), (CAT, at(60, 100, 10))]
BOXES = [(20.0, 20.0, 61.0, 61.0), (90.0, 50.0, 131.0, 91.0), (50.0, 90.0, 71.0, 111.0)]


def oracle(masks, dropped=(), ids=(1, 2, 3)):
    """A run on the boxes of OBJECTS, with these masks."""
    one = run_record("a.jpg", [(c, m) for (c, _), m in zip(OBJECTS, masks, strict=True)])
    candidates = tuple(
        replace(c, box_xyxy=box, source_id=id_) for c, box, id_ in zip(one.candidates, BOXES, ids, strict=True)
    )
    verdicts = tuple(Verdict("min_area: too small" if i in dropped else None) for i in range(3))
    return run([replace(one, candidates=candidates, verdicts=verdicts)])


TRUTH = truth([ref("a.jpg", OBJECTS)])


def test_a_mask_that_misses_its_object_counts_with_its_own_iou_and_a_dropped_one_with_zero():
    masks = [OBJECTS[0][1], at(50, 100, 3), OBJECTS[2][1]]
    lines = []
    found = judge(oracle(masks, dropped=(2,)), TRUTH, on_labels=True, lines=lines)
    assert found.matching.pairing == "annotation"
    assert (found.all.mean_iou, found.all.matched) == (pytest.approx(1 / 3), 1)
    assert found.all.boundary_iou == pytest.approx(1 / 3)
    assert found.errors == {"missed": 1, "false": 0, "wrong_class": 0, "poor_mask": 1, "duplicate": 0}
    assert [json.loads(line)["kind"] for line in lines] == ["matched", "poor_mask", "missed"]
    assert [(c.truth, c.found, c.objects) for c in found.confusion] == [
        ("cat", "cat", 1),
        ("cat", None, 1),
        ("dog", None, 1),
    ]
    assert (found.matched_alone.mean_iou, found.matched_alone.boundary_f) == (1, 1)
    assert found.mean_iou_of_truth == found.all.mean_iou
    by_iou = judge(oracle(masks, dropped=(2,)), TRUTH, on_labels=True, pairing="iou")
    assert (by_iou.matching.pairing, by_iou.all.mean_iou) == ("iou", 1)


def test_at_other_ious_the_pairs_are_the_same():
    exchanged = [OBJECTS[2][1], at(112, 70), OBJECTS[0][1]]
    found = judge(oracle(exchanged), TRUTH, on_labels=True, also_at=[0.5, 0.95])
    assert [(t.recall, t.precision) for t in found.thresholds] == [(pytest.approx(1 / 3),) * 2, (0, 0)]
    for threshold in found.thresholds:
        alone = judge(oracle(exchanged), TRUTH, on_labels=True, iou=threshold.iou).all
        assert (threshold.recall, threshold.precision) == (alone.recall, alone.precision)


def test_annotations_are_found_by_their_ids_whatever_their_order():
    shuffled = ref("a.jpg", [OBJECTS[i] for i in (2, 0, 1)], source_ids=(3, 1, 2))
    found = judge(oracle([m for _, m in OBJECTS]), truth([shuffled]), on_labels=True)
    assert (found.matching.pairing, found.all.mean_iou) == ("annotation", 1)


def test_annotations_without_ids_are_found_by_their_position():
    bare = ref("a.jpg", OBJECTS, source_ids=(None,) * 3)
    found = judge(oracle([m for _, m in OBJECTS], ids=(None,) * 3), truth([bare]), on_labels=True)
    assert (found.matching.pairing, found.all.mean_iou) == ("annotation", 1)


@pytest.mark.parametrize(
    "other",
    [ref("a.jpg", OBJECTS[:2]), ref("a.jpg", OBJECTS, source_ids=(7, 8, 9)), ref("a.jpg", OBJECTS[::-1])],
    ids=["fewer", "other ids", "other boxes"],
)
def test_labels_of_another_truth_are_paired_by_iou_and_that_is_said(other):
    found = judge(oracle([m for _, m in OBJECTS]), truth([other]), on_labels=True)
    assert (found.matching.pairing, found.all.matched) == ("iou", len(other.labels))
    assert any("matched by IoU" in note for note in found.notes)


def test_a_crowd_of_the_truth_asks_for_nothing():
    crowd = np.maximum(OBJECTS[1][1], at(120, 80))
    true = [OBJECTS[0], (DOG, crowd), OBJECTS[2]]
    one = next(oracle([m for _, m in OBJECTS]).records())
    rows = tuple(replace(c, crowd=c.index == 1) for c in one.candidates)
    found = judge(run([replace(one, candidates=rows)]), truth([ref("a.jpg", true, crowd=(1,))]), on_labels=True)
    assert (found.matching.pairing, found.all.truth, found.all.mean_iou, found.ignored) == ("annotation", 2, 1, 1)


def test_the_names_of_the_truth_are_mapped_on_both_sides():
    classes = {"cat": "feline"}
    found = judge(oracle([m for _, m in OBJECTS]), TRUTH, on_labels=True, classes=classes)
    assert ([c.name for c in found.per_class], found.all.mean_iou) == (["feline", "dog", "owl"], 1)


def test_both_runs_stand_beside_one_another():
    detected = judge(run([run_record("a.jpg", OBJECTS[:1])]), TRUTH)
    perfect = judge(oracle([m for _, m in OBJECTS]), TRUTH, on_labels=True)
    (line,) = [line for line in beside(detected, perfect).splitlines() if "recall" in line]
    assert line.split() == ["recall", "0.333", "1.000"]


CAT_ALONE = (Category(CAT, "cat"),)


def cats(dropped=()):
    """The run of `labels.keep=[cat]`, which has no other class and no candidate of one."""
    one = next(oracle([m for _, m in OBJECTS], dropped).records())
    rows = [i for i, c in enumerate(one.candidates) if c.category_id == CAT]
    chosen = tuple(replace(one.candidates[i], index=n) for n, i in enumerate(rows))
    return run([replace(one, candidates=chosen, verdicts=tuple(one.verdicts[i] for i in rows))], CAT_ALONE)


@pytest.mark.parametrize(
    "changes", [{"unknown": "ignore"}, {"class_agnostic": True}], ids=["by class", "as one class"]
)
def test_classes_that_the_run_left_out_are_not_asked_for(changes):
    found = judge(cats(), TRUTH, on_labels=True, **changes)
    assert (found.matching.pairing, found.all.truth, found.all.mean_iou) == ("annotation", 2, 1)
    assert "classes of the ground truth that are left out: dog" in found.notes
    dropped = judge(cats(dropped=(2,)), TRUTH, on_labels=True, **changes)
    assert (dropped.matching.pairing, dropped.errors["missed"]) == ("annotation", 1)


def test_an_annotation_of_a_kept_class_that_is_no_candidate_is_missed():
    more = truth([ref("a.jpg", [*OBJECTS, (CAT, at(130, 20, 12))])])
    found = judge(cats(), more, on_labels=True, unknown="ignore")
    assert (found.matching.pairing, found.all.truth, found.errors["missed"]) == ("annotation", 3, 1)


def test_classes_that_were_left_out_are_told_by_position_too():
    one = next(cats().records())
    bare = run([replace(one, candidates=tuple(replace(c, source_id=None) for c in one.candidates))], CAT_ALONE)
    found = judge(bare, truth([ref("a.jpg", OBJECTS, source_ids=(None,) * 3)]), on_labels=True, unknown="ignore")
    assert (found.matching.pairing, found.all.truth, found.all.mean_iou) == ("annotation", 2, 1)
