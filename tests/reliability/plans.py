"""Interruption plans: a run that is killed at random moments and continued, until it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.nursery import Ended, Nursery
from tests.reliability.programs import SETTINGS, configs

COMMAND = "tests.reliability.programs:command"


@dataclass(frozen=True)
class Bench:
    """Where a test's runs are: `folder` holds the pictures in `in`, the configuration, and runs by name."""

    nursery: Nursery
    folder: Path

    def arguments(self, run: str, *settings: str) -> tuple[str, ...]:
        own = ("--config-dir", configs(self.folder / "configs"), f"run={self.folder / run}")
        return ("label", str(self.folder / "in"), *SETTINGS, *own, *settings)

    def obeying(self, orders: str = "") -> tuple[str, str]:
        """Settings of a detector that obeys orders once; they are the same whatever the orders are."""
        file = self.folder / "orders"
        if orders:
            file.write_text(orders)
        return "detect=acting", f"detect.orders={file}"

    def label(self, run: str, *settings: str) -> Ended:
        return self.nursery.run(COMMAND, *self.arguments(run, *settings))

    def rows(self, run: str) -> dict[str, tuple[str, str]]:
        """Status and code of every picture that has a record; none may have two."""
        with contextlib.closing(sqlite3.connect(self.folder / run / "run.sqlite")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            found = db.execute(
                "SELECT m.image_id, r.status, r.code FROM record r LEFT JOIN manifest m USING (ordinal)"
            ).fetchall()
        ids = Counter(row[0] for row in found)
        assert set(ids.values()) <= {1}, "a picture has two records"
        return {name.decode("utf-8", "surrogateescape"): (status, code) for name, status, code in found}

    def codes(self, run: str) -> dict[str, str]:
        """The code of every picture that has no labels."""
        return {name: code for name, (status, code) in self.rows(run).items() if status == "failed"}

    def content(self, run: str) -> str:
        """Hash of all records in their order, and of all exported files."""
        digest = hashlib.sha256()
        with contextlib.closing(sqlite3.connect(self.folder / run / "run.sqlite")) as db:
            query = "SELECT ordinal, status, code, kept, dropped, data FROM record ORDER BY ordinal"
            for row in db.execute(query):
                digest.update(repr(row).encode())
        for path in sorted((self.folder / run / "export").rglob("*")):
            if path.is_file():
                digest.update(repr(path.relative_to(self.folder / run)).encode() + path.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What became of a plan: how many kills met a living process, and what the run held when it was whole."""

    kills: int
    content: str
    codes: dict[str, str]


def interrupt(bench: Bench, seed: int, workers: int, seconds: float, *settings: str) -> Outcome:
    """Kill a run up to four times, each at a random moment of its `seconds`, then let it finish."""
    dice = random.Random(seed)
    run, threads = f"plan-{workers}-{seed}", ("engine=threaded", f"engine.workers={workers}", *settings)
    kills, wanted = 0, dice.randint(1, 4)
    while kills < wanted:
        child = bench.nursery.start(COMMAND, *bench.arguments(run, *threads))
        time.sleep(dice.uniform(0, seconds))
        child.signal(signal.SIGKILL)  # a process that has ended waits for its parent: the signal hits nobody else
        if child.wait().code == -signal.SIGKILL:
            kills += 1
        else:  # it was quicker than thought: a whole run proves nothing
            shutil.rmtree(bench.folder / run)
            kills, seconds = 0, seconds * 0.7
    last = bench.label(run, *threads)
    assert last.code in (0, 2), last
    return Outcome(kills, bench.content(run), bench.codes(run))
