import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autolabel.core.types import Columns
from autolabel.ops.annotation_rows import AnnotationRows
from autolabel.ops.masks import encode
from autolabel.ops.outline import annotation_text
from tests.records import shapes

PIXEL = encode(np.ones((1, 1), np.uint8))


def columns(masks, scores=None, ious=None):
    n = len(masks)
    return Columns([3] * n, scores or [0.5] * n, ious or [None] * n, [mask.counts for mask in masks])


def taken(*added):
    rows = AnnotationRows()
    for one in added:
        rows.add(*one)
    return rows.taken()


def test_images_of_several_sizes_at_once_are_each_one_alone():
    small, large = [encode(mask) for mask in shapes().values()], [encode(np.eye(300, 1200, dtype=np.uint8))]
    images = [(1, 1, (120, 160), columns(small)), (12, 345, (300, 1200), columns(large, ious=[0.25]))]
    assert taken(*images) == b",\n".join(taken(image) for image in images)


def test_a_row_is_one_line_of_json_with_what_is_known_of_its_mask():
    masks = [encode(mask) for mask in shapes().values()]
    rows = taken((7, 20, (120, 160), columns(masks))).split(b"\n")
    for number, (row, mask) in enumerate(zip(rows, masks, strict=True), 20):
        beside = {"id": number, "image_id": 7, "category_id": 3, "iscrowd": 0, "score": 0.5}
        assert json.loads(row.rstrip(b",")) == {**beside, **json.loads(b"{%b}" % annotation_text(mask))}


@settings(max_examples=500)
@given(st.one_of(st.floats(0, 1), st.floats(0, 1, width=32), st.integers(0, 2**20).map(lambda n: n / 2**20)))
@example(0.0078125)  # half a millionth, and nothing lost: to the even one
@example(1e-07)
@example(1.25e-05)
@example(0.9999995)
def test_scores_are_written_as_python_rounds_and_writes_them(score):
    row = taken((1, 1, (1, 1), columns([PIXEL], [score], [score])))
    assert row.endswith(b',"score":%a,"predicted_iou":%a}' % ((round(score, 6),) * 2))


@settings(max_examples=300)
@given(st.integers(0, 999_999), st.sampled_from([-2, -1, 0, 1, 2]))
def test_a_score_beside_the_middle_of_two_millionths_goes_to_the_nearer_one(millionths, steps):
    score = (millionths + 0.5) / 1e6
    for _ in range(abs(steps)):
        score = float(np.nextafter(score, float(np.sign(steps))))
    row = taken((1, 1, (1, 1), columns([PIXEL], [score])))
    assert row.endswith(b',"score":%a}' % round(score, 6))


def test_run_lengths_that_do_not_cover_their_image_are_an_error():
    with pytest.raises(ValueError, match="do not cover the 2x2 px"):
        taken((1, 1, (1, 1), columns([PIXEL])), (2, 2, (2, 2), columns([PIXEL])))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1e-9, 1.5])
@pytest.mark.parametrize("place", range(3))
def test_a_score_that_is_none_makes_columns_unsound_wherever_it_stands(wrong, place):
    scores, masks = [0.0, 0.5, 1.0], [PIXEL] * 3
    assert columns(masks, scores, [None, *scores[1:]]).is_sound
    scores[place] = wrong
    assert not columns(masks, scores).is_sound
    assert not columns(masks, None, scores).is_sound
