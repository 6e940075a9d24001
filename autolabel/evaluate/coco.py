"""The twelve lines of COCO, by pycocotools itself on a data set in memory. The only file that calls its evaluation.

Two things are as the field has them and not as a plain `loadRes` of a file with boxes and masks would give them: the
size of a found object is that of its mask where masks are compared (detectron2 takes the boxes out for that), and
the `area` of a true object is counted from its mask.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter, defaultdict
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
        self._images: dict[int, dict[str, Any]] = {}
        self._truth: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self._found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self.most_found = 0

    def add(self, scene: Scene, image_number: int) -> None:
        """`image_number` decides the order among equal scores."""
        height, width = scene.size_hw
        self._images[image_number] = {"id": image_number, "height": height, "width": width}
        for t in scene.truth:
            rows = self._truth[t.class_number]
            row = self._row(image_number, t.class_number, t.box_xyxy, t.mask, len(rows))
            rows.append({**row, "area": t.area_px, "iscrowd": int(t.ignored)})
        for f in scene.found:
            rows = self._found[f.class_number]
            row = self._row(image_number, f.class_number, f.box_xyxy, f.mask, len(rows))
            rows.append({**row, "area": f.area_px, "score": f.rank})
        numbers = Counter(f.class_number for f in scene.found)
        self.most_found = max([self.most_found, *numbers.values()])

    def scores(self, measure: Measure) -> CocoScores:
        """Runs pycocotools on one class after the other, each on the pictures that have it: on all at once its time
        and memory are those of every class in every picture. A class without true objects has no figures."""
        per_class: list[tuple[float | None, float | None]] = [(None, None)] * len(self._names)
        if not self._truth:
            return CocoScores(dict.fromkeys(KEYS), tuple(per_class))
        from pycocotools.cocoeval import COCOeval

        precisions, recalls = [], []
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            for k in sorted(self._truth):
                truth, found = self._truth[k], self._of(k, measure)
                pictures = {row["image_id"] for row in (*truth, *found)}
                one = COCOeval(self._coco(k, truth, pictures), self._coco(k, found, pictures), measure)
                one.evaluate()
                one.accumulate()
                # (T, R, 1, A, M): 0 is all areas, -1 is 100 objects, the only number whose precision is asked for.
                precision = one.eval["precision"][..., -1:]
                per_class[k] = (_mean(precision[..., 0, 0]), _mean(precision[0, ..., 0, 0]))
                precisions.append(precision)
                recalls.append(one.eval["recall"])
            all_ = COCOeval(iouType=measure)
            precision, recall = np.concatenate(precisions, axis=2), np.concatenate(recalls, axis=1)
            shape = (*precision.shape[:-1], recall.shape[-1])
            all_.eval = {"precision": np.broadcast_to(precision, shape), "recall": recall}
            all_.summarize()
        lines = {key: _known(float(v)) for key, v in zip(KEYS, all_.stats, strict=True)}
        return CocoScores(lines, tuple(per_class))

    def _of(self, k: int, measure: Measure) -> list[dict[str, Any]]:
        found = self._found.get(k, [])
        if measure == "segm":
            return found
        return [{**f, "area": f["bbox"][2] * f["bbox"][3]} for f in found]

    def _coco(self, k: int, annotations: list[dict[str, Any]], pictures: set[int]) -> Any:
        from pycocotools.coco import COCO

        coco = COCO()
        coco.dataset = {
            "images": [self._images[number] for number in pictures],
            "annotations": annotations,
            "categories": [{"id": k + 1, "name": self._names[k]}],
        }
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
