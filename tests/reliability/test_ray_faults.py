"""engine=ray under faults: processes of a real Ray are killed, and the run is the one that nobody disturbed."""

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autolabel.app.main import main
from tests.fakes import album

pytest.importorskip("ray", reason="Ray is not installed: pip install autolabel-sam2[ray]")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PICTURES, A_UNIT = 48, 4
NAMES = {"kills": "no such picture", "raises": "no such picture", "delay_s": 0.05}


class Bench:
    """A folder of pictures, runs over them, and what a run holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        album(folder / "in", PICTURES)
        node = {"_target_": "tests.reliability.ray_models.HarmfulDetector", **NAMES}
        (folder / "configs" / "detect").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(node), folder / "configs" / "detect" / "harmful.yaml")

    def arguments(self, run, *settings):
        return [
            "label", str(self.folder / "in"), "--config-dir", str(self.folder / "configs"), "detect=harmful",
            "segment=box", f"unit_size={A_UNIT}", "batch_size=2", "export=[coco,yolo]", "decode.isolated=false",
            f"run={self.folder / run}", *settings,
        ]  # fmt: skip

    def inline(self, run, *settings):
        return main(self.arguments(run, "engine=inline", *settings))

    def ray(self, run, *settings, cpus=2):
        joins = any(s.startswith("engine.address") for s in settings)
        own = () if joins else (f"engine.cpus={cpus}",)
        small = ("engine.object_store_mb=100", "engine=ray", *own)
        # Not into a pipe, which a process that is left behind would hold open.
        with (self.folder / f"{run}.txt").open("w") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "autolabel.app.main", *self.arguments(run, *small, *settings)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **({"AUTOLABEL_OFFLINE": "0"} if joins else {})},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def ended(self, run, process, code):
        """What the program said, which ends with this code."""
        process.wait(timeout=600)
        text = (self.folder / f"{run}.txt").read_text()
        assert process.returncode == code, text
        assert "Traceback" not in text
        return text

    def units(self, run):
        """How many units are committed."""
        database = self.folder / run / "run.sqlite"
        if not database.exists():
            return 0
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            try:
                return db.execute("SELECT count(*) FROM unit").fetchone()[0]
            except sqlite3.OperationalError:  # not made yet
                return 0

    def until(self, run, units, process):
        while self.units(run) < units:
            assert process.poll() is None, (self.folder / f"{run}.txt").read_text()
            time.sleep(0.02)

    def content(self, run):
        """Hash of every record in its place and of all exported files; a picture has one record at most."""
        digest = hashlib.sha256()
        with contextlib.closing(sqlite3.connect(self.folder / run / "run.sqlite")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            for row in db.execute("SELECT * FROM record ORDER BY ordinal"):
                digest.update(repr(row).encode())
        for path in sorted((self.folder / run / "export").rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(self.folder / run).as_posix().encode() + path.read_bytes())
        return digest.hexdigest()

    def codes(self, run):
        with contextlib.closing(sqlite3.connect(self.folder / run / "run.sqlite")) as db:
            query = "SELECT m.image_id, r.code FROM record r JOIN manifest m USING (ordinal) WHERE r.code != ''"
            return {name.decode(): code for name, code in db.execute(query)}


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def below(pid):
    """The processes that this one started, theirs too, and how they are called."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(entry.name)
            parents[number] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            names[number] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    found, todo = {}, [pid]
    while todo:
        parent = todo.pop()
        children = [child for child, its in parents.items() if its == parent]
        found |= {child: names[child] for child in children}
        todo += children
    return found


def workers(pid):
    return sorted(number for number, name in below(pid).items() if name.startswith("ray::MapWorker"))


def gone(pids, seconds):
    """Whether all of them end in time; one that nobody waits for any more is gone too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not [pid for pid in pids if alive(pid)]:
            return True
        time.sleep(0.1)
    return False


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def with_node(cluster, **options):
    """A node of the cluster; Ray gives up when that takes 30 s, as it does on a busy machine."""
    for _ in range(4):
        with contextlib.suppress(Exception):
            return cluster.add_node(**options)
    return cluster.add_node(**options)


def test_killed_actors_cost_nothing(bench):
    bench.inline("whole")
    process = bench.ray("run")
    for units in (2, 6):
        bench.until("run", units, process)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
    text = bench.ended("run", process, 0)
    assert "(raylet)" not in text, "Ray's own words are not the answer"
    assert bench.content("run") == bench.content("whole")


def test_a_killed_node_costs_nothing(bench):
    from ray.cluster_utils import Cluster

    bench.inline("whole")
    small = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster()
    try:
        with_node(cluster, include_dashboard=False, **small)
        node = with_node(cluster, **small)
        process = bench.ray("run", f"engine.address={cluster.address}")
        bench.until("run", 3, process)
        cluster.remove_node(node, allow_graceful=False)
        bench.ended("run", process, 0)
    finally:
        cluster.shutdown()
    assert bench.content("run") == bench.content("whole")


def test_after_a_killed_driver_no_process_stays_and_another_engine_continues(bench):
    bench.inline("whole")
    process = bench.ray("run")
    bench.until("run", 3, process)
    started = list(below(process.pid))
    process.kill()
    process.wait()
    committed = bench.units("run")
    assert 3 <= committed < PICTURES // A_UNIT
    assert gone(started, 120)
    assert bench.inline("run") == 0
    assert bench.content("run") == bench.content("whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_within_ten_seconds_and_leaves_no_process(number, bench):
    process = bench.ray("run")
    bench.until("run", 2, process)
    started = list(below(process.pid))
    process.send_signal(number)
    told = time.monotonic()
    bench.ended("run", process, 130)
    assert time.monotonic() - told < 10
    assert gone(started, 120)
    assert 2 <= bench.units("run") < PICTURES // A_UNIT
    assert bench.inline("run") == 0
    bench.inline("whole")
    assert bench.content("run") == bench.content("whole")


def test_what_kills_or_raises_fails_its_own_unit_alone(bench):
    harm = ("detect.kills=picture 007.png", "detect.raises=picture 020.png")
    bench.inline("whole")
    text = bench.ended("run", bench.ray("run", *harm, "engine.max_restarts=1"), 2)
    assert "unit_error: RuntimeError: the model broke" in text
    codes = bench.codes("run")
    assert sorted(codes.values()) == ["unit_error"] * A_UNIT + ["worker_crash"] * A_UNIT
    assert {codes["1/picture 007.png"], codes["2/picture 020.png"]} == {"worker_crash", "unit_error"}
    with contextlib.closing(sqlite3.connect(bench.folder / "run" / "run.sqlite")) as db:
        db.execute("ATTACH ? AS whole", (str(bench.folder / "whole" / "run.sqlite"),))
        query = "SELECT count(*) FROM record r JOIN whole.record w USING (ordinal) WHERE r.data = w.data"
        assert db.execute(query).fetchone() == (PICTURES - 2 * A_UNIT,)
