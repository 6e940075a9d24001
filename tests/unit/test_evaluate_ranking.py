"""Risk-coverage, rank correlation and calibration, by hand and by their definitions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.evaluate.ranking import aurc, ranking, spearman
from tests.scenes import CAT, at, judge, ref, run, run_record, truth

VALUES = st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=5)


def curve_area(ious):
    """Of masks in this order."""
    return float(np.mean([np.mean([1 - i for i in ious[: k + 1]]) for k in range(len(ious))]))


def test_the_area_of_three_masks_by_hand():
    assert aurc(np.array([0.9, 0.5, 0.7]), np.array([1.0, 0.0, 0.4])) == pytest.approx((0 + 0.6 / 2 + 1.6 / 3) / 3)


@settings(max_examples=40)
@given(VALUES)
def test_equal_scores_count_as_the_mean_over_all_orders(pairs):
    scores, ious = zip(*pairs, strict=True)
    orders = [p for p in itertools.permutations(pairs) if [s for s, _ in p] == sorted(scores, reverse=True)]
    expected = np.mean([curve_area([i for _, i in p]) for p in orders])
    assert aurc(np.array(scores, float), np.array(ious)) == pytest.approx(expected)


@settings(max_examples=40)
@given(VALUES)
def test_no_score_is_better_than_the_iou_itself(pairs):
    found = ranking([s / 4 for s, _ in pairs], [i for _, i in pairs])
    assert found.aurc_best <= found.aurc + 1e-12
    assert found.aurc_best <= found.aurc_random + 1e-12
    assert sum(b.count for b in found.bins) == found.count == len(pairs)


def test_a_constant_score_is_as_good_as_chance_and_has_no_correlation():
    found = ranking([0.5] * 4, [0.1, 0.9, 0.4, 0.6])
    assert found.aurc == pytest.approx(found.aurc_random)
    assert found.spearman is None


def test_rank_correlation_by_hand_with_equals():
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 40])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert spearman(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_bins_hold_the_score_one_and_say_null_where_there_is_nothing():
    bins = ranking([0.0, 0.05, 1.0], [0.2, 0.4, 0.9]).bins
    assert (bins[0].count, bins[0].mean_score, bins[0].mean_iou) == (2, pytest.approx(0.025), pytest.approx(0.3))
    assert (bins[5].count, bins[5].mean_score, bins[5].mean_iou) == (0, None, None)
    assert bins[9].count == 1


def test_masks_are_ranked_that_a_right_box_asked_for_also_those_that_fail():
    good, poor = at(40, 60), at(120, 60, 6)
    refs = [ref("a.jpg", [(CAT, good), (CAT, at(120, 60))])]
    first = run_record("a.jpg", [(CAT, good), (CAT, poor)], [0.9, 0.8], box_xyxy=(20.0, 40.0, 61.0, 81.0))
    moved = replace(first.candidates[1], box_xyxy=(100.0, 40.0, 141.0, 81.0), predicted_iou=0.3)
    records = [replace(first, candidates=(first.candidates[0], moved))]
    found = judge(run(records), truth(refs))
    assert found.ranking["predicted_iou"].count == 2
    assert found.ranking["predicted_iou"].spearman == pytest.approx(1)
    assert "quality" not in found.ranking
    s = found.separation
    assert (s.truth, s.no_box, s.poor_mask, s.good) == (2, 0, 1, 1)
