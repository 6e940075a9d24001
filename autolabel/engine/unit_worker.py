"""What a process that labels units for another one does, whoever sends them: knows no scheduler and no store.

Two units are in its hands at a time: while the models work on one, pictures of the other are read and decoded.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from autolabel.core.errors import AutolabelError
from autolabel.core.protocols import BatchLimit, Finish, Labeler, Unit
from autolabel.core.types import Frame, ImageRecord, ImageRef
from autolabel.engine.stage_times import Spent, times_of
from autolabel.engine.threaded import MOST_DECODERS, ThreadedEngine

AT_ONCE = 2
"""Units in hand, each with decoding threads and half of the memory for decoded pictures."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What came of a unit: its records, or why there are none. `error` is the person's to mend and ends the run,
    `fault` is anything else that was raised, in one line. `stages` says what the worker's stages took since it last
    told of them."""

    records: tuple[ImageRecord, ...] = ()
    error: AutolabelError | None = None
    fault: str = ""
    stages: Mapping[str, Spent] = field(default_factory=dict)


class UnitWorker:
    """Labels units with `cores` threads for the models and as many for decoding; from up to `AT_ONCE` threads."""

    def __init__(self, labeler: Labeler, *, cores: int, memory_mb: int) -> None:
        self._times = times_of(labeler)
        self._labeler = OneAtATime(labeler)
        self._engine = ThreadedEngine(
            workers=min(MOST_DECODERS, cores), ahead=2, memory_mb=max(1, memory_mb // AT_ONCE)
        )
        self._places = Places()

    def place(self, *, alone: bool = False) -> AbstractContextManager[None]:
        """Room to work on a unit. `alone`: nothing else is worked on meanwhile."""
        return self._places.taken(AT_ONCE if alone else 1)

    def work(self, unit: Unit) -> Returned:
        """The unit's records, or why there are none; raises nothing."""
        sink = Kept()
        error, fault = None, ""
        try:
            self._engine.run(self._labeler, (unit,), sink)
        except AutolabelError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - whatever a model raises costs this unit, not the others
            fault = f"{type(raised).__name__}: {' '.join(str(raised).split())[:500]}"
        return Returned(sink.records, error, fault, self._times.take())


class OneAtATime:
    """A labeler whose models one thread uses at a time; pictures are loaded by any number."""

    def __init__(self, labeler: Labeler) -> None:
        self._labeler = labeler
        self._lock = threading.Lock()

    @property
    def batch_limit(self) -> BatchLimit:
        return self._labeler.batch_limit

    def load(self, ref: ImageRef) -> Frame | ImageRecord:
        return self._labeler.load(ref)

    def find(self, loaded: Sequence[Frame | ImageRecord]) -> Finish:
        with self._lock:
            return self._labeler.find(loaded)


class Kept:
    """A RecordSink that holds one unit's records."""

    def __init__(self) -> None:
        self.records: tuple[ImageRecord, ...] = ()

    def commit(self, unit: Unit, records: Sequence[ImageRecord]) -> None:
        self.records = tuple(records)


class Places:
    """Room for `AT_ONCE` units, of which one may want all."""

    def __init__(self) -> None:
        self._free = AT_ONCE
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()


def use_cores(count: int) -> None:
    """This process and those it starts compute with so many threads. Before model libraries load, and after: what is
    loaded already reads no environment any more."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(count)
