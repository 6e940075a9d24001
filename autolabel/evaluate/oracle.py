"""Runs whose boxes are the truth's own: which annotation asked for which mask. So that a segmenter's failures count
as failures, objects are then paired by annotation and not by how well they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autolabel.core.types import ImageRecord, Labels
from autolabel.evaluate.scene import Scene, box_ious
from autolabel.ops.annotations import Canvas
from autolabel.ops.boxes import box_problem

SAME_BOX_IOU = 0.5
"""Below, a candidate's box is not that of the annotation with its number."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Candidate indices to positions among the annotations; `problem` says why they cannot be the same ones."""

    rows: Mapping[int, int]
    problem: str | None = None

    def kept(self, scene: Scene) -> dict[int, int]:
        """Found objects of a scene to its true ones, by position."""
        truth = {one.index: t for t, one in enumerate(scene.truth)}
        rows = {f: self.rows[one.index] for f, one in enumerate(scene.found)}
        return {f: truth[row] for f, row in rows.items() if row in truth}


def pairs_of(record: ImageRecord, labels: Labels) -> Pairs:
    """By annotation id where the truth has them, else by position; the boxes must agree.

    Raises ImageError when the labels do not fit the picture.
    """
    assert record.info is not None
    if len(record.candidates) != len(labels):
        return Pairs({}, f"{len(record.candidates)} objects, the truth has {len(labels)}")
    by_id = {id_: row for row, id_ in enumerate(labels.source_ids) if id_ is not None}
    boxes = Canvas(labels, record.info).boxes(labels.boxes_xyxy)
    rows = {}
    for one in record.candidates:
        row = by_id.get(one.source_id) if by_id and one.source_id is not None else one.index
        if row is None:
            return Pairs({}, f"annotation {one.source_id} is not in the truth")
        if box_problem(boxes[row], record.info.size_hw) is None:
            x0, y0, x1, y1 = (float(v) for v in boxes[row])
            same = box_ious([one.box_xyxy], [(x0, y0, x1, y1)], np.zeros(1, np.bool_))[0, 0]
            if same < SAME_BOX_IOU:
                return Pairs({}, f"object {one.index} has another box than its annotation")
        rows[one.index] = row
    return Pairs(rows)
