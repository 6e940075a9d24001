"""A few of many, in one pass and in any order of arrival: the lowest, and a seeded random choice."""

from __future__ import annotations

import hashlib
import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Lowest(Generic[T]):
    """The `count` items with the lowest (value, tie), lowest first. Equal pairs keep the one that came first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[float, _Reversed, int, T]] = []
        self._arrived = 0

    def takes(self, value: float) -> bool:
        """Whether an item of this value may still be among them; spares making the item."""
        return self._count > 0 and (len(self._heap) < self._count or value <= -self._heap[0][0])

    def add(self, value: float, tie: str, item: T) -> None:
        if not self.takes(value):
            return
        self._arrived += 1
        entry = (-value, _Reversed(tie), -self._arrived, item)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def items(self) -> list[T]:
        return [entry[3] for entry in sorted(self._heap, key=lambda e: (-e[0], e[1].text, -e[2]))]


class _Reversed:
    """A text that sorts backwards: the heap's first entry is the one to go."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __lt__(self, other: _Reversed) -> bool:
        return self.text > other.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def lot(seed: int, text: str) -> float:
    """A number in [0, 1) that depends on the two alone: the lowest lots of many are a random choice of them."""
    digest = hashlib.blake2b(f"{seed}/{text}".encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / (1 << 48)
