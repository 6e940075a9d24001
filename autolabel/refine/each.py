"""One instance at a time: the loop that the refiners share, and the check of their settings.

Instances that came with the source (`origin == "label"`) are the person's own work: no refiner here
changes or drops them, whatever its floors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autolabel.core.types import Dropped, Instance, Rle
from autolabel.ops.masks import area_px
from autolabel.ops.settings import count, fraction, optional

Refined = tuple[list[Instance], list[Dropped]]


def drop_each(instances: Sequence[Instance], why: Callable[[Instance, Rle], str | None]) -> Refined:
    """Drops the instances for which `why` gives a reason."""
    kept: list[Instance] = []
    dropped: list[Dropped] = []
    for instance in instances:
        reason = why(instance, instance.mask) if instance.mask and instance.origin == "model" else None
        if reason is None:
            kept.append(instance)
        else:
            dropped.append(Dropped(instance, reason))
    return kept, dropped


def change_each(instances: Sequence[Instance], change: Callable[[Rle], Rle]) -> Refined:
    """Gives the instances the mask that `change` makes of theirs; drops none."""
    kept = []
    for instance in instances:
        mask = change(instance.mask) if instance.mask and instance.origin == "model" else instance.mask
        kept.append(instance if mask is None or mask == instance.mask else instance.with_mask(mask))
    return kept, []


class SizeLimit:
    """The largest size of a part or a hole that counts as small: pixels, or a fraction of the object's area."""

    def __init__(self, max_px: int | None, max_fraction: float | None) -> None:
        self._px = optional(count, "max_px", max_px, 0) or 0
        self._fraction = optional(fraction, "max_fraction", max_fraction) or 0.0

    def __bool__(self) -> bool:
        return bool(self._px or self._fraction)

    def of(self, mask: Rle) -> int:
        """In pixels, for an object of this mask."""
        # 0.29 * 100 is a little less than 29 in binary.
        return max(self._px, int(self._fraction * area_px(mask) + 1e-6))
