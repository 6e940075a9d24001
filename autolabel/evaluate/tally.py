"""Counts and means over pictures: of all objects, by class and by size. Holds a few numbers an object."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autolabel.evaluate.boundary import BoundaryScores
from autolabel.evaluate.matching import ERRORS, NOBODY, Judgement, by_prompt, greedy
from autolabel.evaluate.scene import Scene

SIZES = ("small", "medium", "large")
"""COCO's: areas below 32^2, below 96^2, and above, in pixels."""
_LIMITS = (32.0**2, 96.0**2)


@dataclass(frozen=True, slots=True)
class Row:
    """What is known about a group of objects. The means are over the pairs: matched objects, or, in a run on true
    boxes, every true object, with 0 for one without a mask. None where there is nothing to divide by."""

    truth: int
    found: int
    matched: int
    mean_iou: float | None
    median_iou: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    boundary_iou: float | None
    boundary_f: float | None


@dataclass(frozen=True, slots=True)
class Threshold:
    """The same matching, or the same pairs, at another IoU."""

    iou: float
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Separation:
    """Whose error it is, by prompt boxes and blind to classes: true objects that no box met, those whose box got a
    mask below the IoU, and those that are right."""

    truth: int
    no_box: int
    poor_mask: int
    good: int


@dataclass(slots=True)
class _Cell:
    truth: int = 0
    found: int = 0
    matched: int = 0
    hits: array[int] = field(default_factory=lambda: array("b"))
    ious: array[float] = field(default_factory=lambda: array("d"))
    band_ious: array[float] = field(default_factory=lambda: array("d"))
    contour_fs: array[float] = field(default_factory=lambda: array("d"))


def size_of(area_px: float) -> int:
    """Position in SIZES."""
    return sum(area_px >= limit for limit in _LIMITS)


