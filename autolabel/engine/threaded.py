"""Pictures are read and decoded ahead by a few threads, models stay in the calling thread, and one thread behind
them makes the records and commits them.

What waits is bounded twice: by `ahead` batches on either side of the models, and by `memory_mb` of decoded pixels, so
that thumbnails and 12-megapixel pictures both fit. Behind the models nothing holds pixels.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from autolabel.core.errors import ConfigError
from autolabel.core.protocols import Finish, Labeler, RecordSink, Unit
from autolabel.core.types import Frame, ImageRecord, ImageRef
from autolabel.engine.units import batches

MOST_DECODERS = 16
"""A picture of 1080p takes a core some 20 ms; a large GPU labels hundreds a second."""

Loading = tuple[Unit, bool, list["Future[Frame | ImageRecord]"]]
"""A unit, whether this is its last batch, and the pictures of the batch on their way."""


class ThreadedEngine:
    """`workers` threads decode ahead (0: one a core, MOST_DECODERS at the most); `ahead` batches wait for the
    models at the most, of these `memory_mb` MB of pixels (beyond, one decoded picture a thread and the batch whose
    turn it is), and as many for their commit."""

    def __init__(self, *, workers: int, ahead: int, memory_mb: int) -> None:
        for key, value, least in (("workers", workers, 0), ("ahead", ahead, 1), ("memory_mb", memory_mb, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"engine.{key} must be a whole number of at least {least}, got {value!r}")
        self.workers = workers or min(MOST_DECODERS, len(os.sched_getaffinity(0)))
        self.ahead = ahead
        self.memory_mb = memory_mb

    def run(self, labeler: Labeler, units: Iterable[Unit], sink: RecordSink) -> None:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="autolabel-load")
        budget = Budget(self.memory_mb * 2**20)
        behind = Behind(sink, self.ahead)
        try:
            for turn, (unit, last, loading) in enumerate(self._ahead(self._submit(pool, labeler, units, budget))):
                budget.turn_of(turn)
                loaded = [future.result() for future in loading]
                finish = labeler.find(loaded)
                loading.clear()  # nothing may hold the pixels any more
                del loaded
                budget.give_back(turn)
                behind.put(unit, finish, last=last)
            behind.wait()
        finally:
            # Whatever raised, nothing that was planned may start, what the models are done with is committed, and
            # no thread may stay.
            budget.close()
            pool.shutdown(wait=True, cancel_futures=True)
            behind.close()

    def _submit(
        self, pool: ThreadPoolExecutor, labeler: Labeler, units: Iterable[Unit], budget: Budget
    ) -> Iterator[Loading]:
        def load(ref: ImageRef, turn: int) -> Frame | ImageRecord:
            loaded = labeler.load(ref)
            budget.take(turn, loaded.image_rgb.nbytes if isinstance(loaded, Frame) else 0)
            return loaded

        turn = 0
        for unit in units:
            parts = list(batches(unit.refs, labeler.batch_size))
            for number, refs in enumerate(parts, start=1):
                yield unit, number == len(parts), [pool.submit(load, ref, turn) for ref in refs]
                turn += 1

    def _ahead(self, submitted: Iterator[Loading]) -> Iterator[Loading]:
        """The same batches in the same order, with `ahead` of them submitted before the first is used."""
        waiting: deque[Loading] = deque()
        for loading in submitted:
            waiting.append(loading)
            if len(waiting) > self.ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


class Behind:
    """Finishes batches and commits their units, in order, in one thread; `most` batches wait for it."""

    def __init__(self, sink: RecordSink, most: int) -> None:
        self._sink = sink
        self._most = most
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="autolabel-finish")
        self._waiting: deque[Future[None]] = deque()
        self._records: list[ImageRecord] = []
        self._failed = False

    def put(self, unit: Unit, finish: Finish, *, last: bool) -> None:
        """Returns when there is room. Raises what an earlier batch raised."""
        self._waiting.append(self._pool.submit(self._work, unit, finish, last))
        while len(self._waiting) > self._most or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def wait(self) -> None:
        """Until all is committed. Raises what raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """As `wait`, and no thread stays; raises nothing."""
        self._pool.shutdown(wait=True)

    def _work(self, unit: Unit, finish: Finish, last: bool) -> None:
        if self._failed:
            return  # a unit that lacks records must not be committed
        try:
            self._records.extend(finish())
            if last:
                self._sink.commit(unit, self._records)
                self._records = []
        except BaseException:
            self._failed = True
            raise


class Budget:
    """Bytes of pictures that wait. A picture of the batch whose turn it is never waits for others to go, so the
    pictures behind it cannot block it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._turn = 0
        self._held: dict[int, int] = {}
        self._closed = False
        self._changed = threading.Condition()

    def take(self, turn: int, num_bytes: int) -> None:
        """Returns when there is room, when it is batch `turn`'s turn, or when all is over."""

        def may() -> bool:
            fits = sum(self._held.values()) + num_bytes <= self._limit
            return fits or turn <= self._turn or self._closed

        with self._changed:
            self._changed.wait_for(may)
            self._held[turn] = self._held.get(turn, 0) + num_bytes

    def turn_of(self, turn: int) -> None:
        with self._changed:
            self._turn = turn
            self._changed.notify_all()

    def give_back(self, turn: int) -> None:
        """The pictures of batch `turn` are done with."""
        with self._changed:
            self._held.pop(turn, None)
            self._changed.notify_all()

    def held_bytes(self) -> int:
        with self._changed:
            return sum(self._held.values())

    def close(self) -> None:
        """Let everybody go: nothing is waited for any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
