"""Smoother outlines, with a bound on what may change."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autolabel.core.types import Dropped, ImageInfo, Instance, Rle
from autolabel.ops.masks import area_px
from autolabel.ops.settings import count, fraction, number, one_of
from autolabel.ops.smooth import median, open_close, smoothed
from autolabel.refine.each import Refined, change_each

FILTERS = {"median": median, "open_close": open_close}


RADIUS_LIMIT_PX = 100
"""A larger radius takes seconds an object."""


class SmoothRefiner:
    """Smooths masks by `how`, with the largest radius after which the IoU with the mask as it was is at least
    `min_iou`: at the most `radius_px`, or `radius_fraction` of the root of the mask's area where that is more (0:
    off), and never more than 100 px. Instances of the source's own labels are left alone."""

    def __init__(self, *, how: str, radius_px: int, min_iou: float, radius_fraction: float = 0.0) -> None:
        self._how = FILTERS[one_of("how", how, tuple(FILTERS))]
        self._radius_px = count("radius_px", radius_px, 0, RADIUS_LIMIT_PX)
        self._radius_fraction = fraction("radius_fraction", radius_fraction)
        self._min_iou = number("min_iou", min_iou, 0, 1, above=True)

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        nothing: Refined = list(instances), []
        return change_each(instances, self._change) if self._radius_px or self._radius_fraction else nothing

    def _change(self, mask: Rle) -> Rle:
        by_size = round(self._radius_fraction * math.sqrt(area_px(mask)))
        radius = min(max(self._radius_px, by_size), RADIUS_LIMIT_PX)
        return smoothed(mask, self._how, radius, self._min_iou)
