"""What of engine=ray needs no Ray: its settings, what a worker process does, and how a labeler travels."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest

from autolabel.app.compose import compose
from autolabel.app.recipe import Recipe, RemoteLabeler, built
from autolabel.core.errors import AutolabelError, ConfigError, MissingExtra
from autolabel.core.protocols import BatchLimit, Unit
from autolabel.engine import ray as ray_module
from autolabel.engine.inline import InlineEngine
from autolabel.engine.ray import MISSING, Desk, Feed, RayEngine, Share, Unhurried, set_meanwhile
from autolabel.engine.stage_times import StageTimes
from autolabel.engine.unit_worker import UnitWorker
from autolabel.store.memory import MemoryStore
from tests.fakes import ColourDetector, Pictures, album, labeler, units_of

SETTINGS = {key: value for key, value in compose("label", ["engine=ray"]).engine.items() if key != "_target_"}


def worker(the_labeler=None):
    return UnitWorker(the_labeler or labeler(), cores=1, memory_mb=64)


# -- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"), [("address", ""), ("cpus", 0), ("memory_mb", 1), ("object_store_mb", 10)]
)
def test_a_setting_that_ray_cannot_have_is_refused(key, value):
    with pytest.raises(ConfigError, match=f"^{key} must"):
        RayEngine(**{**SETTINGS, key: value})


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"must not be above max_actors"):
        RayEngine(**{**SETTINGS, "min_actors": 3, "max_actors": 2})
    with pytest.raises(ConfigError, match=r"with address it must be null"):
        RayEngine(**{**SETTINGS, "address": "auto", "cpus": 2})


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [(None, True), ("127.0.0.1:6379", True), ("localhost:6379", True), ("ray://127.0.0.1:10001", True), ("[::1]:6379", True),
     ("auto", False), ("10.0.0.5:6379", False), ("ray://head:10001", False), ("127.0.0.1.example.org:6379", False),
     ("ray://localhost@head:10001", False)],
)  # fmt: skip
def test_offline_forbids_a_cluster_that_may_be_elsewhere(monkeypatch, address, is_allowed):
    monkeypatch.setitem(sys.modules, "ray", None)  # who comes so far is told that it is missing
    monkeypatch.delenv("AUTOLABEL_OFFLINE", raising=False)
    engine = RayEngine(**{**SETTINGS, "address": address})
    with pytest.raises(MissingExtra):
        engine.on_gpus()
    monkeypatch.setenv("AUTOLABEL_OFFLINE", "1")
    expected = (MissingExtra, "needs Ray") if is_allowed else (ConfigError, "offline=true.*forbids; take")
    with pytest.raises(expected[0], match=expected[1]):
        engine.on_gpus()


def test_without_ray_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra) as caught:
        RayEngine(**SETTINGS).run(labeler(), [], MemoryStore())
    assert str(caught.value) == MISSING


def test_the_engine_that_nobody_runs_loads_no_ray():
    code = "import sys, autolabel.engine.ray, autolabel.app.label; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(600)
"""
CHILD = """
import os, signal, time
from autolabel.engine.ray import end_with_parent
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("gpus", "share", "actors"), [(None, Share(8, 1.0), 2), (0.5, Share(4, 0.5), 4), (0, Share(1, 0.0), 16)]
)
def test_actors_share_a_gpu_where_they_are_told_to(monkeypatch, gpus, share, actors):
    monkeypatch.setattr(ray_module, "alive_nodes", lambda: [{"CPU": 16.0, "GPU": 2.0}])
    engine = RayEngine(**{**SETTINGS, "gpus_per_actor": gpus})
    assert engine.share() == share
    assert engine.room(share) == actors


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part in it is Linux's")
def test_a_process_that_no_signal_ends_goes_with_the_one_that_started_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    try:
        parent.communicate(timeout=60)  # what the child holds open, too, comes to its end with it
    except subprocess.TimeoutExpired:
        os.kill(child, signal.SIGKILL)
        pytest.fail("it stayed")


def test_an_actor_is_such_a_process(monkeypatch):
    told = []
    monkeypatch.setattr(ray_module, "end_with_parent", lambda: told.append(True))
    monkeypatch.setattr(ray_module, "use_cores", lambda cores: None)
    with pytest.raises(EOFError):  # there is no labeler in nothing
        ray_module.Actor(b"", None, 1, 100, 1)
    assert told == [True]


class LostRay:
    """Ray's client after its connection broke: whatever is asked of an actor, and its end, is a ConnectionError."""

    def remote(self, *_):
        return self

    def options(self, **_):
        return self

    @property
    def next(self):
        raise ConnectionError("GRPC connection failed: the server\nhas gone away")

    def kill(self, _):
        raise ConnectionError("Client is shutting down.")


