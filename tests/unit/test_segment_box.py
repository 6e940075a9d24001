"""The filled box as a mask."""

from __future__ import annotations

import numpy as np
import pytest

from autolabel.core.types import Frame, ImageInfo, ImageRef, Prompts
from autolabel.ops.masks import encode
from autolabel.segment.box import BoxSegmenter, box_rle


@pytest.mark.parametrize(
    ("box", "columns"),
    [((1, 0, 3, 4), [1, 2]), ((0.6, 0, 2.4, 4), [1]), ((0.5, 0, 1.5, 4), [0]), ((0, 0, 6, 4), list(range(6)))],
)
def test_a_pixel_is_in_when_its_centre_is_in_the_half_open_box(box, columns):
    mask = np.zeros((4, 6), np.uint8)
    mask[:, columns] = 1
    assert box_rle(np.array(box, np.float32), (4, 6)) == encode(mask)


@pytest.mark.parametrize("box", [(0.6, 0, 1.4, 4), (3, 3, 1, 1), (-9, -9, 0, 0), (6, 4, 99, 99), (5.6, 3.6, 9, 9)])
def test_a_box_without_a_pixels_centre_in_the_picture_is_empty(box):
    assert box_rle(np.array(box, np.float32), (4, 6)) == encode(np.zeros((4, 6), np.uint8))


def test_prompts_without_a_finite_box_go_unanswered():
    frame = Frame(ImageRef("a", "a"), np.zeros((4, 6, 3), np.uint8), ImageInfo(6, 4))
    asked = Prompts(boxes_xyxy=np.array([[0, 0, 2, 2], [np.nan, 0, 2, 2], [1, 1, 3, 3]], np.float32))
    points = Prompts(points_xy=np.zeros((1, 1, 2), np.float32), point_signs=np.ones((1, 1), np.int64))
    found = BoxSegmenter().segment([frame, frame], [asked, points])
    assert [[answer.prompt for answer in answers] for answers in found] == [[0, 2], []]
