"""The twelve lines of COCO, by pycocotools itself on a data set in memory. The only file that calls its evaluation.

Two things are as the field has them and not as a plain `loadRes` of a file with boxes and masks would give them: the
size of a found object is that of its mask where masks are compared (detectron2 takes the boxes out for that), and
the `area` of a true object is counted from its mask.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autolabel.core.types import Rle
from autolabel.evaluate.scene import Box, Measure, Scene

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MOST_FOUND = 100
"""Found objects of one class of one picture that COCO looks at."""


@dataclass(frozen=True, slots=True)
class CocoScores:
    """`lines` by the names in KEYS; `per_class` holds AP and AP50 of each class. None where there is nothing to
    measure."""

    lines: dict[str, float | None]
    per_class: tuple[tuple[float | None, float | None], ...]


class CocoData:
    """The objects of all pictures as pycocotools takes them; masks stay compressed."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._images: list[dict[str, Any]] = []
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self.most_found = 0

    def add(self, scene: Scene, image_number: int) -> None:
        """`image_number` decides the order among equal scores."""
        height, width = scene.size_hw
        self._images.append({"id": image_number, "height": height, "width": width})
        for t in scene.truth:
            row = self._row(image_number, t.class_number, t.box_xyxy, t.mask, len(self._truth))
            self._truth.append({**row, "area": t.area_px, "iscrowd": int(t.ignored)})
        for f in scene.found:
            row = self._row(image_number, f.class_number, f.box_xyxy, f.mask, len(self._found))
            self._found.append({**row, "area": f.area_px, "score": f.rank})
        numbers = [f.class_number for f in scene.found]
        self.most_found = max([self.most_found, *(numbers.count(k) for k in set(numbers))])

    def scores(self, measure: Measure) -> CocoScores:
        """Runs pycocotools once; all None without pictures or classes."""
        nothing = CocoScores(dict.fromkeys(KEYS), ((None, None),) * len(self._names))
        if not self._images or not self._names:
            return nothing
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            evaluation = COCOeval(self._coco(self._truth), self._coco(self._of(measure)), measure)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        precision = evaluation.eval["precision"]  # (T, R, K, A, M): 0 is all areas, -1 is 100 objects
        per_class = tuple(
            (_mean(precision[:, :, k, 0, -1]), _mean(precision[0, :, k, 0, -1])) for k in range(len(self._names))
        )
        return CocoScores(
            {key: _known(float(v)) for key, v in zip(KEYS, evaluation.stats, strict=True)}, per_class
        )

    def _of(self, measure: Measure) -> list[dict[str, Any]]:
        if measure == "segm":
            return self._found
        return [{**f, "area": f["bbox"][2] * f["bbox"][3]} for f in self._found]

    def _coco(self, annotations: list[dict[str, Any]]) -> Any:
        from pycocotools.coco import COCO

        coco = COCO()
        categories = [{"id": number, "name": name} for number, name in enumerate(self._names, 1)]
        coco.dataset = {"images": self._images, "annotations": annotations, "categories": categories}
        coco.createIndex()
        return coco

    @staticmethod
    def _row(image: int, number: int, box_xyxy: Box, mask: Rle | None, so_far: int) -> dict[str, Any]:
        x0, y0, x1, y1 = box_xyxy
        row: dict[str, Any] = {
            "id": so_far + 1,  # 0 would never count as matched
            "image_id": image,
            "category_id": number + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        if mask is not None:
            row["segmentation"] = {"size": list(mask.size_hw), "counts": mask.counts}
        return row


def _mean(values: Any) -> float | None:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else None


def _known(value: float) -> float | None:
    """pycocotools says -1 where there is nothing to measure."""
    return value if value > -1 else None