def ratios(matched: int, found: int, truth: int) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1."""
    return (
        matched / found if found else None,
        matched / truth if truth else None,
        2 * matched / (found + truth) if found + truth else None,
    )


class Tally:
    """Add every picture once, with the judgements on its objects."""

    def __init__(self, *, thresholds: Sequence[float], iou: float, failures_count: bool) -> None:
        self._cells: dict[tuple[int, int], _Cell] = {}
        self._iou = iou
        self._failures_count = failures_count
        self._at = dict.fromkeys(thresholds, 0)
        self._confused: Counter[tuple[int | None, int | None]] = Counter()
        self.errors: dict[str, int] = dict.fromkeys(ERRORS, 0)
        self.absorbed = self.ignored = 0
        self._paired_iou = 0.0
        self._separation = np.zeros(4, np.int64)

    def add(
        self, scene: Scene, judgements: Sequence[Judgement], boundaries: dict[int, BoundaryScores], *, masks: bool
    ) -> None:
        """`boundaries` are those of the judgements, by their position."""
        self.ignored += int(scene.ignored.sum())
        self.absorbed += len(scene.found) - sum(j.found is not None for j in judgements)
        for position, judgement in enumerate(judgements):
            if judgement.kind != "matched":
                self.errors[judgement.kind] += 1
            self._paired_iou += (judgement.iou or 0.0) * (
                judgement.kind in ("matched", "poor_mask", "wrong_class")
            )
            self._count(scene, judgement)
            self._measure(scene, judgement, boundaries.get(position))
        if self._failures_count:
            self._confuse_pairs(scene, judgements)
        else:
            self._confuse(scene)
        for threshold in self._at:
            self._at[threshold] += self._matched_at(threshold, scene, judgements)
        if masks:
            self._separate(scene)

    def _matched_at(self, threshold: float, scene: Scene, judgements: Sequence[Judgement]) -> int:
        if self._failures_count:  # the pairs are given, whatever their IoU
            return sum(j.found is not None and j.iou is not None and j.iou >= threshold for j in judgements)
        taken = greedy(scene.ious, scene.order, threshold, allowed=scene.same_class & ~scene.ignored[None])
        return sum(t != NOBODY for t in taken)

    def _count(self, scene: Scene, judgement: Judgement) -> None:
        if judgement.truth is not None and judgement.kind != "duplicate":
            one = scene.truth[judgement.truth]
            cell = self._cell(one.class_number, one.area_px)
            cell.truth += 1
            cell.matched += judgement.kind == "matched"
        if judgement.found is not None:
            other = scene.found[judgement.found]
            matched = judgement.kind == "matched" and judgement.truth is not None
            area = (
                scene.truth[judgement.truth].area_px if matched and judgement.truth is not None else other.area_px
            )
            self._cell(other.class_number, area).found += 1

    def _measure(self, scene: Scene, judgement: Judgement, boundary: BoundaryScores | None) -> None:
        pair = judgement.kind == "matched" or (self._failures_count and judgement.kind in ("poor_mask", "missed"))
        if not pair or judgement.truth is None:
            return
        one = scene.truth[judgement.truth]
        cell = self._cell(one.class_number, one.area_px)
        cell.hits.append(judgement.kind == "matched")
        cell.ious.append(judgement.iou or 0.0)
        if one.mask is not None and (boundary is not None or judgement.found is None):
            cell.band_ious.append(boundary.iou if boundary else 0.0)
            cell.contour_fs.append(boundary.f if boundary else 0.0)

    def _confuse(self, scene: Scene) -> None:
        """Matched blind to classes; what an ignored region of its class absorbs is left out."""
        absorbed = greedy(
            scene.ious,
            scene.order,
            self._iou,
            allowed=scene.same_class | ~scene.ignored[None],
            ignored=scene.ignored,
        )
        seen = set()
        for i, t in enumerate(absorbed):
            if t != NOBODY and scene.ignored[t]:
                continue
            number = None if t == NOBODY else scene.truth[t].class_number
            self._confused[number, scene.found[i].class_number] += 1
            seen.add(t)
        for t, one in enumerate(scene.truth):
            if not one.ignored and t not in seen:
                self._confused[one.class_number, None] += 1

    def _confuse_pairs(self, scene: Scene, judgements: Sequence[Judgement]) -> None:
        """Confusions of a run on the true boxes, where an object's class is given: right, or nothing."""
        for judgement in judgements:
            number = None if judgement.truth is None else scene.truth[judgement.truth].class_number
            self._confused[number, number if judgement.kind == "matched" else None] += 1

    def _separate(self, scene: Scene) -> None:
        pairs = by_prompt(scene, self._iou)
        truth = int((~scene.ignored).sum())
        good = sum(scene.ious[i, t] >= self._iou for i, t in pairs.items())
        self._separation += np.array([truth, truth - len(pairs), len(pairs) - good, good])

    def _cell(self, number: int, area_px: float) -> _Cell:
        return self._cells.setdefault((number, size_of(area_px)), _Cell())

    def overall(self) -> Row:
        return _row(self._cells.values())

    def matched_alone(self) -> Row:
        """The same without the failures."""
        return _row(self._cells.values(), matched_alone=True)

    @property
    def mean_iou_of_truth(self) -> float | None:
        """Over all true objects: that of the pair, also a poor or wrongly named one, and 0 for a missed one."""
        return self._paired_iou / truth if (truth := self.overall().truth) else None

    def of_class(self, number: int) -> Row:
        return _row(self._cells[number, s] for s in range(len(SIZES)) if (number, s) in self._cells)

    def of_size(self, size: int) -> Row:
        return _row(cell for (_, s), cell in self._cells.items() if s == size)

    def thresholds(self) -> tuple[Threshold, ...]:
        all_ = self.overall()
        return tuple(Threshold(t, *ratios(n, all_.found, all_.truth)) for t, n in self._at.items())

    @property
    def confusion(self) -> Mapping[tuple[int | None, int | None], int]:
        """Objects by the number of their true class and of the found one, None for nothing; no entry is 0."""
        return self._confused

    @property
    def separation(self) -> Separation:
        return Separation(*(int(n) for n in self._separation))


def _row(cells: Iterable[_Cell], *, matched_alone: bool = False) -> Row:
    group = list(cells)
    truth, found, matched = (sum(getattr(c, name) for c in group) for name in ("truth", "found", "matched"))
    ious, bands, contours = (
        np.concatenate([np.zeros(0), *(np.array(getattr(c, name), np.float64) for c in group)])
        for name in ("ious", "band_ious", "contour_fs")
    )
    if matched_alone:
        hits = np.concatenate([np.zeros(0), *(np.array(c.hits) for c in group)]) > 0
        ious, bands, contours = (values[hits] if len(values) else values for values in (ious, bands, contours))
    return Row(
        truth,
        found,
        matched,
        _mean(ious),
        float(np.median(ious)) if len(ious) else None,
        *ratios(matched, found, truth),
        _mean(bands),
        _mean(contours),
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
