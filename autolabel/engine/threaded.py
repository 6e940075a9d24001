"""Pictures are read and decoded ahead by a few threads; models and commits stay in the calling thread."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from autolabel.core.errors import ConfigError
from autolabel.core.protocols import Labeler, RecordSink, Unit
from autolabel.core.types import Frame, ImageRecord
from autolabel.engine.units import batches

Loading = tuple[Unit, bool, list["Future[Frame | ImageRecord]"]]
"""A unit, whether this is its last batch, and the pictures of the batch on their way."""


class ThreadedEngine:
    """`workers` threads decode ahead (0: one a core, eight at the most); `ahead` batches wait at the most,
    which bounds the memory."""

    def __init__(self, *, workers: int, ahead: int) -> None:
        if not isinstance(workers, int) or workers < 0:
            raise ConfigError(f"engine.workers must be 0 (one a core) or more, got {workers!r}")
        if not isinstance(ahead, int) or ahead < 1:
            raise ConfigError(f"engine.ahead must be at least 1, got {ahead!r}")
        self.workers = workers or min(8, len(os.sched_getaffinity(0)))
        self.ahead = ahead

    def run(self, labeler: Labeler, units: Iterable[Unit], sink: RecordSink) -> None:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="autolabel-load")
        try:
            records: list[ImageRecord] = []
            for unit, last, loading in self._ahead(self._submit(pool, labeler, units)):
                records.extend(labeler.label([future.result() for future in loading]))
                if last:
                    sink.commit(unit, records)
                    records = []
        finally:
            # Whatever raised, nothing that was planned may start, and no thread may stay.
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, labeler: Labeler, units: Iterable[Unit]) -> Iterator[Loading]:
        for unit in units:
            parts = list(batches(unit.refs, labeler.batch_size))
            for number, refs in enumerate(parts, start=1):
                yield unit, number == len(parts), [pool.submit(labeler.load, ref) for ref in refs]

    def _ahead(self, submitted: Iterator[Loading]) -> Iterator[Loading]:
        """The same batches in the same order, with `ahead` of them submitted before the first is used."""
        waiting: deque[Loading] = deque()
        for loading in submitted:
            waiting.append(loading)
            if len(waiting) > self.ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
