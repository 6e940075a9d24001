"""One pass counts everything, and chooses the same pictures whatever the order of arrival."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.core.types import ImageRecord, Verdict
from autolabel.report.sampling import Lowest, lot
from autolabel.report.tally import BLOCK, Limits, Scores, tally
from autolabel.report.thumbnail import draw, window_around
from tests.records import disc, failed, instance, record

SQUARE = disc(120, 160, 60, 60, 20)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.text(max_size=3)), max_size=30), st.integers(0, 8))
def test_the_lowest_are_those_that_sorting_gives(pairs, count):
    kept = Lowest(count)
    for value, tie in pairs:
        kept.add(value, tie, (value, tie))
    assert kept.items() == sorted(pairs)[:count]


def test_lots_are_even_and_depend_on_seed_and_text_alone():
    lots = np.array([lot(0, f"a{i}") for i in range(4000)])
    assert abs(lots.mean() - 0.5) < 0.02
    assert lot(0, "a1") == lots[1] != lot(1, "a1")
    lot(0, "\udcff")


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_scores_have_the_mean_and_quantiles_of_their_values(values):
    scores = Scores()
    for value in values:
        scores.add(value)
    assert scores.mean == pytest.approx(np.mean(values))
    assert sum(scores.bins(20)) == len(values)
    assert scores.quantile(0.5) == pytest.approx(sorted(values)[(len(values) - 1) // 2], abs=0.0011)


def test_odd_scores_count_at_an_end():
    scores = Scores()
    for value in (float("nan"), -3.0, 7.0, float("inf")):
        scores.add(value)
    assert (scores.counts[0], scores.counts[-1], scores.mean) == (2, 2, 0.5)


def test_every_object_is_counted_once():
    pair = [instance(SQUARE, 0, quality=0.4), instance(SQUARE, 1, category_id=7)]
    mixed = replace(record("b", pair), verdicts=(Verdict(), Verdict("min_area: 1 < 9 px")))
    counted = tally([record("a", pair), mixed, record("c"), failed("d")], Limits())
    assert dict(counted.status) == {"ok": 2, "empty": 1, "failed": 1}
    assert (counted.kept, dict(counted.dropped)) == (3, {"min_area": 1})
    assert {i: (c.kept, c.dropped, c.pictures) for i, c in counted.classes.items()} == {3: (2, 0, 2), 7: (1, 1, 1)}
    assert sum(counted.sizes) == sum(counted.by_size.values()) == 3
    assert dict(counted.objects_per_picture) == {2: 1, 1: 1, 0: 1}
    assert [f.code for f in counted.failures] == ["corrupt"]


def test_quality_ranks_where_there_is_some_and_predicted_iou_elsewhere():
    by_iou = [record(f"{i}", [instance(SQUARE, predicted_iou=i / 10)]) for i in range(10)]
    counted = tally(by_iou, Limits(gallery=2))
    assert counted.ranked_by == "predicted_iou"
    assert [f.record.image_id for f in counted.worst() + counted.best()] == ["0", "1", "9", "8"]
    by_quality = [record(f"{i}", [instance(SQUARE, predicted_iou=i / 10, quality=1 - i / 10)]) for i in range(10)]
    assert [f.record.image_id for f in tally(by_quality, Limits(gallery=1)).worst()] == ["9"]
    assert tally([], Limits()).ranked_by is None


def test_what_is_chosen_does_not_depend_on_the_order(tmp_path):
    some = [record(f"{i:03}", [instance(SQUARE, quality=(i * 7 % 40) / 40)]) for i in range(40)]

    def chosen(records):
        found = tally(records, Limits(gallery=5))
        return [f.record.image_id for f in found.worst() + found.best()] + [r.image_id for r in found.random()]

    assert chosen(some) == chosen(some[::-1])
    assert chosen(some) != [f.image_id for f in some[:15]]


def test_equal_files_are_one_group_and_only_the_first_is_compared():
    info = replace(record("x").info, sha256="ab" * 32)
    same = [
        replace(record(name), info=info, split=split)
        for name, split in (("a", "train"), ("b", "val"), ("c", "val"))
    ]
    counted = tally([*same, record("d")], Limits())
    (group,) = counted.copies.groups()
    assert (group.image_ids, group.splits) == (("a", "b", "c"), {"train", "val"})
    assert [r.image_id for r in counted.copies.chosen()] == ["a", "d"]


def test_many_pictures_are_compared_in_blocks_of_neighbours():
    chosen = tally((record(f"{i:05}") for i in range(40 * BLOCK)), Limits(hashed=3 * BLOCK)).copies.chosen()
    numbers = sorted(int(r.image_id) for r in chosen)
    assert len(numbers) == 3 * BLOCK
    assert sum(b - a == 1 for a, b in pairwise(numbers)) >= 3 * (BLOCK - 1)
    assert tally([record("a")], Limits(hashed=0)).copies.chosen() == []


def test_numbers_hold_no_pictures_of_objects():
    chosen = tally([record("a", [instance(SQUARE)])], Limits()).copies.chosen()
    assert [r.candidates for r in chosen] == [()]


def test_an_object_that_is_asked_for_is_handed_out_with_its_final_mask():
    other = instance(disc(120, 160, 60, 60, 5)).mask
    one = replace(record("a", [instance(SQUARE)]), verdicts=(Verdict(mask=other),))
    found = tally([one], Limits(), {"a": [0, 5], "b": [0]}).found
    assert list(found) == [("a", 0)]
    assert found["a", 0].instance.mask == other


@settings(max_examples=50)
@given(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4), st.integers(1, 300), st.integers(1, 300))
def test_a_window_lies_in_the_picture_whatever_the_box(box, height, width):
    x0, y0, x1, y1 = window_around(box, (height, width))
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


def test_a_window_holds_its_box():
    x0, y0, x1, y1 = window_around((300, 10, 340, 200), (400, 600))
    assert x0 <= 300
    assert (y0, y1 >= 200, x1 >= 340) == (0, True, True)
    assert (x1 - x0) / (y1 - y0) == pytest.approx(4 / 3, abs=0.02)


@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (-50, -50, 1e6, 1e6), (np.nan,) * 4, (500, 500, 600, 600), (1e30,) * 4]
)
def test_any_box_and_mask_can_be_drawn(box):
    image = np.full((40, 60, 3), 99, np.uint8)
    objects = [
        instance(disc(40, 60, 55, 35, 3), box_xyxy=box),
        instance(np.zeros((40, 60), np.uint8), 1, box_xyxy=box),
    ]
    for window in (None, (0, 0, 4, 4), (50, 30, 60, 40)):
        drawn = draw(image, objects, window=window, boxes=True)
        assert drawn.picture.startswith("data:image/webp;base64,")
        assert max(drawn.width, drawn.height) <= 480


def test_a_bare_picture_has_no_second_layer():
    assert draw(np.zeros((9, 9, 3), np.uint8), []).overlay == ""


def test_failures_beyond_the_limit_are_counted():
    counted = tally(
        [failed(f"{i}") for i in range(9)] + [ImageRecord("s", "s", "skipped", code="no")], Limits(failures=3)
    )
    assert (len(counted.failures), counted.status["failed"], counted.codes["skipped: no"]) == (3, 9, 1)