def test_a_cluster_that_the_client_loses_is_one_line(monkeypatch):
    monkeypatch.setattr(ray_module, "imported", LostRay)
    with pytest.raises(
        AutolabelError, match=r"^engine=ray lost its cluster: .*; what was committed is safe"
    ) as told:
        list(ray_module.relayed(None))
    assert "\n" not in str(told.value)


def test_settings_of_our_own_ray_leave_those_of_the_person_alone_and_are_taken_back(monkeypatch):
    monkeypatch.setenv("AUTOLABEL_SET_A", "7")
    monkeypatch.delenv("AUTOLABEL_SET_B", raising=False)
    with set_meanwhile({"AUTOLABEL_SET_A": "0", "AUTOLABEL_SET_B": "0"}):
        assert (os.environ["AUTOLABEL_SET_A"], os.environ["AUTOLABEL_SET_B"]) == ("7", "0")
    assert os.environ["AUTOLABEL_SET_A"] == "7"
    assert "AUTOLABEL_SET_B" not in os.environ


def test_the_loop_rests_a_third_of_the_time_between_units_and_a_second_at_the_most(monkeypatch):
    now, rests = [100.0], []
    monkeypatch.setattr(ray_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray_module.time, "sleep", rests.append)
    Unhurried.begin()
    one = Unhurried()
    one.on_execution_step(None)
    for between in (*[1.0] * 20, *[60.0] * 5, *[0.01] * 20):
        now[0] += between
        Unhurried.unit_came()
        one.on_execution_step(None)
    assert rests[0] == 0
    assert rests[20] == pytest.approx(1 / 3, abs=0.001)
    assert rests[25] == 1.0
    assert rests[-1] == pytest.approx(0.01 / 3, abs=0.0005)


# -- the worker --------------------------------------------------------------------------------------


def test_workers_give_the_records_of_the_inline_engine(tmp_path):
    units = units_of(album(tmp_path, 11))
    expected, found = MemoryStore(), MemoryStore()
    InlineEngine().run(labeler(), units, expected)
    one = worker()
    for unit in units:
        found.commit(unit, one.work(unit).records)
    assert list(found.records()) == list(expected.records())


