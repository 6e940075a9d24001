"""Boxes to questions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autolabel.core.types import Detections, Frame, ImageInfo, ImageRef
from autolabel.prompt.box import BoxPrompter, pad_xyxy


def frame(height: int = 40, width: int = 60) -> Frame:
    image = np.zeros((height, width, 3), np.uint8)
    return Frame(ImageRef("a b.jpg", "a b.jpg"), image, ImageInfo(width, height))


def boxes(*rows: tuple[float, ...]) -> Detections:
    array = np.array(rows, np.float32).reshape(-1, 4)
    return Detections(array, np.ones(len(array), np.float32), np.ones(len(array), np.int64))


def test_without_padding_the_prompt_is_the_box():
    found = boxes((1, 2, 30, 20), (0, 0, 60, 40))
    (prompts,) = BoxPrompter(pad=0.0).prompt([frame()], [found], [(0, 1)])
    assert np.array_equal(prompts.boxes_xyxy, found.boxes_xyxy)
    assert prompts.boxes_xyxy.dtype == np.float32


def test_only_what_wants_a_mask_is_asked_for_by_its_number():
    found = boxes((1, 2, 30, 20), (0, 0, 60, 40), (5, 5, 9, 9))
    (prompts,) = BoxPrompter(pad=0.0).prompt([frame()], [found], [(0, 2)])
    assert prompts.objects.tolist() == [0, 2]
    assert np.array_equal(prompts.boxes_xyxy, found.boxes_xyxy[[0, 2]])


def test_padding_is_a_fraction_of_the_box_and_stays_in_the_image():
    padded = pad_xyxy(boxes((10, 10, 30, 20), (50, 30, 60, 40)).boxes_xyxy, 0.5, (40, 60))
    assert padded.tolist() == [[0, 5, 40, 25], [45, 25, 60, 40]]


def test_every_image_has_its_own_prompts_and_none_stay_none():
    found = [boxes(), boxes((1, 1, 2, 2)), boxes()]
    asked = BoxPrompter(pad=0.1).prompt([frame(), frame(), frame()], found, [(), (0,), ()])
    assert [len(prompts) for prompts in asked] == [0, 1, 0]


def test_a_box_that_is_not_a_number_stays_one():
    assert np.isnan(pad_xyxy(np.full((1, 4), np.nan, np.float32), 0.1, (40, 60))).all()


@given(
    corners=arrays(np.float32, (3, 2, 2), elements=st.floats(0, 1, width=32)),
    pad=st.floats(0, 1),
)
def test_a_padded_box_holds_the_box(corners, pad):
    inside = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1) * np.float32(40)
    padded = pad_xyxy(inside, pad, (40, 40))
    assert (padded[:, :2] <= inside[:, :2]).all()
    assert (padded[:, 2:] >= inside[:, 2:]).all()
    assert padded.min() >= 0
    assert padded.max() <= 40
