import re
from dataclasses import replace

import pytest

from autolabel.core.errors import ConfigError
from autolabel.export.coco import CocoExporter
from autolabel.export.splits import Splits
from tests.records import ListReader, disc, failed, instance, record

SETTINGS = {
    "val_fraction": 0.3,
    "test_fraction": 0.0,
    "seed": 0,
    "stratify": False,
    "group_by": None,
}
COCO = {
    "segmentation": "rle", "ids": "new", "images": "none", "empty_images": "keep", "holes": "keep", "parts": "keep",
    "overlaps": "keep", "min_area_px": 1, "crowd": "keep", "simplify_iou": None, "warn_iou": 0.98,
    "split_files": True,
    "val_fraction": 1.0, "test_fraction": 0.0, "seed": 0, "stratify": False, "group_by": None,
}  # fmt: skip
DISC = disc(120, 160, 30, 30, 5)


def sides(items, **changes):
    plan = Splits(**{**SETTINGS, **changes}).plan(ListReader(items))
    return {one.image_id: plan.side(one) for one in items if one.status != "failed"}


def records(n, folder="", classes=()):
    objects = [instance(DISC, i, category_id=c) for i, c in enumerate(classes)]
    return [record(f"{folder}{i:03}.jpg", objects) for i in range(n)]


def share(found, side):
    return sum(one == side for one in found.values()) / len(found)


def test_the_fractions_are_about_what_was_asked_for():
    found = sides(records(1000), test_fraction=0.2)
    assert (share(found, "val"), share(found, "test")) == (
        pytest.approx(0.3, abs=0.04),
        pytest.approx(0.2, abs=0.04),
    )


def test_images_that_come_move_no_other_one():
    old, new = records(200), records(300, "more/")
    before, after = sides(old), sides([*new[:150], *old, *new[150:]])
    assert all(after[name] == side for name, side in before.items())


def test_a_test_side_takes_nothing_from_val():
    items = records(200)
    before, after = sides(items), sides(items, test_fraction=0.2)
    assert all(after[name] == "val" for name, side in before.items() if side == "val")


def test_another_seed_is_another_split_and_the_same_seed_the_same():
    items = records(100)
    assert sides(items) == sides(items[::-1])
    assert sides(items) != sides(items, seed=1)


def test_a_stratified_class_of_two_images_is_on_both_sides():
    items = [*records(200, "a/", (3,)), *records(2, "rare/", (3, 7)), *records(3, "rarer/", (8,))]
    for seed in range(20):
        found = sides(items, stratify=True, seed=seed)
        for folder in ("rare/", "rarer/"):
            assert {side for name, side in found.items() if name.startswith(folder)} == {"train", "val"}


@pytest.mark.parametrize("stratify", [False, True])
def test_what_was_dealt_is_named_and_nothing_else_moves_when_images_come(tmp_path, stratify):
    settings = {**COCO, "val_fraction": 0.1, "stratify": stratify}
    moved = 0
    for seed in range(10):
        old, new = records(6, "a/", (3,)) + records(3, "b/", (7,)), records(4, "c/", (3, 7))
        before, after = (
            sides(items, val_fraction=0.1, stratify=stratify, seed=seed) for items in (old, [*old, *new])
        )
        report = CocoExporter(**{**settings, "seed": seed}).export(ListReader(old), tmp_path / f"{seed}")
        (note,) = [line for line in report.notes if "dealt to train or val" in line] or [""]
        assert note.startswith(f"{report.counts.get('splits_dealt', '')}")
        assert {name for name, side in before.items() if after[name] != side} <= set(
            re.findall(r"\w/\d+\.jpg", note)
        )
        moved += before != {name: after[name] for name in before}
    assert moved, "nothing moved: the test proves nothing"


def test_a_stratified_split_moves_at_most_one_image_a_class_when_images_come():
    for seed in range(10):
        old, new = records(60, "a/", (3,)) + records(3, "b/", (7,)), records(40, "c/", (3, 7))
        before, after = (sides(items, stratify=True, seed=seed) for items in (old, [*old, *new]))
        assert sum(after[name] != side for name, side in before.items()) <= 2


