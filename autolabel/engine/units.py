"""Batches: a function of their unit's pictures alone, never of time or of where a run was interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from autolabel.core.protocols import BatchLimit
from autolabel.core.types import Frame, ImageRecord


def batches(pictures: Iterable[Frame | ImageRecord], limit: BatchLimit) -> Iterator[list[Frame | ImageRecord]]:
    """Consecutive pictures, each time up to the limit; the last may be fewer. A list is emptied when the next one is
    asked for, so that no two batches of pixels are there at once."""
    some: list[Frame | ImageRecord] = []
    for picture in pictures:
        some.append(picture)
        del picture
        if limit.reached(some):
            yield some
            some.clear()
    if some:
        yield some
