"""Records in memory: for tests, and for the Python interface, which hands records to its caller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autolabel.core.protocols import Unit
from autolabel.core.types import Category, ImageRecord


class MemoryStore:
    """A RecordSink and a RecordReader at once."""

    document = ""

    def __init__(self, categories: Sequence[Category] = ()) -> None:
        self._categories = tuple(categories)
        self._units: dict[int, tuple[ImageRecord, ...]] = {}

    @property
    def categories(self) -> tuple[Category, ...]:
        return self._categories

    def commit(self, unit: Unit, records: Sequence[ImageRecord]) -> None:
        self._units.setdefault(unit.number, tuple(records))

    def records(self) -> Iterator[ImageRecord]:
        for number in sorted(self._units):
            yield from self._units[number]
