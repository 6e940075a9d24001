"""Smoother outlines, with a bound on what may change."""

from __future__ import annotations

from collections.abc import Sequence

from autolabel.core.errors import ConfigError
from autolabel.core.types import Dropped, ImageInfo, Instance
from autolabel.ops.settings import one_of
from autolabel.ops.smooth import median, open_close, smoothed
from autolabel.refine.each import Refined, change_each, limit, pixels

FILTERS = {"median": median, "open_close": open_close}


class SmoothRefiner:
    """Smooths masks by `how`, with the largest radius up to `radius_px` (0: off) after which the IoU with the mask as
    it was is at least `min_iou`. Instances of the source's own labels are left alone."""

    def __init__(self, *, how: str, radius_px: int, min_iou: float) -> None:
        self._how = FILTERS[one_of("refine.smooth.how", how, tuple(FILTERS))]
        if radius_px is None or not 0 <= (pixels("refine.smooth.radius_px", radius_px) or 0) <= 100:
            raise ConfigError(f"refine.smooth.radius_px must be in [0, 100], got {radius_px!r}")
        if min_iou is None or not limit("refine.smooth.min_iou", min_iou, 0, 1):
            raise ConfigError(f"refine.smooth.min_iou must be in (0, 1], got {min_iou!r}")
        self._radius_px, self._min_iou = radius_px, min_iou

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        nothing: Refined = list(instances), []
        if not self._radius_px:
            return nothing
        return change_each(instances, lambda mask: smoothed(mask, self._how, self._radius_px, self._min_iou))
