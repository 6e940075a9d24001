"""One instance at a time: the loop that the refiners share, and the check of their settings.

Instances that came with the source (`origin == "label"`) are the person's own work: no refiner here
changes or drops them, whatever its floors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from autolabel.core.errors import ConfigError
from autolabel.core.types import Dropped, Instance, Rle
from autolabel.ops.masks import area_px

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


def limit(key: str, value: float | None, low: float, high: float = math.inf) -> float | None:
    """A setting that is null or a number in [low, high]; raises ConfigError that names its key."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and low <= value <= high):
        range_ = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise ConfigError(f"{key} must be null or {range_}, got {value!r}")
    return value


def pixels(key: str, value: int | None, low: int = 0) -> int | None:
    """A setting that is null or a whole number of pixels."""
    limit(key, value, low)
    if value is not None and not isinstance(value, int):
        raise ConfigError(f"{key} must be null or a whole number of pixels, got {value!r}")
    return value


class SizeLimit:
    """The largest size of a part or a hole that counts as small: pixels, or a fraction of the object's area."""

    def __init__(self, key: str, max_px: int | None, max_fraction: float | None) -> None:
        self._px = pixels(f"{key}.max_px", max_px) or 0
        self._fraction = limit(f"{key}.max_fraction", max_fraction, 0, 1) or 0.0

    def __bool__(self) -> bool:
        return bool(self._px or self._fraction)

    def of(self, mask: Rle) -> int:
        """In pixels, for an object of this mask."""
        # 0.29 * 100 is a little less than 29 in binary.
        return max(self._px, int(self._fraction * area_px(mask) + 1e-6))
