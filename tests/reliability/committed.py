"""What a run database holds after a fault, and whether that keeps the promises: nothing lost, torn or done twice."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections import Counter
from pathlib import Path

from tests.reliability.faults import Fault, run_with
from tests.reliability.nursery import Nursery

PICTURES = 16
UNITS = 8
COMMIT = "tests.reliability.programs:commit"


def pictures_in(folder: Path) -> Path:
    """Files that stand for pictures; the program `commit` never decodes them."""
    folder.mkdir(exist_ok=True)
    for i in range(PICTURES):
        (folder / f"{i:02}{'x' * (i % 5)}").write_bytes(bytes(i + 1))
    return folder


def content(folder: Path) -> str:
    """Hash of every record with its place; the bytes of the file depend on the order of commits, this does not."""
    with contextlib.closing(sqlite3.connect(folder / "run.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = db.execute("SELECT ordinal, status, code, kept, dropped, data FROM record ORDER BY ordinal")
        return hashlib.sha256(repr(rows.fetchall()).encode()).hexdigest()


def units_of(folder: Path) -> set[int]:
    """The units that are there, each of them whole."""
    with contextlib.closing(sqlite3.connect(folder / "run.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'unit'").fetchone():
            return set()
        there = {n for (n,) in db.execute("SELECT number FROM unit")}
        records = Counter(n for (n,) in db.execute("SELECT m.unit FROM record r JOIN manifest m USING (ordinal)"))
    assert dict(records) == dict.fromkeys(there, PICTURES // UNITS), "a unit is half there"
    return there


def acknowledged(text: str) -> set[int]:
    return {int(line.split()[1]) for line in text.splitlines() if line.startswith("unit ")}


def survives(nursery: Nursery, fault: Fault, folder: Path, pictures: Path, expected: str) -> bool:
    """Run into the fault, look, finish, look again. Whether the process told of the fault."""
    folder.mkdir()
    ended = run_with(nursery, fault, COMMIT, str(folder), str(pictures))
    if (folder / "run.sqlite").exists():
        assert acknowledged(ended.text) <= units_of(folder), f"{fault}: an acknowledged unit is lost"
    after = nursery.run(COMMIT, str(folder), str(pictures))
    assert after.code == 0, f"{fault}: cannot be continued: {after.text}"
    assert not acknowledged(after.text) & acknowledged(ended.text), f"{fault}: a unit was done twice"
    assert content(folder) == expected, f"{fault}: other records than an undisturbed run"
    return ended.code != 0
