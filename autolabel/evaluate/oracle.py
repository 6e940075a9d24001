"""Runs whose boxes are the truth's own: which annotation asked for which mask. So that a segmenter's failures count
as failures, objects are then paired by annotation and not by how well they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autolabel.core.text import counted
from autolabel.core.types import ImageRecord, Labels
from autolabel.evaluate.classes import Classes
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


def pairs_of(record: ImageRecord, labels: Labels, classes: Classes) -> Pairs:
    """By annotation id where both sides have them, else by position; the boxes must agree. Annotations that are no
    candidate are of a class that the run left out, or came into the truth since.

    Raises ImageError when the labels do not fit the picture.
    """
    assert record.info is not None
    pairs = _by_id(record, labels) or _by_position(record, labels, classes)
    if pairs.problem is not None:
        return pairs
    boxes = Canvas(labels, record.info).boxes(labels.boxes_xyxy)
    for one in record.candidates:
        row = pairs.rows[one.index]
        if box_problem(boxes[row], record.info.size_hw) is None:
            x0, y0, x1, y1 = (float(v) for v in boxes[row])
            same = box_ious([one.box_xyxy], [(x0, y0, x1, y1)], np.zeros(1, np.bool_))[0, 0]
            if same < SAME_BOX_IOU:
                return Pairs({}, f"object {one.index} has a different box from its annotation")
    return pairs


def _by_id(record: ImageRecord, labels: Labels) -> Pairs | None:
    """None where the annotations or one of the candidates have no ids."""
    rows = {id_: row for row, id_ in enumerate(labels.source_ids) if id_ is not None}
    ids = {one.index: one.source_id for one in record.candidates}
    if not rows or None in ids.values():
        return None
    stray = next((id_ for id_ in ids.values() if id_ not in rows), None)
    if stray is not None:
        return Pairs({}, f"annotation {stray} is not in the ground truth")
    return Pairs({index: rows[id_] for index, id_ in ids.items() if id_ is not None})


def _by_position(record: ImageRecord, labels: Labels, classes: Classes) -> Pairs:
    """Among all annotations, or else among those of the classes that the run knows."""
    every = range(len(labels))
    for rows in (every, [row for row in every if int(labels.category_ids[row]) in classes.truth]):
        if len(rows) == len(record.candidates):
            return Pairs({one.index: row for one, row in zip(record.candidates, rows, strict=True)})
    return Pairs({}, counted(len(record.candidates), "{} object[|s], the ground truth has {}", len(labels)))