def test_two_units_are_in_hand_at_once_and_one_that_is_alone_is_alone(tmp_path):
    units, one = units_of(album(tmp_path, 12)), worker()
    together, met = threading.Barrier(2), []

    def work(unit):
        with one.place():
            together.wait(timeout=10)
            met.append(unit.number)

    threads = [threading.Thread(target=work, args=(unit,)) for unit in units[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(met) == [0, 1]
    with one.place(alone=True):
        late = threading.Thread(target=lambda: one.place().__enter__() or met.append("late"))
        late.start()
        late.join(0.05)
        assert met == [*met[:2]]
    late.join(10)
    assert met[-1] == "late"


def test_what_a_model_raises_is_told_and_the_next_unit_is_labelled(tmp_path):
    class Broken(ColourDetector):
        def detect(self, frames):
            if any("000" in f.ref.image_id for f in frames):
                raise RuntimeError("the model\nbroke")
            return super().detect(frames)

    first, second = units_of(album(tmp_path, 6))
    one = worker(labeler(Broken()))
    returned = one.work(first)
    assert (returned.records, returned.fault, returned.error) == ((), "RuntimeError: the model broke", None)
    assert len(one.work(second).records) == 3


def test_what_is_the_persons_to_mend_is_told_as_such(tmp_path):
    class Misled(ColourDetector):
        def detect(self, frames):
            raise ConfigError("detect.conf must be something else")

    returned = worker(labeler(Misled())).work(units_of(album(tmp_path, 3))[0])
    assert (returned.fault, str(returned.error)) == ("", "detect.conf must be something else")
    assert str(pickle.loads(pickle.dumps(returned)).error) == str(returned.error)


def test_stage_times_are_told_once(tmp_path):
    units, one = units_of(album(tmp_path, 6)), worker()
    first, second = (one.work(unit).stages for unit in units)
    assert set(first) == {"decode", "detect", "segment", "refine"} == set(second)
    total = StageTimes()
    total.add(first)
    total.add(second)
    assert total.take()["decode"] == first["decode"] + second["decode"]


# -- the feed ----------------------------------------------------------------------------------------


def test_the_feed_gives_a_unit_as_often_as_it_is_asked_until_it_is_done():
    async def story():
        feed = Feed()
        later = asyncio.create_task(feed.get(1))
        await feed.put(0, b"zero")
        assert [await feed.get(0), await feed.get(0)] == [(True, b"zero")] * 2
        await feed.put(1, b"one")
        assert await later == (True, b"one")
        assert [await feed.begin(1), await feed.begin(1), await feed.begun(1)] == [(0, ""), (1, ""), 2]
        await feed.raised(1, "the model broke")
        assert await feed.begin(1) == (2, "the model broke")
        await feed.done(0)
        await feed.end(2)
        return [await feed.get(place) for place in range(3)]

    assert asyncio.run(story()) == [(True, None), (True, b"one"), (False, None)]


class Deaf:
    """A feed that is no actor: whatever it is told, it is silent."""

    def __getattr__(self, name):
        return self if name != "remote" else lambda *_: None


def test_what_was_handed_out_when_the_cluster_failed_is_handed_out_again():
    units = [Unit(n, n, ()) for n in range(6)]
    fresh, waiting = iter(units), {}
    desk = Desk(Deaf(), fresh, waiting)
    desk.fill(in_flight=3)
    assert desk.back(1) is units[1]
    assert desk.back(1) is None, "a second time"
    desk.fill(in_flight=3)
    assert set(waiting) == {0, 2, 3}
    for in_flight in (1, 2, 10):  # twice it fails again before all of them went out
        desk = Desk(Deaf(), fresh, waiting)
        desk.fill(in_flight)
    assert [desk.back(place).number for place in range(5)] == [0, 2, 3, 4, 5]
    assert (desk.back(5), waiting) == (None, {})


# -- how a labeler travels ---------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    album(tmp_path / "in", 3)
    monkeypatch.chdir(tmp_path)
    config = compose("label", ["detect=nano", "segment=box", "source.path=in"])
    from omegaconf import OmegaConf

    return Recipe(OmegaConf.to_yaml(config, resolve=True), (), str(tmp_path), str(tmp_path / "in"), "1")


@pytest.mark.slow
def test_a_remote_labeler_arrives_as_the_labeler_itself(recipe, tmp_path):
    identities, categories = recipe.told()
    remote = RemoteLabeler(recipe, identities, batch_limit=BatchLimit(16, 256), refiners=())
    arrived = pickle.loads(pickle.dumps(remote))
    assert arrived.identities == identities
    frames = [arrived.load(ref) for ref in Pictures(tmp_path / "in").images()]
    assert arrived.find(frames)() == remote.find(frames)()
    assert categories


@pytest.mark.slow
def test_a_process_that_computes_with_something_else_is_refused(recipe):
    identities, _ = recipe.told()
    other = {**identities, "detect": {**identities["detect"], "device": "abacus"}}
    with pytest.raises(ConfigError, match=r"detect \(device\) is .*, but abacus in the rest of the run"):
        built(recipe, other)


def test_a_node_without_the_pictures_is_refused(tmp_path):
    away = Recipe("{}", (), str(tmp_path), str(tmp_path / "nowhere"), "")
    with pytest.raises(ConfigError, match="every node must have the pictures under the same path"):
        away.build()
