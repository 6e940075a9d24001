"""What must hold for every evaluation: copies are perfect, nothing is NaN, every object is counted exactly once."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from autolabel.core.errors import ConfigError
from autolabel.core.types import Category, ImageRecord, Problem
from autolabel.evaluate.result import Confusion
from autolabel.evaluate.table import beside, text
from tests.records import failed, shapes
from tests.scenes import CAT, DOG, OWL, album, at, judge, one_picture, ref, run, run_record, truth


def numbers(value):
    """Every leaf of a JSON document that is a number or null."""
    if isinstance(value, dict):
        return [n for inner in value.values() for n in numbers(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in numbers(inner)]
    return [] if isinstance(value, str) else [value]


def test_a_perfect_copy_scores_one_everywhere():
    objects = [((CAT, DOG, OWL)[i % 3], mask) for i, mask in enumerate(shapes().values())]
    crowd = (2, 5)
    copies = [one for i, one in enumerate(objects) if i not in crowd]
    found = one_picture(objects, copies, crowd=crowd)
    lines = [found.segm[k] for k in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")]
    assert lines == pytest.approx([1.0] * 7)
    assert [found.bbox[k] for k in ("AP", "AR100")] == pytest.approx([1.0, 1.0])
    row = found.all
    assert (row.mean_iou, row.median_iou, row.precision, row.recall, row.f1) == (1, 1, 1, 1, 1)
    assert (row.boundary_iou, row.boundary_f) == (1, 1)
    assert (found.panoptic.overall.pq, found.panoptic.overall.sq, found.panoptic.overall.rq) == (1, 1, 1)
    assert set(found.errors.values()) == {0}
    assert all(c.truth == c.found for c in found.confusion)
    assert [(c.AP, c.mean_iou, c.f1, c.boundary_iou, c.boundary_f) for c in found.per_class] == [
        pytest.approx((1, 1, 1, 1, 1))
    ] * 3
    assert all(s.mean_iou == s.precision == s.recall == s.boundary_iou == 1 for s in found.per_size.values())


EMPTY = {
    "no picture": ([], []),
    "no object on either side": ([ref("a.jpg", [])], [run_record("a.jpg", [])]),
    "nothing found": ([ref("a.jpg", [(CAT, at(50, 50))])], [run_record("a.jpg", [])]),
    "nothing true": ([ref("a.jpg", [])], [run_record("a.jpg", [(CAT, at(50, 50))])]),
    "only crowds": ([ref("a.jpg", [(CAT, at(50, 50))], crowd=(0,))], [run_record("a.jpg", [])]),
    "one class empty": ([ref("a.jpg", [(CAT, at(50, 50))])], [run_record("a.jpg", [(CAT, at(50, 50))])]),
    "only failures": ([ref("a.jpg", [(CAT, at(50, 50))])], [failed("a.jpg")]),
    "boxes and no masks": (
        [ref("a.jpg", [(CAT, at(50, 50))], masks=False)],
        [run_record("a.jpg", [(CAT, at(50, 50))])],
    ),
}


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("on_labels", [False, True])
def test_what_is_empty_gives_null_and_never_nan(case, on_labels):
    refs, records = EMPTY[case]
    lines = []
    found = judge(run(records), truth(refs), on_labels=on_labels, lines=lines)
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert all(isinstance(n, int | float | None) for n in numbers(document))
    assert all(json.loads(line)["image_id"] == "a.jpg" for line in lines)
    assert "nan" not in text(found) + beside(found, found)


def test_a_run_that_found_nothing_has_no_precision_and_no_recall_but_zero_ap():
    found = one_picture([(CAT, at(50, 50))], [])
    assert (found.all.precision, found.all.recall, found.all.f1, found.all.mean_iou) == (None, 0, 0, None)
    assert found.segm["AP"] == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_every_object_is_counted_once(seed, class_agnostic):
    refs, records = album(seed)
    lines = []
    found = judge(run(records), truth(refs), lines=lines, class_agnostic=class_agnostic)
    rows = [json.loads(line) for line in lines]
    true = sum(not crowd for one in refs for crowd in one.labels.crowd)
    kept = sum(len(one.instances) for one in records)
    assert found.all.truth == true == sum(c.truth for c in found.per_class)
    assert found.all.truth == sum(s.truth for s in found.per_size.values())
    assert found.all.found + found.absorbed == kept
    assert (
        found.all.found == sum(c.found for c in found.per_class) == sum(s.found for s in found.per_size.values())
    )
    e = found.errors
    assert found.all.matched + e["missed"] + e["wrong_class"] + e["poor_mask"] == true
    assert found.all.matched + e["false"] + e["wrong_class"] + e["poor_mask"] + e["duplicate"] == found.all.found
    assert len({(r["image_id"], r["index"]) for r in rows if r["index"] is not None}) == found.all.found
    pairs = [(r["image_id"], r["truth_index"]) for r in rows if r["kind"] not in ("false", "duplicate")]
    assert len(set(pairs)) == len(pairs) == true


@pytest.mark.parametrize("seed", range(4))
def test_confusion_counts_every_true_object_once_and_every_found_one_at_most_once(seed):
    refs, records = album(seed)
    found = judge(run(records), truth(refs))
    of_truth, of_found = Counter(), Counter()
    for c in found.confusion:
        of_truth[c.truth] += c.objects
        of_found[c.found] += c.objects
    assert [of_truth[c.name] for c in found.per_class] == [c.truth for c in found.per_class]
    assert of_found.total() - of_found[None] <= sum(len(one.instances) for one in records)
    assert not any(c.truth is None and c.found is None for c in found.confusion)


def test_a_class_mix_up_moves_only_what_depends_on_classes():
    objects = [(CAT, at(40, 60)), (DOG, at(110, 60))]
    right = one_picture(objects, objects)
    wrong = one_picture(objects, [(DOG, objects[0][1]), (CAT, objects[1][1])])
    assert right.confusion == (Confusion("cat", "cat", 1), Confusion("dog", "dog", 1))
    assert wrong.confusion == (Confusion("cat", "dog", 1), Confusion("dog", "cat", 1))
    assert wrong.errors == {"missed": 0, "false": 0, "wrong_class": 2, "poor_mask": 0, "duplicate": 0}
    blind = one_picture(objects, [(DOG, objects[0][1]), (CAT, objects[1][1])], class_agnostic=True)
    assert (blind.segm["AP"], blind.all.mean_iou, blind.all.matched) == (pytest.approx(1), 1, 2)


def test_an_object_found_twice_is_a_duplicate_also_under_another_class():
    found = one_picture(
        [(CAT, at(60, 60))], [(CAT, at(60, 60)), (CAT, at(61, 60)), (DOG, at(62, 60))], [0.9, 0.8, 0.7]
    )
    assert found.errors == {"missed": 0, "false": 0, "wrong_class": 0, "poor_mask": 0, "duplicate": 2}
    assert found.all.matched == 1


def test_a_mask_that_hits_too_little_is_poor_and_one_that_hits_nothing_is_false():
    lines = []
    refs = [ref("a.jpg", [(CAT, at(40, 60)), (CAT, at(120, 30))])]
    records = [run_record("a.jpg", [(CAT, at(58, 60)), (CAT, at(100, 100, 10))], [0.9, 0.8])]
    found = judge(run(records), truth(refs), lines=lines)
    assert found.errors == {"missed": 1, "false": 1, "wrong_class": 0, "poor_mask": 1, "duplicate": 0}
    kinds = {row["kind"]: row for row in map(json.loads, lines)}
    assert (found.all.mean_iou, found.mean_iou_of_truth) == (None, kinds["poor_mask"]["iou"] / 2)
    assert (kinds["poor_mask"]["index"], kinds["poor_mask"]["truth_index"]) == (0, 0)
    assert 0.1 < kinds["poor_mask"]["iou"] < 0.5
    assert (kinds["false"]["index"], kinds["false"]["truth_index"], kinds["false"]["iou"]) == (1, None, 0)
    assert (kinds["missed"]["index"], kinds["missed"]["truth_index"]) == (None, 1)


def test_a_crowd_absorbs_what_lies_in_it_and_need_not_be_found():
    crowd = np.maximum(at(30, 60, 25), at(60, 60, 25))
    found = one_picture(
        [(CAT, crowd), (DOG, at(130, 60))],
        [(CAT, at(30, 60, 8)), (CAT, at(60, 60, 8)), (DOG, at(130, 60))],
        crowd=(0,),
    )
    assert (found.all.truth, found.all.found, found.all.precision, found.absorbed) == (1, 1, 1, 2)
    assert found.segm["AP"] == pytest.approx(1)
    assert found.panoptic.overall.pq == 1
    assert found.errors["false"] == 0


@pytest.mark.parametrize("extra", ['{"difficult": 1}', '{"ignore": true}', '{"difficult": "1"}'])
def test_difficult_objects_are_ignored_as_crowds_are(extra):
    refs = [ref("a.jpg", [(CAT, at(40, 60)), (CAT, at(120, 60))], extras=("", extra))]
    found = judge(run([run_record("a.jpg", [(CAT, at(40, 60))])]), truth(refs))
    assert (found.all.recall, found.ignored, found.segm["AP"]) == (1, 1, pytest.approx(1))


def test_a_truth_of_boxes_alone_is_measured_by_boxes_and_says_so():
    found = judge(
        run([run_record("a.jpg", [(CAT, at(40, 60))])]), truth([ref("a.jpg", [(CAT, at(40, 60))], masks=False)])
    )
    assert (found.matching.measure, found.segm, found.panoptic, found.separation) == ("bbox", None, None, None)
    assert (found.bbox["AP"], found.all.mean_iou, found.all.boundary_iou) == (pytest.approx(1), 1, None)
    assert any("boxes and no masks" in note for note in found.notes)
    assert set(found.document()["segm"].values()) == {None}


def test_where_some_true_objects_have_no_mask_nothing_is_asked_of_them():
    one = ref("a.jpg", [(CAT, at(40, 60)), (CAT, at(120, 60))])
    one = replace(one, labels=replace(one.labels, shapes=(one.labels.shapes[0], None)))
    found = judge(run([run_record("a.jpg", [(CAT, at(40, 60)), (CAT, at(120, 60))])]), truth([one]))
    assert (found.matching.measure, found.all.truth, found.all.precision) == ("segm", 1, 1)
    assert any("no mask" in note for note in found.notes)


def test_precision_and_recall_at_other_ious_are_those_of_a_matching_at_them():
    refs, records = album(3)
    found = judge(run(records), truth(refs), also_at=[0.75, 0.9])
    for threshold in found.thresholds:
        alone = judge(run(records), truth(refs), iou=threshold.iou).all
        assert threshold.recall == pytest.approx(alone.recall)


def test_the_score_that_is_asked_for_sorts_the_objects():
    refs = [ref("a.jpg", [(CAT, at(60, 60))])]
    objects = [(CAT, at(60, 60)), (CAT, at(64, 60))]
    one = run_record("a.jpg", objects, [0.2, 0.9])
    better = tuple(replace(c, quality=q) for c, q in zip(one.candidates, (0.9, 0.2), strict=True))
    records = [replace(one, candidates=better)]
    assert judge(run(records), truth(refs)).all.mean_iou < 1
    assert judge(run(records), truth(refs), score="quality").all.mean_iou == 1
    with pytest.raises(ConfigError, match="score=quality: 2 of 2"):
        judge(run([one]), truth(refs), score="quality")


def test_what_is_left_out_is_said():
    refs = [
        ref("a.jpg", [(CAT, at(40, 60))]),
        ref("unused.jpg", [(CAT, at(40, 60))]),
        replace(ref("broken.jpg", []), problem=Problem("bad_label", "broken.xml: no JSON")),
    ]
    records = [run_record("a.jpg", [(CAT, at(40, 60))]), run_record("b.jpg", []), failed("c.jpg")]
    found = judge(run(records), truth(refs))
    assert "the ground truth of 1 picture cannot be used" in found.notes[0], (
        "what may be the reason for everything"
    )
    assert (found.images, found.images_without_truth) == (1, 1)
    for words in ("1 picture of the run failed", "1 picture of the run is not in the ground truth",
                  "1 picture of the ground truth is not in the run", "broken.xml"):  # fmt: skip
        assert any(words in note for note in found.notes), words


def test_pictures_that_were_skipped_are_said_by_their_reason():
    codes = ("unlabelled", "unlabelled", "dark")
    skipped = [ImageRecord(f"{n}.jpg", f"{n}.jpg", "skipped", code=code) for n, code in enumerate(codes)]
    notes = judge(run([*skipped, run_record("a.jpg", [])]), truth([ref("a.jpg", [(CAT, at(40, 60))])])).notes
    assert "2 pictures of the run had no labels to be taken and are not counted" in notes
    assert "1 picture of the run was skipped (dark) and is not counted" in notes


@pytest.mark.parametrize("folder", ["", "val/"])
def test_a_picture_that_failed_is_not_said_to_be_missing_too(folder):
    refs = [ref(f"{folder}{name}.jpg", [(CAT, at(40, 60))]) for name in "abc"]
    refs[1] = replace(refs[1], problem=Problem("bad_label", "b.xml: no JSON"))
    records = [run_record("a.jpg", [(CAT, at(40, 60))]), run_record("b.jpg", []), failed("c.jpg")]
    notes = judge(run(records), truth(refs)).notes
    assert any("1 picture of the run failed" in note for note in notes)
    assert not any("not in the" in note for note in notes)


def test_a_truth_of_another_picture_size_is_left_out_and_said():
    one = ref("a.jpg", [(CAT, at(40, 60))])
    found = judge(
        run([replace(run_record("a.jpg", []), info=replace(run_record("a.jpg", []).info, width=99))]), truth([one])
    )
    assert found.images == 0
    assert any("160x120" in note for note in found.notes)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("iou", 0), ("iou", True), ("iou", float("nan")), ("also_at", 0.5), ("also_at", [2]), ("score", "x"), ("box", 1),
     ("classes", ["a"]), ("classes", {"a": 1}), ("class_agnostic", "yes"), ("unknown", "x"), ("pairing", None)],
)  # fmt: skip
def test_a_wrong_setting_is_refused_by_its_name(setting, value):
    with pytest.raises(ConfigError, match=f"^{setting} must"):
        judge(run([]), truth([]), **{setting: value})


def test_class_names_are_joined_mapped_and_refused_with_a_suggestion():
    theirs = (Category(5, "kitty"), Category(6, "dog"), Category(7, "dragon"))
    refs = [ref("a.jpg", [(5, at(40, 60)), (6, at(110, 60))])]
    records = [run_record("a.jpg", [(CAT, at(40, 60)), (DOG, at(110, 60)), (OWL, at(80, 20, 5))])]
    with pytest.raises(ConfigError, match=r"no class 'kitty'.*class_agnostic=true.*unknown=ignore"):
        judge(run(records), truth(refs, theirs))
    mapped = judge(run(records), truth(refs, theirs), classes={"kitty": "cat"})
    assert (mapped.all.matched, [c.name for c in mapped.per_class]) == (2, ["cat", "dog"])
    assert any("1 owl" in note for note in mapped.notes)
    for changes in ({"classes": {"kitty": None}}, {"unknown": "ignore"}):
        fewer = judge(run(records), truth(refs, theirs), **changes)
        assert (fewer.all.truth, fewer.all.matched) == (1, 1)
        assert any("kitty" in note for note in fewer.notes)
    with pytest.raises(ConfigError, match=r"no class 'kity' \(did you mean 'kitty'\?\)"):
        judge(run(records), truth(refs, theirs), classes={"kity": "cat"})


def test_a_run_of_one_class_is_told_to_match_without_classes():
    refs = [ref("a.jpg", [(CAT, at(40, 60))])]
    records = [run_record("a.jpg", [(1, at(40, 60))])]
    with pytest.raises(ConfigError, match=r"class_agnostic=true.*one class 'object'"):
        judge(run(records, (Category(1, "object"),)), truth(refs))
    found = judge(run(records, (Category(1, "object"),)), truth(refs), class_agnostic=True)
    assert (found.all.matched, found.matching.by_class) == (1, False)
