"""How long each stage took, added up over threads. Measures; decides nothing, and is in no record."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class StageTimes:
    """Seconds on the clock by stage. Stages of different threads overlap, so they may add up to more than passed."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes, whatever it raises."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: time.perf_counter() - started})

    def add(self, seconds: Mapping[str, float]) -> None:
        """What somebody else measured."""
        with self._lock:
            for stage, passed in seconds.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + passed

    def seconds(self) -> Mapping[str, float]:
        """So far, in the order in which the stages first ended."""
        with self._lock:
            return dict(self._seconds)

    def take(self) -> Mapping[str, float]:
        """What was added since the last time, which begins anew."""
        with self._lock:
            taken, self._seconds = self._seconds, {}
        return taken

    def __reduce__(self) -> tuple[type[StageTimes], tuple[()]]:
        # In another process the clock begins at nothing, and a lock cannot travel.
        return StageTimes, ()


def times_of(labeler: object) -> StageTimes:
    """A labeler's own; for one that measures nothing, times that stay empty."""
    times = getattr(labeler, "times", None)
    return times if isinstance(times, StageTimes) else StageTimes()
