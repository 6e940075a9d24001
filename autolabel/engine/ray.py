"""Units on a Ray cluster. The only file that imports ray.

Ray Data streams the units through a pool of actors, each with a labeler of its own. References go out, records come
back, pictures never travel; this process is the one writer, and hands out a unit for each that came back, so what is
in flight is bounded whatever the size of the manifest. The feed keeps a unit until it is done: whoever died, Ray asks
for it again by its number. A result that comes twice is dropped. From outside a cluster (`ray://`), where Ray Data does
not run, its pipeline lives in an actor there, and the rest is the same.
"""

from __future__ import annotations

import asyncio
import ctypes
import io
import logging
import math
import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, TypeVar

from autolabel.core.errors import AutolabelError, ConfigError, MissingExtra, SettingError
from autolabel.core.protocols import Labeler, RecordSink, Unit
from autolabel.core.text import one_line
from autolabel.core.types import ImageRecord
from autolabel.engine.labeler import failed
from autolabel.engine.stage_times import times_of
from autolabel.engine.unit_worker import AT_ONCE, Returned, UnitWorker, use_cores
from autolabel.ops.arrow import pyarrow
from autolabel.ops.settings import count, environment_flag, number, optional

logger = logging.getLogger(__name__)

T = TypeVar("T")
MISSING = "engine=ray needs Ray: pip install autolabel-sam2[ray]"
QUEUED = 1
"""Units that wait at an actor beside those in its hands, so that it never waits for us."""
HOPELESS = 3
"""So many units in a row that raise are not bad pictures: the run ends with what was raised."""
LOOK_EVERY_S = 5.0
"""How often the size of the cluster is asked for."""
LONGEST_REST_S = 1.0
"""How long Ray Data's loop may rest between two looks at what is done."""
OWN_SETTINGS = {
    "RAY_worker_niceness": "0",  # else any other program of the machine goes before our models
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_timeline": "0",
    "RAY_event_stats": "0",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",  # looks for new log files not at each turn, but
    "LOG_NAME_UPDATE_INTERVAL_S": "60",
}
"""Environment of a Ray that is started here: nobody looks at its figures, which every process would gather and send all
the time. What the person has set stays."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one actor is given."""

    cpus: int
    gpus: float


