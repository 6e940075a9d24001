"""Small parts beside the object go; the object itself always stays."""

from __future__ import annotations

from collections.abc import Sequence

from autolabel.core.types import Dropped, ImageInfo, Instance, Rle
from autolabel.ops.components import drop_islands, keep_largest
from autolabel.ops.settings import flag
from autolabel.refine.each import Refined, SizeLimit, change_each


class IslandsRefiner:
    """Drops parts of at most `max_px` pixels, or of at most `max_fraction` of the object's area (0 or null: off), or
    all but the largest part.

    The largest part stays, whatever its size. Instances of the source's own labels are left alone.
    """

    def __init__(self, *, max_px: int | None, max_fraction: float | None = None, largest_only: bool) -> None:
        self._limit = SizeLimit(max_px, max_fraction)
        self._largest_only = flag("largest_only", largest_only)

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        nothing: Refined = list(instances), []
        return change_each(instances, self._change) if self._largest_only or self._limit else nothing

    def _change(self, mask: Rle) -> Rle:
        return keep_largest(mask) if self._largest_only else drop_islands(mask, self._limit.of(mask))
