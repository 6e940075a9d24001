"""YOLO detection for the ultralytics loader: one `class cx cy w h` row an object, in fractions of the upright
picture. What stands around the rows is yolo_tree.py's.

A box is the tight box of the object's mask, or the box that the mask was asked for with (`box: prompt`). Boxes
are exact: the format has no masks to lose, so what is read back is compared with the box.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from autolabel.core.errors import SettingError
from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import Float32, ImageRecord, Instance
from autolabel.export.classes import class_number
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import NOT_AS_WRITTEN
from autolabel.export.reporting import noted
from autolabel.export.splits import Splits
from autolabel.export.ultralytics_reader import Loaded
from autolabel.export.yolo_tree import class_numbers, tree_of
from autolabel.ops.boxes import clip_xyxy, cxcywh_to_xyxy, iou_xyxy, scale_normalized
from autolabel.ops.masks import bounds_xyxy, mask_of
from autolabel.ops.settings import one_of


class YoloDetectExporter:
    """Writes the data set; see configs/export/yolo_detect.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["copy", "link", "upright"],
        empty_images: Literal["keep", "drop", "found_none"],
        box: Literal["mask", "prompt"],
        parts: Literal["keep", "largest", "split"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
        val_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: bool,
        group_by: str | None,
    ) -> None:
        one_of("box", box, ("mask", "prompt"))
        if box == "prompt" and parts == "split":
            raise SettingError("parts=split needs box=mask: the parts share one prompt")
        self._from_prompt = box == "prompt"
        self._policy = policy_of(parts=parts, min_area_px=min_area_px, crowd=crowd)
        splits = Splits(
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            stratify=stratify,
            group_by=group_by,
        )
        self._tree = tree_of(
            "yolo_detect", images=images, empty_images=empty_images, policy=self._policy, splits=splits
        )

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the data set into `directory`. The records are read three times: for the splits, the names and
        the rows."""
        counts: Counter[str] = Counter()
        classes = class_numbers(run)

        def rows(record: ImageRecord) -> list[str]:
            return [self._row(instance, record, classes) for instance in prepared(record, self._policy, counts)]

        return self._tree.export(run, directory, rows, counts, lambda: noted(counts, POLICY_NOTES))

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The boxes as the ultralytics loader reads them, against the boxes that were to be written."""

        def fit(instance: Instance, read: Loaded, row: int) -> float:
            found = scale_normalized(cxcywh_to_xyxy(read.boxes_cxcywh[row : row + 1]), mask_of(instance).size_hw)
            wanted = np.array([self._box(instance)], np.float32)
            exact = np.abs(found - wanted).max() < 0.01  # px; the loader's fractions are float32
            return 1.0 if exact else float(iou_xyxy(wanted, found)[0, 0])

        return self._tree.read_back(run, directory, self._policy, fit, lambda _: NOT_AS_WRITTEN, as_given=True)

    def _row(self, instance: Instance, record: ImageRecord, classes: Mapping[int, int]) -> str:
        height, width = mask_of(instance).size_hw
        x0, y0, x1, y1 = self._box(instance)
        values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        numbers = " ".join(f"{value:.9g}" for value in values)
        return f"{class_number(classes, instance, record)} {numbers}"

    def _box(self, instance: Instance) -> tuple[float, ...]:
        mask = mask_of(instance)
        if self._from_prompt:
            prompt: Float32 = np.array([instance.box_xyxy], np.float32)
            return tuple(float(v) for v in clip_xyxy(prompt, mask.size_hw)[0])
        bounds = bounds_xyxy(mask)
        assert bounds is not None, "prepared objects have pixels"
        return tuple(float(v) for v in bounds)
