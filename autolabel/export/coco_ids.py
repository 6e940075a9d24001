"""Ids of COCO's files, whichever they are. Memory grows by 8 bytes for an id of the source alone."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable

import numpy as np


class Ids:
    """Numbers of which some are brought along: first `announce` every own id, then take them from `numbers` in
    the same order."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self._own = array("q")

    def announce(self, *own_ids: int | None) -> None:
        if self.keep:
            self._own.extend([own_id for own_id in own_ids if own_id is not None])

    @property
    def brought(self) -> bool:
        """Whether any own id was announced; else the numbers are 1, 2, 3, ..."""
        return bool(self._own)

    @property
    def repeated(self) -> int:
        """How many announced ids were there before."""
        own = np.sort(np.frombuffer(self._own, np.int64)) if self._own else np.zeros(0, np.int64)
        return int((own[1:] == own[:-1]).sum())

    def numbers(self) -> Number:
        """Gives an own id the first time that it is asked for; else, and where there is none, the next one above
        the largest. Never twice the same."""
        twice = self._twice()
        new = itertools.count(max(0, max(self._own, default=0)) + 1)
        given: set[int] = set()
        keep = self.keep

        def number(own_id: int | None) -> int:
            if own_id is None or not keep or own_id in given:
                return next(new)
            if own_id in twice:
                given.add(own_id)
            return own_id

        return number

    def _twice(self) -> set[int]:
        own = np.sort(np.frombuffer(self._own, np.int64)) if self._own else np.zeros(0, np.int64)
        return set(own[1:][own[1:] == own[:-1]].tolist())


Number = Callable[[int | None], int]