@pytest.mark.parametrize("group_by", ["folder", r"^(cam\d+)/"])
def test_a_group_is_on_one_side_as_a_whole(group_by):
    items = [one for n in range(40) for one in records(5, f"cam{n}/")]
    found = sides(items, group_by=group_by)
    by_group = {}
    for name, side in found.items():
        by_group.setdefault(name.split("/")[0], set()).add(side)
    assert all(len(group) == 1 for group in by_group.values())
    assert set(found.values()) == {"train", "val"}


def test_an_image_that_the_pattern_does_not_match_is_a_group_of_its_own():
    found = sides(records(100, "x/"), group_by=r"^(cam\d+)/")
    assert found == sides(records(100, "x/"))


def test_the_splits_of_the_source_are_kept_and_their_group_follows():
    items = records(6, "cam/")
    items[2] = replace(items[2], split="valid")
    items[4] = replace(items[4], split="test")
    assert set(sides(items, group_by="folder").values()) == {"val", "test"}
    found = sides(items, group_by="folder")
    assert (found["cam/002.jpg"], found["cam/004.jpg"], found["cam/000.jpg"]) == ("val", "test", "val")
    plan = Splits(**{**SETTINGS, "group_by": "folder"}).plan(ListReader(items))
    assert plan.counts["groups_divided"] == 1


@pytest.mark.parametrize(
    ("side", "names"),
    [
        ("train", ["train", "Train", "train2017", "training", "trainval", "trainval35k", "train_extra", "mini_train"]),
        ("val", ["val", "valid", "VALIDATION", "val2017", "val_unseen", "minival", "minival2014", "dev", "eval"]),
        ("test", ["test", "test2017", "test-dev", "testdev2017", "testing", "testA"]),
    ],
)  # fmt: skip
def test_a_split_of_the_source_is_the_side_that_it_is_named_after(side, names):
    items = [replace(one, split=name) for one, name in zip(records(len(names)), names, strict=True)]
    plan = Splits(**{**SETTINGS, "val_fraction": float(side != "val")}).plan(ListReader(items))
    assert {one.split: plan.side(one) for one in items} == dict.fromkeys(names, side)
    assert not +plan.counts


def test_a_split_that_is_named_after_no_side_is_dealt_and_said(tmp_path):
    names = ["holdout", "unlabeled", "validated", "devices", "evaluated", "valminusminival", None, "", "train"]
    items = [replace(one, split=name) for one, name in zip(records(len(names)), names, strict=True)]
    found = sides(items, val_fraction=1.0)
    assert [found[one.image_id] for one in items] == ["val"] * 8 + ["train"]
    report = CocoExporter(**COCO).export(ListReader(items), tmp_path / "out")
    assert report.counts["splits_unknown"] == 6
    assert any(
        note.startswith("6 pictures have a split in the source that is not called") for note in report.notes
    )


def test_images_without_labels_take_no_part():
    assert sides([failed("bad.jpg"), *records(2)]).keys() == {"000.jpg", "001.jpg"}


@pytest.mark.parametrize(
    ("pattern", "words"), [("(cam", "is not a regular expression"), ("cam", "needs a group in parentheses")]
)
def test_a_pattern_that_groups_nothing_is_refused(pattern, words):
    with pytest.raises(ConfigError, match=f"group_by {words}"):
        Splits(**{**SETTINGS, "group_by": pattern})


def test_fractions_over_one_together_are_refused():
    with pytest.raises(ConfigError, match="must not exceed 1 together"):
        Splits(**{**SETTINGS, "val_fraction": 0.6, "test_fraction": 0.5})


def test_a_name_of_any_characters_has_a_side():
    run = ListReader([record("a\ud800.png"), record("b\udc80.png")])
    plan = Splits(**{**SETTINGS, "val_fraction": 0.5}).plan(run)
    assert {plan.side(one) for one in run.records()} == {"train", "val"}