class RayEngine:
    """Actors on a Ray cluster, or on a Ray that is started here for the run (`address` null, with `cpus` cores; null:
    all).

    As many actors as the cluster holds, between `min_actors` and `max_actors` (null: one, no limit); where there are
    GPUs one for each GPU, with its share of the cores, elsewhere one a core. A unit whose actor died is begun
    `max_restarts` times more, then its pictures are `failed:worker_crash`. `memory_mb` bounds decoded pictures in an
    actor; `object_store_mb` is the shared memory of a Ray that is started here.
    """

    def __init__(
        self,
        *,
        address: str | None,
        cpus: int | None,
        min_actors: int | None,
        max_actors: int | None,
        cpus_per_actor: int | None,
        gpus_per_actor: float | None,
        max_restarts: int,
        memory_mb: int,
        object_store_mb: int,
    ) -> None:
        if address is not None and (not isinstance(address, str) or not address.strip()):
            raise SettingError(f"address must be auto, host:port, ray://host:port or null, got {address!r}")
        many = 10**6
        if cpus is not None and address is not None:
            raise SettingError("cpus is for a Ray that is started here; with address it must be null")
        self.address = address
        self.cpus = optional(count, "cpus", cpus, 1, many)
        self.min_actors = optional(count, "min_actors", min_actors, 1, many)
        self.max_actors = optional(count, "max_actors", max_actors, 1, many)
        if self.min_actors is not None and self.max_actors is not None and self.min_actors > self.max_actors:
            raise SettingError(f"min_actors must not be above max_actors, got {min_actors} and {max_actors}")
        self.cpus_per_actor = optional(count, "cpus_per_actor", cpus_per_actor, 1, many)
        self.gpus_per_actor = optional(number, "gpus_per_actor", gpus_per_actor, 0, 64)
        self.max_restarts = count("max_restarts", max_restarts, 0, 100)
        self.memory_mb = count("memory_mb", memory_mb, 2, 10**9)
        self.object_store_mb = count("object_store_mb", object_store_mb, 80, 10**9)
        self._mine = False

    def run(self, labeler: Labeler, units: Iterable[Unit], sink: RecordSink) -> None:
        """Run as every engine does. The labeler is pickled: one with models must know how to be built elsewhere."""
        task = Task(self, labeler, sink)
        waiting: dict[int, Unit] = {}
        fresh = iter(units)
        losses = 0
        with self._session():
            while True:
                committed = task.committed
                try:
                    task.stream(waiting, fresh)
                    return
                except ray_error() as error:
                    losses = 1 if task.committed > committed else losses + 1
                    if losses > self.max_restarts:
                        raise AutolabelError(
                            f"engine=ray: the cluster failed {losses} times without a finished unit: {one_line(error)}; "
                            "what was committed is safe, the same command continues"
                        ) from error
                    logger.warning("the cluster lost our work and begins it again: %s", one_line(error))

    def ask(self, question: Callable[[], T]) -> T:
        """What a process answers that has what an actor is given. Leaves Ray running for `run`; see `close`."""
        self._connect()
        ray, share = imported(), self.share()
        once = {"max_calls": 1, "max_retries": self.max_restarts}  # what it loaded goes with its process
        ask = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, **once)(answered)
        with quiet():
            try:
                answer: T = ray.get(ask.remote(share.cpus, question))
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, AutolabelError):
                    raise error.cause from None
                raise
            except ray.exceptions.RayError as error:
                raise AutolabelError(
                    f"engine=ray: the process that was to build the models ended: {one_line(error)}"
                ) from error
        return answer

    def on_gpus(self) -> bool:
        """Whether actors are given GPUs on this cluster."""
        self._connect()
        return self.share().gpus > 0

    def close(self) -> None:
        """End the Ray that this engine started, or leave the cluster that it joined. Does nothing otherwise."""
        if self._mine:
            self._mine = False
            with quiet():
                imported().shutdown()

    @contextmanager
    def _session(self) -> Iterator[None]:
        self._connect()
        try:
            with quiet():
                yield
        finally:
            self.close()

    def _connect(self) -> None:
        require_offline_address(self.address)
        ray = imported()
        if ray.is_initialized():  # by `ask`, or by the program that we are a part of
            return
        options: dict[str, Any] = {"address": self.address}
        if self.address is None:
            options = {"address": "local", "num_cpus": self.cpus, "include_dashboard": False,
                       "object_store_memory": self.object_store_mb << 20}  # fmt: skip
        with quiet(), own_signals(), no_stderr(), set_meanwhile(OWN_SETTINGS if self.address is None else {}):
            for last in (self.address is not None, False, True):
                try:
                    ray.init(**options, log_to_driver=False, logging_level="ERROR")
                    break
                except Exception as error:  # Ray raises just that when it takes more than 30 s to start
                    ray.shutdown()
                    if last:
                        where = (
                            "start Ray here" if self.address is None else f"reach engine.address={self.address}"
                        )
                        token = (
                            "; where it asks for a token, RAY_AUTH_MODE=token and the token must be here"
                            if from_outside(self.address)
                            else ""
                        )
                        raise AutolabelError(f"engine=ray cannot {where}: {one_line(error)}{token}") from error
        self._mine = True

    def share(self) -> Share:
        """What one actor is given on this cluster."""
        nodes = alive_nodes()
        with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
        gpus = self.gpus_per_actor
        if gpus is None:
            gpus = 1.0 if with_gpu else 0.0
        cpus = self.cpus_per_actor
        if cpus is None:
            cpus = min((int(n.get("CPU", 0) * gpus // n["GPU"]) for n in with_gpu), default=1) if gpus else 1
        return Share(max(1, cpus), gpus)

    def room(self, share: Share) -> int:
        """How many actors the cluster holds now, within the limits. Raises ConfigError for a Ray of our own that can
        never hold one."""
        held = sum(
            int(min(n.get("CPU", 0) // share.cpus, n.get("GPU", 0) / share.gpus if share.gpus else math.inf))
            for n in alive_nodes()
        )
        if not held and self.address is None:
            raise ConfigError(
                f"an actor is to have {share.cpus} cores and {share.gpus:g} GPUs, which this machine does not have; "
                "set engine.cpus_per_actor and engine.gpus_per_actor lower, or engine.cpus higher"
            )
        return max(self.min_actors or 1, min(held, self.max_actors or held))


class Task:
    """The units of one run and what comes back of them."""

    def __init__(self, engine: RayEngine, labeler: Labeler, sink: RecordSink) -> None:
        self._engine = engine
        # As Ray pickles: also what somebody defined in a notebook.
        self._labeler: bytes = imported().cloudpickle.dumps(labeler)
        self._times = times_of(labeler)
        self._sink = sink
        self._faults = 0
        self.committed = 0

    def stream(self, waiting: dict[int, Unit], fresh: Iterator[Unit]) -> None:
        """Hand out what waits and then what is fresh, commit what comes back. Raises what Ray raises when it loses
        more than it can replace; `waiting` then still has all that was ever handed out and is not back."""
        share = self._engine.share()
        size = Size(self._engine, share)
        desk = Desk(started_feed(), fresh, waiting)
        desk.fill(size.in_flight())
        if not waiting:
            return
        results = relayed if from_outside(self._engine.address) else rows
        for place, data in results(RayPipeline(self._engine, self._labeler, desk.feed, share, size.actors)):
            unit = desk.back(place)
            if unit is not None and data is not None:  # else of a task that was run twice
                self._commit(unit, pickle.loads(data))
                desk.fill(size.in_flight())
            if not waiting:
                return  # Ray Data takes seconds to find out by itself that this was all

    def _commit(self, unit: Unit, returned: Returned) -> None:
        self._times.add(returned.stages)
        if returned.error is not None:
            raise returned.error
        self._faults = self._faults + 1 if returned.fault else 0
        if self._faults >= HOPELESS:
            raise AutolabelError(f"engine=ray: {HOPELESS} units in a row raised, the last: {returned.fault}")
        if returned.fault:
            logger.warning("unit %d raised in two processes: %s", unit.number, returned.fault)
        self._sink.commit(unit, returned.records or faulty(unit, "unit_error", returned.fault))
        self.committed += 1


@dataclass(frozen=True, slots=True)
class RayPipeline:
    """What Ray Data does with the units of a feed."""

    engine: RayEngine
    labeler: bytes
    feed: Any
    share: Share
    actors: int

    def data(self) -> Any:
        """The records, as a Ray data set, where Ray Data runs."""
        from ray.data import ActorPoolStrategy, read_datasource

        engine, share = self.engine, self.share
        pool = ActorPoolStrategy(
            # A Ray of our own cannot grow, and Ray Data ends actors that it thinks are too many.
            min_size=self.actors if engine.address is None else engine.min_actors or 1,
            max_size=engine.max_actors,
            initial_size=self.actors,
            max_tasks_in_flight_per_actor=AT_ONCE + QUEUED,
            max_concurrent_calls_per_actor=AT_ONCE,
            enable_true_multi_threading=True,
        )
        source = feed_source(self.feed)
        units = read_datasource(source, override_num_blocks=1, num_cpus=0, label_selector=this_node())
        return units.map_batches(
            Actor,
            fn_constructor_args=(self.labeler, self.feed, share.cpus, engine.memory_mb, engine.max_restarts),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=pool,
            num_cpus=share.cpus,
            num_gpus=share.gpus,
        )


class Unhurried:
    """An execution callback that lets Ray Data's loop rest. It turns ten times a second, whatever there is to do, and
    each turn costs 5 ms; so it rests a third of the time in which a unit comes back, which is less than what waits
    at the actors. Ray Data makes the object itself, so what it knows is kept by the class."""

    between_s: ClassVar[float] = 0.0
    _last: ClassVar[float] = 0.0

    @classmethod
    def begin(cls) -> None:
        cls.between_s, cls._last = 0.0, time.monotonic()

    @classmethod
    def unit_came(cls) -> None:
        now = time.monotonic()
        cls.between_s, cls._last = (cls.between_s + now - cls._last) / 2, now

    def before_execution_starts(self, executor: object) -> None:
        pass

    def on_execution_step(self, executor: object) -> None:
        time.sleep(min(LONGEST_REST_S, self.between_s / 3))

    def after_execution_succeeds(self, executor: object) -> None:
        pass

    def after_execution_fails(self, executor: object, error: Exception) -> None:
        pass


class Size:
    """How many actors there may be, asked for now and then: a cluster grows and shrinks."""

    def __init__(self, engine: RayEngine, share: Share) -> None:
        self._engine, self._share = engine, share
        self.actors = engine.room(share)
        self._asked = time.monotonic()

    def in_flight(self) -> int:
        """Units that may be out: all actors busy, and one on its way."""
        if time.monotonic() - self._asked > LOOK_EVERY_S:
            self.actors, self._asked = self._engine.room(self._share), time.monotonic()
        return self.actors * (AT_ONCE + QUEUED) + 1


class Desk:
    """This side of the feed: which unit went out at which place. Hands out what `waiting` (by unit number) has from an
    earlier desk, then what is fresh, and keeps in it all that is not back."""

    def __init__(self, feed: Any, fresh: Iterator[Unit], waiting: dict[int, Unit]) -> None:
        self.feed = feed
        self._units = chain(tuple(waiting.values()), fresh)
        self._waiting = waiting
        self._out: dict[int, Unit] = {}
        self._place = 0
        self._more = True

    def fill(self, in_flight: int) -> None:
        """Hand out units until so many are out; the feed ends when there are no more."""
        while self._more and len(self._out) < in_flight:
            unit = next(self._units, None)
            if unit is None:
                self._more = False
                self.feed.end.remote(self._place)
            else:
                self._out[self._place] = self._waiting[unit.number] = unit
                self.feed.put.remote(self._place, pickle.dumps(unit, pickle.HIGHEST_PROTOCOL))
                self._place += 1

    def back(self, place: int) -> Unit | None:
        """The unit that went out there; None when it was back before."""
        unit = self._out.pop(place, None)
        if unit is not None:
            del self._waiting[unit.number]
            self.feed.done.remote(place)
        return unit


def started_feed() -> Any:
    """The feed as an actor on this node."""
    feed = imported().remote(Feed)
    return feed.options(num_cpus=0, max_concurrency=1000, label_selector=this_node()).remote()


class Feed:
    """An actor beside the writer: units by place, until they are done, and how often each was begun."""

    def __init__(self) -> None:
        self._units: dict[int, bytes] = {}
        self._begun: dict[int, int] = {}
        self._faults: dict[int, str] = {}
        self._done: set[int] = set()
        self._end: int | None = None
        self._changed = asyncio.Condition()

    async def put(self, place: int, unit: bytes) -> None:
        async with self._changed:
            self._units[place] = unit
            self._changed.notify_all()

    async def end(self, place: int) -> None:
        """There is nothing at this place, nor behind it."""
        async with self._changed:
            self._end = place
            self._changed.notify_all()

    async def get(self, place: int) -> tuple[bool, bytes | None]:
        """Whether there is such a place, and its unit; None when that is done. Waits for what is still to come."""

        def known() -> bool:
            over = self._end is not None and place >= self._end
            return over or place in self._units or place in self._done

        async with self._changed:
            await self._changed.wait_for(known)
            return self._end is None or place < self._end, self._units.get(place)

    async def begun(self, place: int) -> int:
        """How often somebody began with it."""
        return self._begun.get(place, 0)

    async def begin(self, place: int) -> tuple[int, str]:
        """Somebody begins with it; how often that happened before, and what it raised for good."""
        before = self._begun.get(place, 0)
        self._begun[place] = before + 1
        return before, self._faults.get(place, "")

    async def raised(self, place: int, fault: str) -> None:
        """It is given up: its answer may die with the process before it is with us."""
        self._faults[place] = fault

    async def done(self, place: int) -> None:
        self._done.add(place)
        self._units.pop(place, None)
        self._begun.pop(place, None)
        self._faults.pop(place, None)


class Actor:
    """What Ray Data keeps in a process of its own: a labeler, and the units that come, one a call."""

    def __init__(self, labeler: bytes, feed: Any, cores: int, memory_mb: int, max_restarts: int) -> None:
        end_with_parent()
        self._feed, self._max_restarts = feed, max_restarts
        self._broken = False
        use_cores(cores)
        try:
            self._worker: UnitWorker | AutolabelError = UnitWorker(
                pickle.loads(labeler), cores=cores, memory_mb=memory_mb
            )
        except AutolabelError as error:
            self._worker = error
        use_cores(cores)

    def __call__(self, table: Any) -> Any:
        pa = pyarrow()
        results = [self._answer(place, unit) for place, unit in pairs(table)]
        return pa.table({"place": table["place"], "data": pa.array(results, pa.binary())})

    def _answer(self, place: int, data: bytes | None) -> bytes | None:
        if data is None:
            return None
        worker = self._worker
        returned = (
            Returned(error=worker) if isinstance(worker, AutolabelError) else self._work(worker, place, data)
        )
        return pickle.dumps(returned, pickle.HIGHEST_PROTOCOL)

    def _work(self, worker: UnitWorker, place: int, data: bytes) -> Returned:
        ray, unit = imported(), pickle.loads(data)
        # Who was there when a process died does it alone from then on, so that only the culprit dies again.
        with worker.place(alone=ray.get(self._feed.begun.remote(place)) > 0):
            if self._broken:
                die()
            before, fault = ray.get(self._feed.begin.remote(place))
            if fault:
                return Returned(fault=fault)
            if before > self._max_restarts:
                ended = f"{before} processes ended while they labelled its unit; the unit is left out"
                return Returned(faulty(unit, "worker_crash", ended))
            returned = worker.work(unit)
            if returned.fault:
                # What a model raised may have spoiled the process (a CUDA error does): a new one tries it again, and
                # takes what is to come.
                if before == 0 and self._max_restarts:
                    die()
                ray.get(self._feed.raised.remote(place, returned.fault))
                self._broken = True
            return returned


def die() -> None:
    """End this process so that Ray starts another and gives it what this one had in hand."""
    os.kill(os.getpid(), signal.SIGKILL)


def end_with_parent() -> None:
    """Have the kernel (Linux) end this process when Ray's node, which started it, is gone: on a busy machine some
    were seen to wait for ever in their own clean-up."""
    if sys.platform == "linux":
        kill_when_parent_ends = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None).prctl(kill_when_parent_ends, signal.SIGKILL)


def feed_source(feed: Any) -> Any:
    """The units as a Ray Data source: one endless read, block by block, each a unit."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    pa = pyarrow()

    def read() -> Iterator[Any]:
        ray, place = imported(), 0
        while True:
            there, unit = ray.get(feed.get.remote(place))
            if not there:
                return
            yield pa.table({"place": [place], "data": pa.array([unit], pa.binary())})
            place += 1

    class FeedSource(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: object, **__: object) -> list[Any]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(read, unknown)]

    return FeedSource()


def rows(pipeline: RayPipeline) -> Iterator[tuple[int, bytes | None]]:
    """What a pipeline gives, in whatever order it is done."""
    Unhurried.begin()
    for table in pipeline.data().iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        Unhurried.unit_came()
        yield from pairs(table)


def relayed(pipeline: RayPipeline) -> Iterator[tuple[int, bytes | None]]:
    """The same by an actor of the cluster, which goes with what it began when nobody listens any more."""
    ray = imported()
    try:
        relay = ray.remote(Relay).options(num_cpus=0).remote(pipeline)
        try:
            while (row := ray.get(relay.next.remote())) is not None:
                yield row
        finally:
            ray.kill(relay)
    except ConnectionError as error:  # the client's, which has no way back to a cluster that it lost
        raise AutolabelError(
            f"engine=ray lost its cluster: {one_line(error)}; what was committed is safe, the same command continues"
        ) from error


class Relay:
    """Where Ray Data runs for one that is outside."""

    def __init__(self, pipeline: RayPipeline) -> None:
        self._rows = rows(pipeline)

    def next(self) -> tuple[int, bytes | None] | None:
        """The next finished unit; None after the last."""
        with quiet():
            return next(self._rows, None)


def require_offline_address(address: str | None) -> None:
    """Raises ConfigError where nothing may touch the network and the address may lead there. `auto` may: the other
    nodes of a cluster that this machine belongs to are anywhere. A head at a loopback address has its nodes here."""
    if address is None or not environment_flag("AUTOLABEL_OFFLINE", os.environ):
        return
    if re.fullmatch(r"(ray://)?(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", address.strip()):
        return
    raise ConfigError(
        f"engine.address={address} may be on other machines, which offline=true (or AUTOLABEL_OFFLINE=1) forbids; "
        "take engine.address=null, 127.0.0.1:PORT for a cluster of this machine alone, or offline=false"
    )


def from_outside(address: str | None) -> bool:
    """Whether it is reached through the Ray client."""
    return address is not None and address.startswith("ray://")


def pairs(table: Any) -> Iterator[tuple[int, bytes | None]]:
    return zip(table["place"].to_pylist(), table["data"].to_pylist(), strict=True)


def faulty(unit: Unit, code: str, detail: str) -> tuple[ImageRecord, ...]:
    """A failed record for each picture of the unit."""
    return tuple(failed(ref, code, detail) for ref in unit.refs)


def answered(cores: int, question: Callable[[], T]) -> T:
    use_cores(cores)
    return question()


def alive_nodes() -> list[dict[str, float]]:
    """The total resources of each node of the cluster."""
    return [node["Resources"] for node in imported().nodes() if node["Alive"]]


def this_node() -> dict[str, str]:
    """Where this process is: what hangs on it lives there too."""
    return {"ray.io/node-id": imported().get_runtime_context().get_node_id()}


def imported() -> Any:
    """The package ray. Raises MissingExtra."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra(MISSING) from error
    return ray


def ray_error() -> type[Exception]:
    error: type[Exception] = imported().exceptions.RayError
    return error


@contextmanager
def quiet() -> Iterator[None]:
    """Ray's own words stay off the screen, where our bar and summary are; they are in our log and in Ray's."""
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    # More actors where all have their hands full and one more waits, fewer only where nothing is left to do: by default
    # Ray Data ends actors that have one unit each, and never starts one with so little that waits.
    context.autoscaling_config = replace(
        context.autoscaling_config,
        actor_pool_util_upscaling_threshold=(AT_ONCE + QUEUED / 2) / AT_ONCE,
        actor_pool_util_downscaling_threshold=0.0,
    )
    context.target_max_block_size = 1  # every unit goes on by itself, at once
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, Unhurried]
    context.memory_usage_poll_interval_s = None  # a thread for each unit that measures what nobody reads
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with DataContext.current(context), redirect_stdout(LogStream()):
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


class LogStream(io.TextIOBase):
    """Text to our log, the first line of each message: Ray tells of dead processes on stdout, from a thread of its
    own, with pages of their state."""

    def write(self, text: str) -> int:
        line = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().partition("\n")[0]
        if line:
            logger.info("ray: %s", line[:500])
        return len(text)


@contextmanager
def no_stderr() -> Iterator[None]:
    """Ray's C++ says on descriptor 2 how much it is going to say."""
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nothing)
        os.close(kept)


@contextmanager
def set_meanwhile(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that have no value have these, for the processes that are started meanwhile."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def own_signals() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM; the one that was there is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
