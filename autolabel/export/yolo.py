"""YOLO segmentation for the ultralytics loader: one object is one row, `class x y x y ...`, in fractions of the
upright picture. What stands around the rows is yolo_tree.py's.

That loader rotates JPEG and PNG pictures as their EXIF tag says, so those are copied as they are; the others
with an orientation are written upright. Pictures are copied by default: the loader rewrites, in place and
through a link, a JPEG that does not end with its end marker, and somebody's pictures are not ours to change.
With `link`, such a picture is copied all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import Float32, ImageRecord, Instance, Rle
from autolabel.export.classes import class_number
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import NOT_AS_WRITTEN
from autolabel.export.reporting import noted
from autolabel.export.source_polygons import SOURCE_POLYGON_NOTES, own_polygons, stay
from autolabel.export.splits import Splits
from autolabel.export.ultralytics_reader import Loaded
from autolabel.export.yolo_tree import class_numbers, tree_of
from autolabel.ops.masks import mask_of
from autolabel.ops.outline import centre_texts
from autolabel.ops.polygons import YoloRing, yolo_iou, yolo_ring
from autolabel.ops.settings import flag, fraction, number, optional
from autolabel.ops.simplify import Points, simplify_rings

_SURE_PX = 100_000
"""Up to this side six decimals, read as float32, lie within the pixel that they were written for."""

_NOTES = {
    "bridged_objects": "{} [object|objects] of several parts [is|are] joined by lines one pixel wide",
    "parts_left_out": "{} far [part smaller than the line it would need is left out of its|parts smaller than the line they would need are left out of their] object",
}


class YoloExporter:
    """Writes the data set; see configs/export/yolo.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["copy", "link", "upright"],
        empty_images: Literal["keep", "drop", "found_none"],
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["keep", "score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
        keep_far_parts: bool,
        simplify_iou: float | None,
        warn_iou: float = 0.98,
        val_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: bool,
        group_by: str | None,
    ) -> None:
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)
        self._keep_far_parts = flag("keep_far_parts", keep_far_parts)
        self._least_iou = optional(number, "simplify_iou", simplify_iou, 0, 1, above=True)
        self._warn_iou = fraction("warn_iou", warn_iou)
        splits = Splits(
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            stratify=stratify,
            group_by=group_by,
        )
        self._tree = tree_of("yolo", images=images, empty_images=empty_images, policy=self._policy, splits=splits)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the data set into `directory`. The records are read three times: for the splits, the names and
        the rows."""
        tally = _Tally(self._warn_iou)
        classes = class_numbers(run)

        def rows(record: ImageRecord) -> list[str]:
            objects = prepared(record, self._policy, tally.counts)
            texts = self._plain_texts(objects)
            return [
                f"{class_number(classes, one, record)} {text or self._points(one, tally, record.image_id)}"
                for one, text in zip(objects, texts, strict=True)
            ]

        return self._tree.export(run, directory, rows, tally.counts, tally.notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The masks that the ultralytics loader makes of the rows."""

        def fit(instance: Instance, read: Loaded, row: int) -> float:
            return yolo_iou(read.segments[row], mask_of(instance))

        as_given = self._policy.parts == "split"
        return self._tree.read_back(run, directory, self._policy, fit, self._why, as_given=as_given)

    def _plain_texts(self, objects: Sequence[Instance]) -> list[str | None]:
        """The points of objects of one part without holes, for which the row is exact and need not be measured; None
        for those that need a closer look."""
        if not objects or self._least_iou is not None or max(mask_of(objects[0]).size_hw) > _SURE_PX:
            return [None] * len(objects)
        height, width = mask_of(objects[0]).size_hw
        texts = centre_texts([mask_of(one) for one in objects], _numbers(width)[0], _numbers(height)[0])
        return [None if _own_polygon(one) is not None else text for one, text in zip(objects, texts, strict=True)]

    def _points(self, instance: Instance, tally: _Tally, image_id: str) -> str:
        mask = mask_of(instance)
        own = self._as_it_came(instance, tally.counts)
        if own is not None:
            text, found = own
            tally.measured(found, image_id)
            return text
        ring = yolo_ring(mask, keep_far_parts=self._keep_far_parts)
        tally.counts["bridged_objects"] += ring.bridge_px > 0
        tally.counts["parts_left_out"] += ring.left_out
        tally.counts["parts_left_out_px"] += ring.left_out_px
        if self._least_iou is not None or max(mask.size_hw) > _SURE_PX:
            text, found = _written(self._simplified(ring.points_xy, mask), mask, "%.6f")
        else:
            text, found = _written_exactly(ring, mask)
        tally.measured(found, image_id)
        return text

    def _as_it_came(self, instance: Instance, counts: Counter[str]) -> tuple[str, float] | None:
        """The source's own polygon as a row, where it stays, and the IoU of what the loader makes of it."""
        own = _own_polygon(instance)
        if own is None:
            return None
        text, found = _written(own, mask_of(instance), "%.9g")
        return (text, found) if stay(found, self._warn_iou, counts) else None

    def _simplified(self, points_xy: Points, mask: Rle) -> Points:
        if self._least_iou is None:
            return points_xy

        def measure(rings: Sequence[Points]) -> float:
            return _written(rings[0], mask, "%.6f")[1]

        return simplify_rings([points_xy], self._least_iou, measure)[0][0]

    def _why(self, instance: Instance) -> str:
        if self._as_it_came(instance, Counter()) is not None:
            return "the source's own polygon"
        ring = yolo_ring(mask_of(instance), keep_far_parts=self._keep_far_parts)
        words = ["parts joined by lines"] if ring.bridge_px else []
        words += ["far part left out"] if ring.left_out else []
        words += ["simplified"] if self._least_iou is not None else []
        return ", ".join(words) or NOT_AS_WRITTEN


