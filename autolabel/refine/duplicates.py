"""One object, found twice: which of the two stays?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autolabel.core.types import Dropped, ImageInfo, Instance
from autolabel.ops.masks import area_px, covered, ious
from autolabel.ops.settings import flag, fraction, optional
from autolabel.refine.each import Refined


class DuplicatesRefiner:
    """Drops a mask that has an IoU of at least `min_iou` with a better one that stays, or shares at least
    `min_containment` of the smaller of the two with it; null is off. Only within a class, unless `across_classes`.

    The better one is that of higher quality, or of higher detector score where a quality is missing; among equals
    the first. Instances of the source's own labels are better than any and always stay; crowds take no part.
    """

    def __init__(self, *, min_iou: float | None, min_containment: float | None, across_classes: bool) -> None:
        self._min_iou = optional(fraction, "min_iou", min_iou)
        self._min_containment = optional(fraction, "min_containment", min_containment)
        self._across_classes = flag("across_classes", across_classes)

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        nothing: Refined = list(instances), []
        if self._min_iou is None and self._min_containment is None:
            return nothing
        groups: dict[int, list[Instance]] = {}
        for one in instances:
            if one.mask is not None and not one.crowd:
                groups.setdefault(0 if self._across_classes else one.category_id, []).append(one)
        reasons: dict[int, str] = {}
        for group in groups.values():
            reasons.update(self._reasons(best_first(group)))
        kept = [one for one in instances if one.index not in reasons]
        dropped = [Dropped(one, reasons[one.index]) for one in instances if one.index in reasons]
        return kept, dropped

    def _reasons(self, ranked: Sequence[Instance]) -> dict[int, str]:
        """By index, why those go that do; asked from the best to the worst."""
        masks = [one.mask for one in ranked if one.mask is not None]
        same, inside = ious(masks, masks), covered(masks, masks)
        areas = [area_px(mask) for mask in masks]
        staying: list[int] = []
        reasons: dict[int, str] = {}
        for k, one in enumerate(ranked):
            why = None
            if one.origin == "model":
                pairs = (
                    (s, same[k, s], max(inside[k, s], inside[s, k])) for s in staying if areas[k] and areas[s]
                )
                why = next((w for s, iou, part in pairs if (w := self._why(ranked[s], iou, part))), None)
            if why is None:
                staying.append(k)
            else:
                reasons[one.index] = why
        return reasons

    def _why(self, other: Instance, iou: float, part: float) -> str | None:
        if self._min_iou is not None and iou >= self._min_iou:
            return f"duplicate: IoU {iou:.3f} >= {self._min_iou:g} with object {other.index}"
        if self._min_containment is not None and part >= self._min_containment:
            return f"duplicate: {part:.3f} >= {self._min_containment:g} of the smaller one shared with object {other.index}"
        return None


def best_first(instances: Sequence[Instance]) -> list[Instance]:
    """The source's own ones, then by quality where all have one, else by detector score; NaN is the worst."""
    known = all(one.quality is not None for one in instances if one.origin == "model")

    def place(one: Instance) -> tuple[bool, float, int]:
        score = one.quality if known and one.quality is not None else one.detector_score
        return one.origin == "model", math.inf if math.isnan(score) else -score, one.index

    return sorted(instances, key=place)
