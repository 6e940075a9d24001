"""What the benchmarks call near to the reference; what cannot be told never counts as that."""

import numpy as np
import pytest

from autolabel.core.types import Prompts
from autolabel.ops.masks import encode
from benchmarks.parity import LIMITS, Answer, cells, choices, flips, parity
from tests.unit.test_segment_sam2 import BOXES, frame, segmenter

EXACT, HALF = LIMITS["float32"], LIMITS["bfloat16"]


def block(width: int, score: float = 0.5) -> Answer:
    mask = np.zeros((20, 100), np.uint8)
    mask[:, :width] = 1
    return Answer(encode(mask), score)


def test_equal_answers_are_within_any_limits():
    some = [[block(50), block(20)], [], [block(3)]]
    found = parity(some, some, [0, 1, 3], [0, 1, 3])
    assert (found.prompts, found.mean, found.least, found.identical, found.flipped) == (3, 1, 1, 3, 0)
    assert found.within(EXACT) is True
    assert cells(found, EXACT)["within its limits"] == "yes"


@pytest.mark.parametrize("choices", [[], [0], [0, 0, 0]])
def test_choices_that_are_not_one_a_prompt_never_read_as_yes(choices):
    some = [[block(50), block(20)]]
    found = parity(some, some, [0, 0], choices)
    assert found.flipped is None
    assert found.within(EXACT) is None
    assert cells(found, EXACT)["within its limits"] == "**unknown**"
    assert flips(choices, choices, 2) is None


def test_nothing_to_compare_never_reads_as_yes():
    assert parity([], [], [], []) is None
    assert cells(None, EXACT, "polygons only")["within its limits"] == ""
    assert (
        cells(None, EXACT, "polygons only").keys()
        == cells(parity([[block(1)]], [[block(1)]], [0], [0]), EXACT).keys()
    )


def test_an_unanswered_prompt_is_a_miss_and_shifts_no_other():
    found = parity([[block(50), block(20)]], [[None, block(20)]], [0, 0], [0, 0])
    assert (found.unanswered, found.identical, found.least) == (1, 1, 0)
    assert found.within(HALF) is False


def test_a_flip_costs_float32_its_verdict_and_bfloat16_one_in_two_hundred():
    some = [[block(50)] * 200]
    one = parity(some, some, [0] * 200, [0] * 199 + [2])
    two = parity(some, some, [0] * 200, [0] * 198 + [2, 2])
    assert [one.within(EXACT), one.within(HALF), two.within(HALF)] == [False, True, False]


def test_one_bad_mask_in_a_hundred_shows_in_the_first_percentile():
    found = parity([[block(100)] * 50], [[block(100)] * 49 + [block(90)]], [0] * 50, [0] * 50)
    assert found.mean > EXACT.mean - 0.01
    assert found.least == pytest.approx(0.9)
    assert found.within(HALF) is False


def test_scores_are_compared_answer_by_answer():
    found = parity([[block(5, 0.5), block(5, 0.25)]], [[block(5, 0.75), block(5, 0.25)]], [0, 0], [0, 0])
    assert (found.score_largest, found.score_mean) == (0.25, 0.125)


def test_answers_about_other_pictures_are_refused():
    with pytest.raises(ValueError, match="zip"):
        parity([[block(5)]], [[block(5)], [block(5)]], [0], [0, 0])


def test_choices_of_padded_buckets_are_those_of_the_real_prompts():
    """Of three boxes in a bucket of four, and of seven, a full one and another such."""
    asked = [Prompts(boxes_xyxy=np.tile(BOXES, (3, 1))[:n]) for n in (3, 7)]
    frames, chosen = [frame(seed) for seed in range(2)], {}
    for batching in ("image", "bucket"):
        model = segmenter("nano", "nano_segmenter", batching=batching, prompt_chunk=4, encode_batch=1)
        with choices() as chosen[batching]:
            model.segment(frames, asked)
    assert len(chosen["image"]) == 10
    assert chosen["bucket"] == chosen["image"]


def test_watching_ends_with_its_block():
    from sam2.modeling.sam.mask_decoder import MaskDecoder

    before = MaskDecoder._dynamic_multimask_via_stability
    with choices():
        assert MaskDecoder._dynamic_multimask_via_stability is not before
    assert MaskDecoder._dynamic_multimask_via_stability is before
