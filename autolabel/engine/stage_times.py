"""How long each stage took, added up over threads. Measures; decides nothing, and is in no record."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds on the clock, added up over the threads that were in a stage, and how many were at once at the most."""

    seconds: float = 0.0
    at_once: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, max(self.at_once, other.at_once))


class StageTimes:
    """What each stage took. Stages of different threads overlap, so their seconds may add up to more than passed."""

    def __init__(self) -> None:
        self._spent: dict[str, Spent] = {}
        self._inside: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes, whatever it raises."""
        with self._lock:
            self._inside[stage] += 1
            at_once = self._inside[stage]
        started = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - started
            with self._lock:
                self._inside[stage] -= 1
            self.add({stage: Spent(passed, at_once)})

    def add(self, stages: Mapping[str, Spent]) -> None:
        """What somebody else measured."""
        with self._lock:
            for stage, spent in stages.items():
                self._spent[stage] = self._spent.get(stage, Spent()) + spent

    def seconds(self) -> Mapping[str, float]:
        """So far, in the order in which the stages first ended."""
        with self._lock:
            return {stage: spent.seconds for stage, spent in self._spent.items()}

    def slowest(self) -> str | None:
        """The stage that holds the others up: eight threads that decode for a second each do it in one. None: none
        yet."""
        with self._lock:
            waited = {stage: spent.seconds / spent.at_once for stage, spent in self._spent.items()}
        return max(waited, key=lambda stage: waited[stage], default=None)

    def take(self) -> Mapping[str, Spent]:
        """What was added since the last time, which begins anew."""
        with self._lock:
            taken, self._spent = self._spent, {}
        return taken

    def __reduce__(self) -> tuple[type[StageTimes], tuple[()]]:
        # In another process the clock begins at nothing, and a lock cannot travel.
        return StageTimes, ()


def times_of(labeler: object) -> StageTimes:
    """A labeler's own; for one that measures nothing, times that stay empty."""
    times = getattr(labeler, "times", None)
    return times if isinstance(times, StageTimes) else StageTimes()
