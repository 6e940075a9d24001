"""Small holes become part of the object."""

from __future__ import annotations

from collections.abc import Sequence

from autolabel.core.types import Dropped, ImageInfo, Instance, Rle
from autolabel.ops.components import fill_holes
from autolabel.refine.each import Refined, SizeLimit, change_each


class HolesRefiner:
    """Fills holes of at most `max_px` pixels, or of at most `max_fraction` of the object's area; 0 or null: off.
    Instances of the source's own labels are left alone."""

    def __init__(self, *, max_px: int | None, max_fraction: float | None = None) -> None:
        self._limit = SizeLimit(max_px, max_fraction)

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        nothing: Refined = list(instances), []
        return change_each(instances, self._change) if self._limit else nothing

    def _change(self, mask: Rle) -> Rle:
        return fill_holes(mask, self._limit.of(mask))