class _Tally:
    """What the report says, counted while writing."""

    def __init__(self, warn_iou: float) -> None:
        self.counts: Counter[str] = Counter()
        self._warn_iou = warn_iou
        self._lowest = (1.0, "")

    def measured(self, found: float, image_id: str) -> None:
        self.counts["below_warn_iou"] += found < self._warn_iou
        self._lowest = min(self._lowest, (found, image_id))

    def notes(self) -> list[str]:
        low = {
            "below_warn_iou": f"{{}} [object comes|objects come] back from the loader with an IoU below {self._warn_iou:g}"
        }
        lines = noted(self.counts, POLICY_NOTES, SOURCE_POLYGON_NOTES, _NOTES, low)
        if self._lowest[0] < 1.0:
            lines.append(f"lowest IoU through the loader: {self._lowest[0]:.3f} in {self._lowest[1]!r}")
        return lines


def _own_polygon(instance: Instance) -> NDArray[np.float64] | None:
    """The source's own polygon where one row can hold it: a single one."""
    polygons = own_polygons(instance)
    if polygons is None or len(polygons) != 1:
        return None
    return np.array(polygons[0], np.float64).reshape(-1, 2)


@lru_cache(maxsize=16)
def _numbers(size: int) -> tuple[NDArray[np.uint64], Float32]:
    """The centres of the pixels of a side as fractions: their text, always eight characters, and what is read of it."""
    texts = [f"{(pixel + 0.5) / size:.6f}" for pixel in range(size)]
    return np.array(texts, "S8").view(np.uint64), np.array(texts, np.float32)


def _written_exactly(ring: YoloRing, mask: Rle) -> tuple[str, float]:
    """Like `_written`, for points at the centres of pixels; a ring of one part is exact and is not measured."""
    pixels = ring.points_xy.astype(np.int64)
    (x_words, x_read), (y_words, y_read) = _numbers(mask.size_hw[1]), _numbers(mask.size_hw[0])
    words = np.stack([x_words[pixels[:, 0]], y_words[pixels[:, 1]]], axis=1).ravel().view("S8")
    text = b" ".join(words.tolist()).decode("ascii")
    if ring.parts == 1:
        return text, 1.0
    return text, yolo_iou(np.stack([x_read[pixels[:, 0]], y_read[pixels[:, 1]]], axis=1), mask)


def _written(points_xy: NDArray[np.float64], mask: Rle, form: str) -> tuple[str, float]:
    """The row's numbers, and the IoU of what the loader makes of them."""
    height, width = mask.size_hw
    fractions = np.clip(points_xy / np.array([width, height]), 0.0, 1.0)
    words = [form % value for value in fractions.ravel().tolist()]
    read = np.array(words, np.float32).reshape(-1, 2)
    return " ".join(words), yolo_iou(read, mask)
