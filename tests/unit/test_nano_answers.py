"""The answers that a quality score is fitted on: every object twice, with its true mask beside it."""

import cv2
import numpy as np

from autolabel.ops.masks import area_px
from autolabel.segment.box import BoxSegmenter
from scripts.nano.answers import answers
from tests.scenes import CAT, DOG, SIZE, at, ref


def test_every_object_is_asked_for_with_its_true_box_and_a_moved_one(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((*SIZE, 3), np.uint8))
    picture = ref(str(path), [(CAT, at(40, 50)), (DOG, at(110, 60, 30))])
    # The first picture is asked with boxes around the boxes too, the second is not.
    first, second = answers(BoxSegmenter(), [picture, picture])
    assert [one.instance.agreement is None for one in (*first, *second)] == [False] * 4 + [True] * 4
    for found in (first, second):
        assert [one.instance.category_id for one in found] == [CAT, DOG, CAT, DOG]
        # A disc fills pi / 4 of its box.
        assert np.allclose([one.iou for one in found[:2]], np.pi / 4, atol=0.05)
        assert [area_px(one.instance.mask) for one in found[:2]] != [
            area_px(one.instance.mask) for one in found[2:]
        ]
