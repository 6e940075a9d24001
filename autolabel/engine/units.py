"""Units and batches: a function of the manifest alone, never of where a run was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive runs of `size` items; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
