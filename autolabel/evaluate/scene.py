"""One picture as it is judged: the true objects, the found objects, and how much each two have in common.

Letters in shapes: N found and M true objects of one picture. Judges nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import ImageInfo, ImageRecord, Instance, Labels, Rle
from autolabel.evaluate.classes import Classes
from autolabel.ops.annotations import Canvas, is_point
from autolabel.ops.masks import area_px, bounds_xyxy, covered, encode, ious

Box = tuple[float, float, float, float]
Float64 = NDArray[np.float64]
Measure = Literal["segm", "bbox"]

IGNORED_FIELDS = ("difficult", "ignore")
"""Fields of an annotation that, when set, make it a region of which nothing is asked (Pascal VOC, CityPersons)."""
SCORES = ("quality", "predicted_iou", "detector_score")
"""The scores of a found object, each in [0, 1]."""
_DIGITS = 6


@dataclass(frozen=True, slots=True, eq=False)
class TruthObject:
    """`index` is its position among the picture's annotations. `ignored` objects need not be found and may be found
    any number of times: crowds, difficult ones, and those without a mask where masks are compared."""

    index: int
    class_number: int
    class_name: str
    box_xyxy: Box
    mask: Rle | None
    area_px: float
    ignored: bool
    source_id: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FoundObject:
    """`index` is the candidate's. `box_xyxy` is what box measures compare, `prompt_xyxy` what the segmenter was
    asked with. `rank` sorts the objects, the highest first."""

    index: int
    class_number: int
    class_name: str
    box_xyxy: Box
    prompt_xyxy: Box
    mask: Rle | None
    area_px: float
    rank: float
    scores: tuple[float | None, ...]
    source_id: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """`ious` (N, M) is the IoU of masks, or of boxes where the truth has no masks; with an ignored object it is the
    share of the found object that lies in it, as COCO has it for crowds."""

    image_id: str
    size_hw: tuple[int, int]
    truth: tuple[TruthObject, ...]
    found: tuple[FoundObject, ...]
    ious: Float64

    @property
    def order(self) -> list[int]:
        """Found objects by rank, the highest first, equals as they come."""
        return sorted(range(len(self.found)), key=lambda i: -self.found[i].rank)

    @property
    def same_class(self) -> NDArray[np.bool_]:
        """(N, M)."""
        found = np.array([f.class_number for f in self.found], np.int64)
        truth = np.array([t.class_number for t in self.truth], np.int64)
        return found[:, None] == truth[None]

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(M,)."""
        return np.array([t.ignored for t in self.truth], np.bool_)


def scene(
    record: ImageRecord,
    info: ImageInfo,
    labels: Labels,
    *,
    classes: Classes,
    truth_names: dict[int, str],
    run_names: dict[int, str],
    measure: Measure,
    score: str,
    box: str,
) -> Scene:
    """Raises ImageError when the labels do not fit the picture."""
    truth = truth_objects(labels, info, classes, truth_names, measure)
    found = found_objects(record.instances, classes, run_names, score=score, box=box)
    return Scene(record.image_id, info.size_hw, truth, found, overlaps(found, truth, measure))


def truth_objects(
    labels: Labels, info: ImageInfo, classes: Classes, names: dict[int, str], measure: Measure
) -> tuple[TruthObject, ...]:
    """The annotations of classes that are judged, upright."""
    canvas = Canvas(labels, info)
    boxes = canvas.boxes(labels.boxes_xyxy)
    objects = []
    for i, category in enumerate(labels.category_ids.tolist()):
        if category not in classes.truth:
            continue
        shape = labels.shapes[i]
        mask = None if shape is None else canvas.mask(shape)
        bounds = bounds_xyxy(mask) if mask is not None and is_point(boxes[i]) else None
        x0, y0, x1, y1 = (float(v) for v in (boxes[i] if bounds is None else bounds))
        ignored = labels.crowd[i] or is_ignored(labels.extras[i])
        if measure == "segm" and mask is None:
            mask, ignored = _filled((x0, y0, x1, y1), info.size_hw), True
        area = (x1 - x0) * (y1 - y0) if mask is None or measure == "bbox" else float(area_px(mask))
        number, source_id = classes.truth[category], labels.source_ids[i]
        objects.append(TruthObject(i, number, names[category], (x0, y0, x1, y1), mask, area, ignored, source_id))
    return tuple(objects)


