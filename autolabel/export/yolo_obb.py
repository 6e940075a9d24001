"""YOLO oriented boxes for the ultralytics loader: `class x1 y1 x2 y2 x3 y3 x4 y4` an object, in fractions of the
upright picture. What stands around the rows is yolo_tree.py's.

The box is the smallest rectangle that holds the mask's pixels, however it is turned; its corners stand in the
order in which ultralytics writes them. A corner may lie outside the picture, where an object is cut off by its
edge; the loader takes that as long as the rectangle's width and height stay below those of the picture. Where
they do not, the next larger rectangle is taken, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, Instance
from autolabel.export.classes import class_number
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import NOT_AS_WRITTEN
from autolabel.export.reporting import noted
from autolabel.export.splits import Splits
from autolabel.export.ultralytics_reader import Loaded
from autolabel.export.yolo_tree import class_numbers, tree_of
from autolabel.ops.masks import area_px, mask_of
from autolabel.ops.turned_boxes import Float64, hull_xy, rectangle_area, rectangles_around

_OUTSIDE = 0.009
"""The part of the picture that a box may reach beyond it; the loader's own tolerance is 0.01."""
_ROUNDING_PX = 0.01
"""What the loader's float32 fractions may cost in a large picture."""
_NOTES = {
    "boxes_enlarged": "{} smallest [box reaches|boxes reach] too far out of the picture for the loader; the next larger is taken"
}


class YoloObbExporter:
    """Writes the data set; see configs/export/yolo_obb.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["copy", "link", "upright"],
        empty_images: Literal["keep", "drop", "found_none"],
        parts: Literal["keep", "largest", "split"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
        val_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: bool,
        group_by: str | None,
    ) -> None:
        self._policy = policy_of(parts=parts, min_area_px=min_area_px, crowd=crowd)
        splits = Splits(
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            stratify=stratify,
            group_by=group_by,
        )
        self._tree = tree_of(
            "yolo_obb", images=images, empty_images=empty_images, policy=self._policy, splits=splits
        )

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the data set into `directory`. The records are read three times: for the splits, the names and
        the rows."""
        counts: Counter[str] = Counter()
        classes, tally = class_numbers(run), _Filled()

        def rows(record: ImageRecord) -> list[str]:
            instances = prepared(record, self._policy, counts)
            return [_row(instance, record, classes, counts, tally) for instance in instances]

        def notes() -> list[str]:
            return [*noted(counts, POLICY_NOTES, _NOTES), *tally.note()]

        return self._tree.export(run, directory, rows, counts, notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The rectangles as the loader makes them of the rows, against the smallest around each mask."""
        return self._tree.read_back(run, directory, self._policy, _fit, _why, as_given=True)


class _Filled:
    """How much of their boxes the masks fill: the IoU of the two, since the box holds the mask."""

    def __init__(self) -> None:
        self._sum, self._count, self._lowest = 0.0, 0, (2.0, "")

    def add(self, iou: float, image_id: str) -> None:
        self._sum, self._count = self._sum + iou, self._count + 1
        self._lowest = min(self._lowest, (iou, image_id))

    def note(self) -> list[str]:
        if not self._count:
            return []
        low, image_id = self._lowest
        return [f"IoU of boxes and masks: {self._sum / self._count:.3f} on average, {low:.3f} in {image_id!r}"]


def _row(
    instance: Instance, record: ImageRecord, classes: Mapping[int, int], counts: Counter[str], tally: _Filled
) -> str:
    box, is_smallest = _box(instance)
    counts["boxes_enlarged"] += not is_smallest
    tally.add(min(1.0, area_px(mask_of(instance)) / rectangle_area(box)), record.image_id)
    numbers = " ".join(f"{value:.9g}" for value in _fractions(box, mask_of(instance).size_hw).ravel().tolist())
    return f"{class_number(classes, instance, record)} {numbers}"


def _box(instance: Instance) -> tuple[Float64, bool]:
    """The smallest rectangle that the loader takes, and whether it is the smallest of all. The upright one is
    always taken, so there is one."""
    found = rectangles_around(hull_xy(mask_of(instance)))
    at = next(i for i, box in enumerate(found) if _is_taken(_fractions(box, mask_of(instance).size_hw)))
    return found[at], at == 0


def _fractions(box: Float64, size_hw: tuple[int, int]) -> Float64:
    return box / np.array(size_hw[::-1], np.float64)


def _is_taken(corners: Float64) -> bool:
    """Whether the loader takes the corners' box: centre and size each between 0 and 1, with its tolerance."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    values = np.concatenate([(low + high) / 2, high - low])
    return bool(values.min() >= -_OUTSIDE and values.max() <= 1 + _OUTSIDE)


def _fit(instance: Instance, read: Loaded, row: int) -> float:
    corners = read.segments[row] * np.array(mask_of(instance).size_hw[::-1], np.float32)
    found = cv2.boxPoints(cv2.minAreaRect(corners))  # the loader makes its centre, size and angle of the same
    hull = hull_xy(mask_of(instance)).astype(np.float32)
    smallest = cv2.boxPoints(cv2.minAreaRect(hull))
    # Two rectangles of one size may both be the smallest; what counts is that all of the mask is in a small one.
    held = cv2.intersectConvexConvex(hull, found)[0] / cv2.contourArea(hull)
    iou = min(1.0, held) * min(1.0, cv2.contourArea(smallest) / cv2.contourArea(found))
    shortest = max(1.0, min(cv2.minAreaRect(hull)[1]))
    return 1.0 if iou > 1 - _ROUNDING_PX / shortest else float(iou)


def _why(instance: Instance) -> str:
    return NOT_AS_WRITTEN if _box(instance)[1] else "not the smallest box"
