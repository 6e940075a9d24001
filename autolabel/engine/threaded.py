"""Pictures are read and decoded ahead by a few threads, models stay in the calling thread, and one thread behind
them makes the records and commits them.

What waits is bounded twice: by `ahead` batches on either side of the models, and by `memory_mb` of decoded pixels, so
that thumbnails and 12-megapixel pictures both fit. The batch itself ends by pictures and by bytes. Behind the models
nothing holds pixels.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from autolabel.core.protocols import Finish, Labeler, RecordSink, Unit
from autolabel.core.types import Frame, ImageRecord, ImageRef
from autolabel.ops.settings import count

SWITCH_S = 0.0005
"""Python's own 5 ms is for how long a thread that makes records may keep the models' thread from its next call."""
MOST_DECODERS = 16
"""A picture of 1080p takes a core some 20 ms; a large GPU labels hundreds a second."""

Loading = tuple[Unit, bool, int, "Future[Frame | ImageRecord]"]
"""A unit, whether this is its last picture, the picture's turn, and the picture on its way."""


class ThreadedEngine:
    """`workers` threads decode ahead (0: one a core, MOST_DECODERS at the most); `ahead` batches wait for the
    models at the most, of these and the batch that is begun `memory_mb` MB of pixels (beyond, one decoded picture a
    thread and the rest of that batch), and as many for their commit."""

    def __init__(self, *, workers: int, ahead: int, memory_mb: int = 1024) -> None:
        self.workers = count("workers", workers, 0) or min(MOST_DECODERS, len(os.sched_getaffinity(0)))
        self.ahead = count("ahead", ahead, 1)
        self.memory_mb = count("memory_mb", memory_mb, 1)

    def run(self, labeler: Labeler, units: Iterable[Unit], sink: RecordSink) -> None:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="autolabel-load")
        budget = Budget(self.memory_mb * 2**20)
        behind = Behind(sink, self.ahead)
        limit = labeler.batch_limit
        loaded: list[Frame | ImageRecord] = []
        switch_s = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_S, switch_s))
        try:
            submitted = self._submit(pool, labeler, units, budget)
            for unit, last, turn, loading in ahead(submitted, self.ahead * limit.pictures):
                budget.turn_of(turn)
                loaded.append(loading.result())
                del loading  # nothing may hold pixels that the models are done with
                if last or limit.reached(loaded):
                    finish = labeler.find(loaded)
                    loaded.clear()
                    budget.give_back(turn)
                    behind.put(unit, finish)
            behind.wait()
        finally:
            # Whatever raised, nothing that was planned may start, what the models are done with is committed, and
            # no thread may stay.
            budget.close()
            pool.shutdown(wait=True, cancel_futures=True)
            behind.close()
            sys.setswitchinterval(switch_s)

    def _submit(
        self, pool: ThreadPoolExecutor, labeler: Labeler, units: Iterable[Unit], budget: Budget
    ) -> Iterator[Loading]:
        def load(ref: ImageRef, turn: int) -> Frame | ImageRecord:
            loaded = labeler.load(ref)
            budget.take(turn, loaded.image_rgb.nbytes if isinstance(loaded, Frame) else 0)
            return loaded

        turn = 0
        for unit in units:
            for number, ref in enumerate(unit.refs, start=1):
                yield unit, number == len(unit.refs), turn, pool.submit(load, ref, turn)
                turn += 1


def ahead(submitted: Iterator[Loading], most: int) -> Iterator[Loading]:
    """The same in the same order, with `most` of them submitted before the first is used."""
    waiting: deque[Loading] = deque()
    for _ in range(most):
        waiting.extend(islice(submitted, 1))
    while waiting:
        waiting.extend(islice(submitted, 1))
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

    def put(self, unit: Unit, finish: Finish) -> None:
        """Returns when there is room. Raises what an earlier batch raised."""
        self._waiting.append(self._pool.submit(self._work, unit, finish))
        while len(self._waiting) > self._most or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def wait(self) -> None:
        """Until all is committed. Raises what raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Like `wait`, and no thread stays; raises nothing."""
        self._pool.shutdown(wait=True)

    def _work(self, unit: Unit, finish: Finish) -> None:
        if self._failed:
            return  # a unit that lacks records must not be committed
        try:
            self._records.extend(finish())
            if len(self._records) == len(unit.refs):
                self._sink.commit(unit, self._records)
                self._records = []
        except BaseException:
            self._failed = True
            raise


class Budget:
    """Bytes of pictures that wait, by their turn. The one whose turn it is never waits for others to go, so those
    behind it cannot block it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._turn = 0
        self._held: dict[int, int] = {}
        self._closed = False
        self._changed = threading.Condition()

    def take(self, turn: int, num_bytes: int) -> None:
        """Returns when there is room, when it is picture `turn`'s turn, or when all is over."""

        def may() -> bool:
            fits = sum(self._held.values()) + num_bytes <= self._limit
            return fits or turn <= self._turn or self._closed

        with self._changed:
            self._changed.wait_for(may)
            self._held[turn] = num_bytes

    def turn_of(self, turn: int) -> None:
        with self._changed:
            self._turn = turn
            self._changed.notify_all()

    def give_back(self, last: int) -> None:
        """Pictures up to `last` are done with."""
        with self._changed:
            for turn in [turn for turn in self._held if turn <= last]:
                del self._held[turn]
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody go: nothing is waited for any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