def is_ignored(extra: str) -> bool:
    """Whether an annotation's other fields say that it is not to be judged."""
    if not any(f'"{field}"' in extra for field in IGNORED_FIELDS):
        return False
    fields = json.loads(extra)
    return any(fields.get(field) in (True, 1, "1", "true", "yes") for field in IGNORED_FIELDS)


def found_objects(
    instances: Sequence[Instance], classes: Classes, names: dict[int, str], *, score: str, box: str
) -> tuple[FoundObject, ...]:
    """The kept instances of classes that are judged; a crowd that came from labels is not a finding."""
    return tuple(
        _found(one, classes.run[one.category_id], names[one.category_id], score, box)
        for one in instances
        if one.category_id in classes.run and not one.crowd
    )


def _found(one: Instance, number: int, name: str, score: str, box: str) -> FoundObject:
    bounds = bounds_xyxy(one.mask) if one.mask is not None and box == "mask" else None
    x0, y0, x1, y1 = (float(v) for v in (one.box_xyxy if bounds is None else bounds))
    return FoundObject(
        index=one.index,
        class_number=number,
        class_name=name,
        box_xyxy=(x0, y0, x1, y1),
        prompt_xyxy=one.box_xyxy,
        mask=one.mask,
        area_px=0.0 if one.mask is None else float(area_px(one.mask)),
        rank=round(finite(getattr(one, score)) or 0.0, _DIGITS),  # as the results file writes it
        scores=tuple(finite(getattr(one, name)) for name in SCORES),
        source_id=one.source_id,
    )


def finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def overlaps(found: Sequence[FoundObject], truth: Sequence[TruthObject], measure: Measure) -> Float64:
    """(N, M), see `Scene.ious`."""
    crowd = np.array([t.ignored for t in truth], np.bool_)
    if measure == "bbox":
        return box_ious([f.box_xyxy for f in found], [t.box_xyxy for t in truth], crowd)
    ours, theirs = [_mask(f.mask) for f in found], [_mask(t.mask) for t in truth]
    return np.where(crowd[None], covered(ours, theirs), ious(ours, theirs)) if crowd.any() else ious(ours, theirs)


def box_ious(a_xyxy: Sequence[Box], b_xyxy: Sequence[Box], crowd: NDArray[np.bool_]) -> Float64:
    """(N, M) as pycocotools has it for boxes: in float64, and over the area of `a` alone where `b` is a crowd."""
    a = np.array(a_xyxy, np.float64).reshape(-1, 1, 4)
    b = np.array(b_xyxy, np.float64).reshape(1, -1, 4)
    size = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    inter = size[..., 0] * size[..., 1]
    area_a, area_b = ((c[..., 2] - c[..., 0]) * (c[..., 3] - c[..., 1]) for c in (a, b))
    whole = np.where(crowd[None], area_a + 0 * area_b, area_a + area_b - inter)
    return np.divide(inter, whole, out=np.zeros_like(inter), where=whole > 0)


def _mask(mask: Rle | None) -> Rle:
    assert mask is not None, "masks are compared where all objects have one"
    return mask


def _filled(box_xyxy: Box, size_hw: tuple[int, int]) -> Rle:
    """A box as a mask, clipped to the picture."""
    region = np.zeros(size_hw, np.uint8, order="F")
    x0, y0, x1, y1 = (max(round(v), 0) for v in box_xyxy)
    region[y0:y1, x0:x1] = 1
    return encode(region)
