"""What an evaluation found, and its form in `evaluation.json`. Numbers are finite or None, never NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autolabel.evaluate.panoptic import PanopticTally, Quality
from autolabel.evaluate.ranking import Ranking
from autolabel.evaluate.tally import Row, Separation, Threshold
from autolabel.ops.evaluation_file import VERSION


@dataclass(frozen=True, slots=True)
class Matching:
    """How found and true objects were paired: `measure` is `segm` for mask IoU and `bbox` for box IoU, `pairing`
    is `iou`, or `annotation` for a run on the true boxes."""

    iou: float
    by_class: bool
    score: str
    measure: str
    pairing: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class; AP and AP50 are those of masks, or of boxes where there are no masks."""

    name: str
    truth: int
    found: int
    matched: int
    AP: float | None
    AP50: float | None
    mean_iou: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    boundary_iou: float | None
    boundary_f: float | None

    @classmethod
    def of(cls, name: str, row: Row, ap: float | None, ap50: float | None) -> ClassRow:
        return cls(
            name, row.truth, row.found, row.matched, ap, ap50, row.mean_iou, row.precision, row.recall, row.f1,
            row.boundary_iou, row.boundary_f,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SizeRow:
    """Objects of one of COCO's sizes: the true ones by their area, false ones by their own."""

    truth: int
    found: int
    matched: int
    mean_iou: float | None
    precision: float | None
    recall: float | None
    boundary_iou: float | None

    @classmethod
    def of(cls, row: Row) -> SizeRow:
        return cls(row.truth, row.found, row.matched, row.mean_iou, row.precision, row.recall, row.boundary_iou)


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many objects of the class `truth` were found as `found`, also the same one. None is nothing: a missed
    object has no `found`, a false one no `truth`."""

    truth: str | None
    found: str | None
    objects: int


@dataclass(frozen=True, slots=True)
class Panoptic:
    """The mean over classes, and each class by its name."""

    overall: Quality
    per_class: tuple[tuple[str, Quality], ...]

    @classmethod
    def of(cls, names: Sequence[str], tally: PanopticTally) -> Panoptic:
        return cls(tally.overall, tuple(zip(names, tally.per_class, strict=True)))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`segm`, `panoptic` and `separation` are None where the truth has no masks, `separation` also for a run on
    the true boxes. `all` is over the pairs (see Row), `matched_alone` without the failures of a run on the true
    boxes, and `mean_iou_of_truth` over all true objects, with 0 for a missed one. `ignored` true objects are not
    in any count, and `absorbed` found ones neither. `half_masked` pictures, which are not in the
    document, have true objects with a box and no mask."""

    truth: str
    truth_sha256: str
    matching: Matching
    images: int
    images_without_truth: int
    ignored: int
    absorbed: int
    all: Row
    matched_alone: Row
    mean_iou_of_truth: float | None
    segm: Mapping[str, float | None] | None
    bbox: Mapping[str, float | None]
    thresholds: tuple[Threshold, ...]
    per_class: tuple[ClassRow, ...]
    per_size: Mapping[str, SizeRow]
    confusion: tuple[Confusion, ...]
    errors: Mapping[str, int]
    panoptic: Panoptic | None
    ranking: Mapping[str, Ranking]
    separation: Separation | None
    notes: tuple[str, ...]
    half_masked: frozenset[str] = frozenset()

    def document(self) -> dict[str, Any]:
        """The content of `evaluation.json`."""
        row = asdict(self.all)
        counts = {name: row.pop(name) for name in ("truth", "found", "matched")}
        return {
            "version": VERSION,
            "truth": self.truth,
            "truth_sha256": self.truth_sha256,
            "matching": asdict(self.matching),
            "images": self.images,
            "images_without_truth": self.images_without_truth,
            "objects": {**counts, "ignored": self.ignored, "absorbed": self.absorbed},
            "segm": dict.fromkeys(self.bbox) if self.segm is None else dict(self.segm),
            "bbox": dict(self.bbox),
            "matched": {
                **row,
                "mean_iou_of_matched": self.matched_alone.mean_iou,
                "mean_iou_of_truth": self.mean_iou_of_truth,
            },
            "thresholds": [asdict(t) for t in self.thresholds],
            "per_class": [asdict(c) for c in self.per_class],
            "per_size": {name: asdict(s) for name, s in self.per_size.items()},
            "confusion": [asdict(c) for c in self.confusion],
            "errors": dict(self.errors),
            "panoptic": _panoptic(self.panoptic or Panoptic(Quality(None, None, None), ())),
            "ranking": {name: asdict(r) for name, r in self.ranking.items()},
            "separation": None if self.separation is None else asdict(self.separation),
            "notes": list(self.notes),
        }


def _panoptic(panoptic: Panoptic) -> dict[str, Any]:
    rows = [{"name": name, **asdict(quality)} for name, quality in panoptic.per_class]
    return {**asdict(panoptic.overall), "per_class": rows}
