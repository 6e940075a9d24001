"""What exporters to annotation tools share: labels that are told by their name alone, outlines that people can edit,
and reading a long file back in the order of the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from autolabel.core.errors import ExportError
from autolabel.core.types import Category, ImageRecord, Instance, Polygon, Rle
from autolabel.export.policy import mask_of
from autolabel.export.reading import in_turn
from autolabel.export.source_polygons import SOURCE_POLYGON_NOTES, coco_polygons_that_stay
from autolabel.ops.drawn import Drawn
from autolabel.ops.drawn import mask_of as drawn_mask
from autolabel.ops.masks import from_polygons, iou
from autolabel.ops.polygons import coco_polygons
from autolabel.ops.settings import fraction, number, optional
from autolabel.ops.simplify import Points, simplify_rings
from autolabel.ops.xml_json import xml_text

T = TypeVar("T")

OUTLINE_NOTES: dict[str, str] = {
    **SOURCE_POLYGON_NOTES,
    "simplified": "{} [object has fewer points than its|objects have fewer points than their] exact outline",
}
"""What `Outlines` count, as lines for the report."""

TOOL_NOTES: dict[str, str] = {
    "names_changed": "{} class [name holds characters that the tool cannot, or is there twice; it is|names hold characters that the tool cannot, or are there twice; they are] changed",
    **OUTLINE_NOTES,
    "fields_left_out": "{} [field of the source has|fields of the source have] no place in the format and [is|are] left out",
}


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


class InOrder(Generic[T]):
    """Finds things by name in a long sequence when they are asked for in its order; holds the names alone."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, T]]]) -> None:
        self._names = {name for name, _ in read()}
        self._things = iter(read())

    def find(self, name: str) -> T | None:
        if name not in self._names:
            return None
        return next(thing for found, thing in self._things if found == name)


def label_names(categories: Iterable[Category], counts: Counter[str]) -> dict[int, str]:
    """One line of text for each category id, no two the same: a name that is there twice gets its id."""
    given = list(categories)
    plain = {c.id: " ".join(xml_text(c.name).split()) or f"class_{c.id}" for c in given}
    often = Counter(plain.values())
    names = {id_: name if often[name] == 1 else f"{name} ({id_})" for id_, name in plain.items()}
    if len(set(names.values())) < len(names):
        raise ExportError(f"the classes cannot be told apart by their names: {sorted(names.values())[:5]}")
    counts["names_changed"] += sum(names[c.id] != c.name for c in given)
    return names


def scores_of(instance: Instance) -> dict[str, float]:
    """The scores that a model gave; none for labels that were there before."""
    found = {"score": instance.detector_score, "predicted_iou": instance.predicted_iou}
    if instance.origin == "label":
        return {}
    return {key: round(float(v), 6) for key, v in found.items() if v is not None and math.isfinite(v)}


def read_objects(
    record: ImageRecord, shapes: Sequence[Drawn], objects: Sequence[Instance]
) -> Iterator[tuple[int, Rle]]:
    """The masks of what was read, with the index of the object that each was written for: they are in one order."""
    assert record.info is not None, "checked in labelled"
    for instance, shape in in_turn(record, objects, shapes):
        mask = drawn_mask(shape, record.info.size_hw)
        if mask is not None:
            yield instance.index, mask


def changed_fields(extra: Mapping[str, object], held: Iterable[str], counts: Counter[str]) -> None:
    """Count the fields that are not among those that the format holds."""
    counts["fields_left_out"] += len(set(extra) - set(held))


def _polygon(ring: Points) -> Polygon:
    return tuple(float(v) for v in ring.ravel())
