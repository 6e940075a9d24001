"""Limits on the area of a mask, in pixels and in fractions of the image."""

from __future__ import annotations

from collections.abc import Sequence

from autolabel.core.errors import SettingError
from autolabel.core.types import Dropped, ImageInfo, Instance, Rle
from autolabel.ops.masks import area_px
from autolabel.ops.settings import count, fraction, optional
from autolabel.refine.each import drop_each


class AreaRefiner:
    """Drops masks outside the limits; null is off, `min_px` 1 drops empty masks alone. Instances of the
    source's own labels are left alone."""

    def __init__(
        self,
        *,
        min_px: int | None,
        max_px: int | None,
        min_fraction: float | None,
        max_fraction: float | None,
    ) -> None:
        self._min_px = optional(count, "min_px", min_px, 0)
        self._max_px = optional(count, "max_px", max_px, 0)
        self._min_fraction = optional(fraction, "min_fraction", min_fraction)
        self._max_fraction = optional(fraction, "max_fraction", max_fraction)
        if min_px is not None and max_px is not None and min_px > max_px:
            raise SettingError(f"max_px must be at least min_px = {min_px}, got {max_px!r}")
        if min_fraction is not None and max_fraction is not None and min_fraction > max_fraction:
            raise SettingError(
                f"max_fraction must be at least min_fraction = {min_fraction}, got {max_fraction!r}"
            )

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        return drop_each(instances, lambda _, mask: self._why(mask))

    def _why(self, mask: Rle) -> str | None:
        px = area_px(mask)
        fraction = px / (mask.size_hw[0] * mask.size_hw[1])
        if self._min_px is not None and px < self._min_px:
            return f"min_area: {px} < {self._min_px} px"
        if self._max_px is not None and px > self._max_px:
            return f"max_area: {px} > {self._max_px} px"
        if self._min_fraction is not None and fraction < self._min_fraction:
            return f"min_area_fraction: {fraction:.3g} < {self._min_fraction:g} of the image"
        if self._max_fraction is not None and fraction > self._max_fraction:
            return f"max_area_fraction: {fraction:.3g} > {self._max_fraction:g} of the image"
        return None
