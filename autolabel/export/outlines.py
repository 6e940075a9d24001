"""Masks as polygons that people can edit, and that readers fill to about the same mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from autolabel.core.types import Instance, Polygon, Rle
from autolabel.export.source_polygons import SOURCE_POLYGON_NOTES, coco_polygons_that_stay
from autolabel.ops.masks import from_polygons, iou, mask_of
from autolabel.ops.polygons import coco_polygons
from autolabel.ops.settings import fraction, number, optional
from autolabel.ops.simplify import Points, simplify_rings

OUTLINE_NOTES: dict[str, str] = {
    **SOURCE_POLYGON_NOTES,
    "simplified": "{} [object has fewer points than its|objects have fewer points than their] exact outline",
}
"""What `Outlines` count, as lines for the report."""


class Outlines:
    """Masks as polygons along pixel corners, one a part, holes reached over keyholes: what a reader that fills them
    by the even-odd rule gives back pixel by pixel. Polygons of the source are written as they came where they come back
    with an IoU of `warn_iou` or more.

    With `simplify_iou` an object has as few points as keep its IoU at least there. `lowest` is the lowest IoU so far.
    """

    def __init__(self, *, simplify_iou: float | None, warn_iou: float) -> None:
        self._least_iou = optional(number, "simplify_iou", simplify_iou, 0, 1, above=True)
        self._warn_iou = fraction("warn_iou", warn_iou)
        self.lowest = 1.0

    def of(self, instance: Instance, counts: Counter[str]) -> Sequence[Polygon]:
        own = self.own(instance, counts)
        return self.drawn(mask_of(instance), counts) if own is None else own

    def own(self, instance: Instance, counts: Counter[str]) -> Sequence[Polygon] | None:
        """The polygons of the source, where they stay."""
        polygons, found = coco_polygons_that_stay(instance, self._warn_iou, counts) or (None, 1.0)
        self.lowest = min(self.lowest, found)
        return polygons

    def drawn(self, mask: Rle, counts: Counter[str]) -> Sequence[Polygon]:
        """Those of the mask; whole numbers."""
        exact = coco_polygons(mask)
        return exact if self._least_iou is None else self._simplified(exact, mask, self._least_iou, counts)

    def why(self, instance: Instance) -> str:
        """Why an object does not come back as it is."""
        if coco_polygons_that_stay(instance, self._warn_iou, Counter()) is not None:
            return "the source's own polygons"
        return "simplified" if self._least_iou is not None else "not as written"

    def notes(self) -> list[str]:
        return [f"the lowest IoU of an outline with its mask is {self.lowest:.3f}"] if self.lowest < 1.0 else []

    def _simplified(
        self, exact: list[Polygon], mask: Rle, least_iou: float, counts: Counter[str]
    ) -> list[Polygon]:
        def measure(rings: Sequence[Points]) -> float:
            return iou(from_polygons(tuple(map(_polygon, rings)), mask.size_hw), mask)

        rings, found = simplify_rings([np.array(p, np.float64).reshape(-1, 2) for p in exact], least_iou, measure)
        polygons = [_polygon(ring) for ring in rings]
        counts["simplified"] += sum(map(len, polygons)) < sum(map(len, exact))
        self.lowest = min(self.lowest, found)
        return polygons


def _polygon(ring: Points) -> Polygon:
    return tuple(float(v) for v in ring.ravel())
