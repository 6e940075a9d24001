"""What a person holds of one labelled picture: every array has a row a kept object."""

from dataclasses import replace

import numpy as np

from autolabel import Result
from autolabel.core.types import Verdict
from autolabel.ops.masks import encode
from tests.records import CATEGORIES, disc, failed, instance, record


def test_boxes_are_those_of_the_masks_as_refined_and_detection_boxes_those_of_the_detector():
    whole, half, nothing = (disc(40, 60, 20, 20, 8) for _ in range(3))
    half[:, 20:] = 0
    nothing[:] = 0
    loose = (5.5, 6.0, 33.0, 34.5)
    some = record("a.png", [instance(whole, i, box_xyxy=loose) for i in range(4)])
    verdicts = (
        Verdict(),
        Verdict("min_score: on purpose"),
        Verdict(mask=encode(half)),
        Verdict(mask=encode(nothing)),
    )
    result = Result(replace(some, verdicts=verdicts), CATEGORIES)
    assert result.boxes.tolist() == [[12, 12, 29, 29], [12, 13, 20, 28], [0, 0, 0, 0]]
    assert result.detection_boxes.tolist() == [list(loose)] * 3
    for rows in (result.masks, result.classes, result.category_ids, result.scores):
        assert len(rows) == 3
    for box, mask in zip(result.boxes[:2].astype(int).tolist(), result.masks[:2], strict=True):
        assert mask[box[1] : box[3], box[0] : box[2]].sum() == mask.sum()


def test_a_picture_without_labels_has_no_rows():
    for one in (record("a.png"), failed("b.png")):
        result = Result(one, CATEGORIES)
        assert result.boxes.shape == result.detection_boxes.shape == (0, 4)
        assert result.boxes.dtype == result.detection_boxes.dtype == np.float32
        assert len(result.masks) == 0
