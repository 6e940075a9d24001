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
            passed = time.perf_counter() - started
            with self._lock:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + passed

    def seconds(self) -> Mapping[str, float]:
        """So far, in the order in which the stages first ended."""
        with self._lock:
            return dict(self._seconds)
