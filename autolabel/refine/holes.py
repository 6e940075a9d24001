"""Small holes become part of the object."""

from __future__ import annotations

from collections.abc import Sequence

from autolabel.core.types import Dropped, ImageInfo, Instance
from autolabel.ops.components import fill_holes
from autolabel.refine.each import Refined, change_each, pixels


class HolesRefiner:
    """Fills holes of at most `max_px` pixels; 0 or null is off. Instances of the source's own labels are left
    alone."""

    def __init__(self, *, max_px: int | None) -> None:
        self._max_px = pixels("refine.holes.max_px", max_px) or 0

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        nothing: Refined = list(instances), []
        return change_each(instances, lambda mask: fill_holes(mask, self._max_px)) if self._max_px else nothing
