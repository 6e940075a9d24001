"""Polygons that came with the source: written as they came where the format's reader makes about the object's mask of
them. The mask is the truth, and readers differ: of the points through pixel centres that YOLO draws as a line,
pycocotools makes nothing at all."""

from __future__ import annotations

import math
from collections import Counter

from autolabel.core.types import Instance, Polygon
from autolabel.ops.masks import from_polygons, iou, mask_of

SOURCE_POLYGON_NOTES: dict[str, str] = {
    "source_polygons": "{} [object has|objects have] the polygons of the source as they came",
    "polygons_redrawn": "{} [object is|objects are] outlined again: from [its|their] polygons in the source, the format's reader would "
    "draw another mask (its IoU is below warn_iou)",
}
"""What `stay` counts, as lines for the report."""


def own_polygons(instance: Instance) -> tuple[Polygon, ...] | None:
    """Those of the source that still describe the object, where readers take them: pycocotools raises on fewer than
    three points, and reads four numbers as a box."""
    if instance.origin != "label" or not instance.polygons:
        return None
    readable = (len(p) >= 6 and len(p) % 2 == 0 and all(map(math.isfinite, p)) for p in instance.polygons)
    return instance.polygons if all(readable) else None


def stay(found: float, warn_iou: float, counts: Counter[str]) -> bool:
    """Whether polygons of the source, which come back with the IoU `found`, are written as they came; counted either
    way. Never those that come back as nothing, whatever the floor."""
    kept = 0.0 < found >= warn_iou
    counts["source_polygons" if kept else "polygons_redrawn"] += 1
    return kept


def coco_polygons_that_stay(
    instance: Instance, warn_iou: float, counts: Counter[str]
) -> tuple[tuple[Polygon, ...], float] | None:
    """The polygons of the source that `stay` where pycocotools reads them, and their IoU with the mask; else None."""
    polygons = own_polygons(instance)
    if polygons is None:
        return None
    mask = mask_of(instance)
    try:
        found = iou(from_polygons(polygons, mask.size_hw), mask)
    except ValueError:  # an outline that pycocotools has no memory for, of a source that another reader draws
        found = 0.0
    return (polygons, found) if stay(found, warn_iou, counts) else None
