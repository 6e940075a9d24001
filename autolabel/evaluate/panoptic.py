"""Panoptic quality: Kirillov, He, Girshick, Rother, Dollar, "Panoptic Segmentation", CVPR 2019, as COCO's panopticapi
counts it, for things alone: background is neither a segment nor void.

A pixel belongs to one object. Among the found ones that of the higher rank owns it, among equals the smaller one;
among the true ones the smaller one. Ignored regions own what no true object owns; a found object that matches
nothing and lies by more than half in ignored regions of its class is not counted as false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import Rle
from autolabel.evaluate.scene import FoundObject, Scene, TruthObject
from autolabel.ops.masks import decode_crop

Owners = NDArray[np.int32]
MATCHED_IOU = 0.5
"""Above it, no two segments can match the same one."""


@dataclass(frozen=True, slots=True)
class Quality:
    """PQ = SQ x RQ. All None where there is no segment on either side."""

    pq: float | None
    sq: float | None
    rq: float | None


class PanopticTally:
    """Sums over pictures, for each class: IoU of matches, matches, false ones, missed ones."""

    def __init__(self, num_classes: int) -> None:
        self._iou = np.zeros(num_classes)
        self._tp, self._fp, self._fn = (np.zeros(num_classes, np.int64) for _ in range(3))

    def add(self, scene: Scene) -> None:
        """Needs a mask for every object."""
        truth, found = _owners_of_truth(scene), _owners_of_found(scene)
        shared = np.bincount(
            (truth.ravel() * (len(scene.found) + 1) + found.ravel()),
            minlength=(len(scene.truth) + 1) * (len(scene.found) + 1),
        ).reshape(len(scene.truth) + 1, len(scene.found) + 1)
        truth_px, found_px = shared.sum(1), shared.sum(0)
        matched_truth, matched_found = set(), set()
        for t, f in zip(*np.nonzero(shared[1:, 1:]), strict=True):
            one, other = scene.truth[t], scene.found[f]
            if one.ignored or one.class_number != other.class_number:
                continue
            inter = int(shared[t + 1, f + 1])
            iou = inter / (int(truth_px[t + 1]) + int(found_px[f + 1]) - inter)
            if iou > MATCHED_IOU:
                matched_truth.add(int(t))
                matched_found.add(int(f))
                self._iou[one.class_number] += iou
                self._tp[one.class_number] += 1
        for t, one in enumerate(scene.truth):
            if truth_px[t + 1] and not one.ignored and t not in matched_truth:
                self._fn[one.class_number] += 1
        for f, other in enumerate(scene.found):
            if found_px[f + 1] and f not in matched_found:
                regions = [
                    t for t, one in enumerate(scene.truth, 1)
                    if one.ignored and one.class_number == other.class_number
                ]  # fmt: skip
                if shared[regions, f + 1].sum() <= found_px[f + 1] / 2:
                    self._fp[other.class_number] += 1

    @property
    def per_class(self) -> list[Quality]:
        rows = zip(self._iou.tolist(), self._tp.tolist(), self._fp.tolist(), self._fn.tolist(), strict=True)
        return [_quality(*row) for row in rows]

    @property
    def overall(self) -> Quality:
        """The mean over the classes that occur on either side."""
        rows = [q for q in self.per_class if q.pq is not None]
        if not rows:
            return Quality(None, None, None)
        return Quality(*(float(np.mean([getattr(q, name) for q in rows])) for name in ("pq", "sq", "rq")))


def _quality(iou: float, tp: int, fp: int, fn: int) -> Quality:
    if not tp + fp + fn:
        return Quality(None, None, None)
    whole = tp + 0.5 * fp + 0.5 * fn
    return Quality(iou / whole, iou / tp if tp else 0.0, tp / whole)


def _owners_of_truth(scene: Scene) -> Owners:
    def precedence(t: TruthObject) -> tuple[float, ...]:
        return (not t.ignored, -t.area_px)

    return _owners([t.mask for t in scene.truth], [precedence(t) for t in scene.truth], scene.size_hw)


def _owners_of_found(scene: Scene) -> Owners:
    def precedence(f: FoundObject) -> tuple[float, ...]:
        return (f.rank, -f.area_px)

    return _owners([f.mask for f in scene.found], [precedence(f) for f in scene.found], scene.size_hw)


def _owners(
    masks: Sequence[Rle | None], precedence: Sequence[tuple[float, ...]], size_hw: tuple[int, int]
) -> Owners:
    """(H, W): whose each pixel is, counted from 1; 0 is nobody's. The highest precedence is painted last, the first
    among equals too."""
    owner = np.zeros(size_hw, np.int32)
    for place in sorted(range(len(masks)), key=lambda i: (precedence[i], -i)):
        mask = masks[place]
        assert mask is not None, "panoptic quality compares masks"
        crop, x0, y0 = decode_crop(mask)
        owner[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]][crop > 0] = place + 1
    return owner
