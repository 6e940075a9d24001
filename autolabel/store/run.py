"""A run: one SQLite file with the manifest, the records, and what they were made with.

WAL with synchronous=FULL, one writer, one transaction a unit: a killed process loses the unit in flight and
nothing else. Closed runs are left in rollback mode, so that one file is the whole run and opens read-only.
Records never hold times, workers or attempts: equal work gives equal rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolabel.core.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreMismatch
from autolabel.core.protocols import Unit
from autolabel.core.text import printable
from autolabel.core.types import Category, Columns, ImageRecord, ImageRef, Problem
from autolabel.ops.changes import changed
from autolabel.store.codec import decode_columns, decode_record, encode_record
from autolabel.store.listing import Listing
from autolabel.store.lock import WORK_ON_A_COPY
from autolabel.store.looks import look_again
from autolabel.store.manifest import GONE, INDEX, LOOK, OTHER, Entry, bring_up_to_date, compare
from autolabel.store.place import free_bytes, network_file_system

FILE_NAME = "run.sqlite"
APPLICATION_ID = 0x41_4C_42_4C  # "ALBL"
SCHEMA_VERSION = 1
CHECKPOINT_EVERY = 64
"""Units between two checkpoints; automatic ones hide I/O errors, so they are off."""

VANISHED = Problem("vanished", "the picture is no longer in the source")
"""The problem of a picture that left the source before it was labelled."""
FLOOR_BYTES = 64 << 20
"""No unit is committed with less room on the disk: SQLite itself still needs some to close the run."""

SCHEMA = f"""
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE manifest(
    ordinal INTEGER PRIMARY KEY, unit INTEGER NOT NULL, image_id BLOB NOT NULL, path BLOB NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, labels BLOB NOT NULL);
CREATE INDEX manifest_unit ON manifest(unit);
{INDEX};
CREATE TABLE unit(number INTEGER PRIMARY KEY);
CREATE TABLE record(
    ordinal INTEGER PRIMARY KEY, status TEXT NOT NULL, code TEXT NOT NULL, kept INTEGER NOT NULL,
    dropped INTEGER NOT NULL, data BLOB NOT NULL);
"""
BY_STATUS = "CREATE INDEX IF NOT EXISTS record_status ON record(status, code)"
"""Counting reads no record then. Runs of earlier versions get it when they are continued."""


REVISED = """
SELECT r.ordinal, m.image_id, m.path, r.data FROM record r JOIN manifest m USING (ordinal)
WHERE r.ordinal > ? ORDER BY r.ordinal LIMIT 256
"""


RECORDS = "SELECT m.image_id, m.path, r.data FROM manifest m JOIN record r USING (ordinal)"
PRESENT = "ordinal NOT IN gone"
"""Whether the source still has a picture. Its record stays for the day when it comes back."""


Row = tuple[Any, ...]
"""A row of two tables together; SQLite keeps any type in any column."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What changed between the manifest and the pictures as they are now."""

    added: int
    changed: int
    vanished: int
    """How many of all that were ever listed are not there now."""
    away: int
    others: bool
    """Whether readers see other pictures than before: one vanished since the last time, or is back."""


class RunStore:
    """The one writer of a run. Create it through `open_store`. While units are listed in one thread, another may
    commit."""

    def __init__(self, connection: sqlite3.Connection, directory: Path) -> None:
        self._db = connection
        self.directory = directory
        self._commits = 0
        self._turn = threading.Lock()
        """The turn of `pending` or `commit` at the connection."""

    # -- what the run is made with -----------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, **values: str) -> None:
        with _transaction(self._db):
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    @property
    def has_records(self) -> bool:
        """Whether anything was committed that is kept. Where all units are to be done again, records of pictures that
        left the source are all there is."""
        return self._db.execute("SELECT 1 FROM record LIMIT 1").fetchone() is not None

    def claim(
        self, fingerprint: Mapping[str, str], choices: Callable[[], Sequence[Mapping[str, str]]] = tuple
    ) -> None:
        """Record what this run is made with, or raise StoreMismatch showing what differs from before.

        While it has no records, nothing holds a run to its first settings and to its first list of pictures.
        """
        stored = self.meta("fingerprint")
        if stored is None or not self.has_records:
            with _transaction(self._db):
                self._db.execute("DELETE FROM manifest")
            self.set_meta(fingerprint=json.dumps(dict(fingerprint), sort_keys=True))
            return
        before = mapping_of(self, "fingerprint")
        if before != fingerprint:
            changes = changed([before, fingerprint], choices())
            with_what, way_out = "other settings", "use the old settings to continue it, or"
            if [key for key, _ in changes] == ["classes"]:  # settings that choose classes would be among them
                with_what = "other classes, and no setting has changed: those of the source have"
                way_out = "its records hold the old class numbers: label the source as it is now in"
            raise StoreMismatch(
                f"{self.directory} was labelled with {with_what} (then -> now):\n"
                + "\n".join(printable(f"  {key}: {then} -> {now}") for key, (then, now) in changes)
                + f"\n{way_out} another directory with run=... to start afresh"
            )

    # -- the manifest --------------------------------------------------------------------------------

    def sync(self, listed: Listing | Iterable[Entry], *, root: str, unit_size: int) -> Synced:
        """Freeze the manifest, or bring it up to date: new pictures are appended as new units, changed ones
        are labelled again with their whole unit, as are those that failed for a reason that may have passed;
        labelled ones that are listed and cannot be read now keep the record they have, and so do vanished ones,
        which readers do not see until they are back. A picture is changed when its file or its annotations are; of one
        whose size and time are as before, the inode and the time of its last change say whether to read it again.

        Raises StoreMismatch when the pictures are those of another data set, SourceError for one that is listed twice.
        """
        root = root.encode(errors="backslashreplace").decode()  # SQLite's text is UTF-8; a path may be any bytes
        with (
            _as_listing(listed, self.directory) as listing,
            listing.attached(self._db),
        ):
            self._look_again(listing)
            with _transaction(self._db):
                found = compare(self._db)
                if found.before and found:
                    self._refuse_other_root(root)
                others = bring_up_to_date(self._db, found, unit_size)
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('root', ?)", (root,))
        return Synced(
            added=found.added if found.before else 0,
            changed=found.changed,
            vanished=found.vanished,
            away=found.away,
            others=others,
        )

    def _look_again(self, listing: Listing) -> None:
        """What is found to be the same is kept as it goes: 100 000 pictures take minutes, and somebody may stop it.
        What is another picture is only noted with what follows from it."""
        self._db.execute("DROP TABLE IF EXISTS temp.other")  # of a sync that was refused
        self._db.execute(OTHER)
        for same, others in look_again(self._db, listing):
            with _transaction(self._db):
                self._db.executemany("INSERT OR REPLACE INTO look VALUES (?, ?, ?)", same)
                self._db.executemany("INSERT INTO other VALUES (?)", others)

    def _refuse_other_root(self, root: str) -> None:
        # A moved data set is welcome, so only a root that brings other pictures is refused. The same names are
        # not the same pictures: cameras number theirs alike.
        before = self.meta("root")
        if before is not None and before != root:
            raise StoreMismatch(
                f"{self.directory} holds the pictures of {before}, not those of {root}; "
                "use another directory with run=..."
            )

    # -- the work ------------------------------------------------------------------------------------

    def pending(self, refs: Mapping[str, ImageRef]) -> Iterator[Unit]:
        """Units without a commit, in order. A picture that is no longer in `refs` comes with the problem VANISHED:
        at its old path it would be labelled without its annotations."""
        with self._turn:
            numbers = self._db.execute(
                "SELECT DISTINCT unit FROM manifest WHERE unit NOT IN (SELECT number FROM unit) ORDER BY unit"
            ).fetchall()
        for (number,) in numbers:
            with self._turn:
                rows = self._db.execute(
                    "SELECT ordinal, image_id, path FROM manifest WHERE unit = ? ORDER BY ordinal", (number,)
                ).fetchall()
            members = ((os.fsdecode(image_id), os.fsdecode(path)) for _, image_id, path in rows)
            yield Unit(
                number, rows[0][0], tuple(refs.get(i) or ImageRef(i, p, problem=VANISHED) for i, p in members)
            )

    def pending_images(self) -> int:
        (count,) = self._db.execute(
            "SELECT count(*) FROM manifest WHERE unit NOT IN (SELECT number FROM unit)"
        ).fetchone()
        return int(count)

    def commit(self, unit: Unit, records: Sequence[ImageRecord]) -> None:
        """All records of the unit in one transaction; a unit that is already there is left alone, and so is the
        record of a picture that vanished since, or cannot be read now."""
        rows = [
            (unit.start + i, r.status, r.code, r.num_kept, len(r.verdicts) - r.num_kept, encode_record(r))
            for i, r in enumerate(records)
        ]
        assert [r.image_id for r in records] == [ref.image_id for ref in unit.refs], "records of another unit"
        free = free_bytes(self.directory)
        if free < FLOOR_BYTES:
            raise StoreFull(
                f"{self.directory}: only {free >> 20} MiB free; what was committed is safe, "
                "make room and the same command continues"
            )
        with self._turn:
            with _transaction(self._db):
                if self._db.execute("INSERT OR IGNORE INTO unit VALUES (?)", (unit.number,)).rowcount:
                    # Only a picture that is away still has a record here.
                    self._db.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._commits += 1
            if self._commits % CHECKPOINT_EVERY == 0:
                self._checkpoint()

    def adopt(self, rows: Sequence[Row]) -> int:
        """Pictures of another run with their records, as `RunReader.rows` gives them, in one transaction; how many
        there were. Raises StoreCorrupt for a picture that is there already."""
        records = [(row[0], *row[7:]) for row in rows]
        try:
            with _transaction(self._db):
                self._db.executemany(
                    "INSERT INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?)", [row[:7] for row in rows]
                )
                self._db.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)", records)
                units = [(unit,) for unit in dict.fromkeys(row[1] for row in rows)]
                self._db.executemany("INSERT OR IGNORE INTO unit VALUES (?)", units)
        except sqlite3.IntegrityError as error:
            raise StoreCorrupt(f"a picture is there twice, or has no record: {error}") from error
        self._checkpoint()
        return len(rows)

    def revise(self, change: Callable[[ImageRecord], ImageRecord], **meta: str) -> int:
        """Every record as `change` gives it back, and `meta` that says why: all in one transaction, so that a kill
        leaves the old run or the new one. How many records differ."""
        revised, last = 0, -1
        with _transaction(self._db):
            while rows := self._db.execute(REVISED, (last,)).fetchall():
                for ordinal, image_id, path, data in rows:
                    record = change(_record_of(image_id, path, data))
                    blob = encode_record(record)
                    if blob != data:
                        values = (
                            record.status,
                            record.code,
                            record.num_kept,
                            len(record.verdicts) - record.num_kept,
                            blob,
                            ordinal,
                        )
                        self._db.execute(
                            "UPDATE record SET status = ?, code = ?, kept = ?, dropped = ?, data = ? WHERE ordinal = ?",
                            values,
                        )
                        revised += 1
                last = rows[-1][0]
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(meta.items()))
        return revised

    def _checkpoint(self) -> None:
        # A reader that holds an old snapshot only delays the checkpoint; the next one catches up.
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        with self._turn:
            try:
                self._checkpoint()
                self._leave_wal()
            finally:
                self._db.close()

    def _leave_wal(self) -> None:
        try:
            (mode,) = self._db.execute("PRAGMA journal_mode=DELETE").fetchone()
        except sqlite3.OperationalError as error:
            # Somebody else reads the run just now: it stays in WAL mode until the next time, and loses nothing.
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                return
            raise
        if mode == "wal":
            # SQLite keeps this failure to itself; the records are safe, but the disk's owner should know.
            raise StoreError(
                f"{self.directory / FILE_NAME}: the disk failed while the run was closed; its records are safe"
            )


class RunReader:
    """A run as exporters see it; cannot write. Create it through `open_reader`. Pictures that left the source are
    not seen but by `rows` and `gone`."""

    def __init__(self, connection: sqlite3.Connection, directory: Path) -> None:
        self._db = connection
        self.directory = directory
        self._digest: str | None = None

    @property
    def categories(self) -> tuple[Category, ...]:
        return categories_from(self.meta("categories") or "[]")

    @property
    def document(self) -> str:
        return self.meta("document") or ""

    def meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def gone(self) -> Iterator[int]:
        """Ordinals of the pictures that the source does not have any more, in order."""
        if self._notes_gone():
            yield from (
                int(ordinal) for (ordinal,) in self._db.execute("SELECT ordinal FROM gone ORDER BY ordinal")
            )

    def _notes_gone(self) -> bool:
        """Whether there are any; runs of earlier versions have no such table."""
        there = self._db.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'gone'").fetchone()
        return there is not None and self._db.execute("SELECT 1 FROM gone LIMIT 1").fetchone() is not None

    def _present(self, word: str) -> str:
        return f" {word} {PRESENT}" if self._notes_gone() else ""

    def records(self) -> Iterator[ImageRecord]:
        """Every committed record in manifest order, streamed; can be called again."""
        for image_id, path, data in self._db.execute(f"{RECORDS}{self._present('WHERE')} ORDER BY ordinal"):
            yield _record_of(image_id, path, data)

    def columns(self) -> Iterator[tuple[ImageRecord, Columns | None]]:
        """Like `records`. A record with columns has its kept objects there, one at least, and no candidates."""
        for image_id, path, data in self._db.execute(f"{RECORDS}{self._present('WHERE')} ORDER BY ordinal"):
            yield decode_columns(*_checked(image_id, path, data))

    def digest(self) -> str:
        """A checksum of the ids and records that `records` gives, as they lie there; decodes none, and reads them
        once for all that ask this reader."""
        if self._digest is None:
            digest = hashlib.sha256()
            for image_id, path, data in self._db.execute(f"{RECORDS}{self._present('WHERE')} ORDER BY ordinal"):
                _checked(image_id, path, data)
                digest.update(b"%d %d\n" % (len(image_id), len(data)))
                digest.update(image_id)
                digest.update(data)
            self._digest = digest.hexdigest()
        return self._digest

    def records_by_id(self) -> Iterator[ImageRecord]:
        """Every committed record in the order of the bytes of its image id, streamed: two runs can be merged."""
        for image_id, path, data in self._db.execute(f"{RECORDS}{self._present('WHERE')} ORDER BY m.image_id"):
            yield _record_of(image_id, path, data)

    def rows(self) -> Iterator[Row]:
        """Every picture with its record undecoded, in manifest order, streamed: all columns of `manifest`, then those
        of `record` but its ordinal."""
        yield from self._db.execute(
            "SELECT m.ordinal, m.unit, m.image_id, m.path, m.size, m.mtime_ns, m.labels, r.status, r.code, r.kept, "
            "r.dropped, r.data FROM manifest m LEFT JOIN record r USING (ordinal) ORDER BY m.ordinal"
        )

    def counts(self) -> dict[str, int]:
        """Pictures by status, `failed:<code>` spelled out, and `pending` for those without a record."""
        present = self._present("WHERE")
        by_status = {
            status if not code else f"{status}:{code}": int(n)
            for status, code, n in self._db.execute(
                f"SELECT status, code, count(*) FROM record{present} GROUP BY status, code ORDER BY status, code"
            )
        }
        (total,) = self._db.execute(f"SELECT count(*) FROM manifest{present}").fetchone()
        pending = int(total) - sum(by_status.values())
        return {**by_status, **({"pending": pending} if pending else {})}

    def pending_ids(self) -> list[str]:
        """Image ids of the pictures without a record, in manifest order."""
        rows = self._db.execute(
            "SELECT image_id FROM manifest WHERE ordinal NOT IN (SELECT ordinal FROM record)"
            f"{self._present('AND')} ORDER BY ordinal"
        )
        return [os.fsdecode(image_id) for (image_id,) in rows]

    def record(self, image_id: str) -> ImageRecord:
        """The committed record of a picture. Raises StoreCorrupt where there is none."""
        row = self._db.execute(f"{RECORDS} WHERE m.image_id = ?", (os.fsencode(image_id),)).fetchone()
        if row is None:
            raise StoreCorrupt(f"{self.directory} has no record of {image_id!r}")
        return _record_of(row[0], row[1], row[2])

    def close(self) -> None:
        self._db.close()


@contextmanager
def open_store(directory: Path, *, rollback: bool | None = None) -> Iterator[RunStore]:
    """Create or continue the run in `directory`. The caller holds the directory's lock.

    `rollback`: with SQLite's rollback journal, slower, which also works on network file systems; None: where the
    directory is on one. Raises StoreError for False there.
    """
    path = directory / FILE_NAME
    network = network_file_system(directory)
    if network is not None and rollback is False:
        raise StoreError(
            f"{directory} is on a network file system ({network}), where a run can lose what it committed; use a "
            "local run=... and copy the finished run, or store.journal=rollback, which is slower"
        )
    with _sqlite_errors(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path, rollback=network is not None if rollback is None else rollback)
        except BaseException:
            connection.close()
            raise
        store = RunStore(connection, directory)
        try:
            yield store
        finally:
            store.close()


@contextmanager
def open_reader(directory: Path) -> Iterator[RunReader]:
    """Read the run in `directory`. Raises StoreError when there is none."""
    check_is_run(directory)
    path = directory / FILE_NAME
    with _sqlite_errors(path):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            # A run from a stranger is data: its triggers and views must not act.
            connection.execute("PRAGMA trusted_schema=OFF")
            _check_is_ours(connection, path)
            yield RunReader(connection, directory)
        finally:
            connection.close()


def check_is_run(directory: Path) -> None:
    """Raises StoreError when there is no run in the directory. Opens nothing."""
    if not (directory / FILE_NAME).is_file():
        raise StoreError(
            f"{directory} is not a run directory (no {FILE_NAME}); label first: autolabel label PATH run=..."
        )


def mapping_of(run: RunStore | RunReader, key: str) -> dict[str, Any]:
    """A JSON object that the run holds as `key`; {} where it holds none. Raises StoreCorrupt for another text."""
    text = run.meta(key)
    try:
        found = {} if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreCorrupt(_damaged(run, key, str(error))) from error
    if not isinstance(found, dict):
        raise StoreCorrupt(_damaged(run, key, "it is not a mapping"))
    return found


def _damaged(run: RunStore | RunReader, key: str, why: str) -> str:
    return (
        f"{printable(str(run.directory))}: its stored {key} cannot be read ({why}), its database is damaged; use a copy "
        "of the run, or label again into another directory with run=..."
    )


def categories_from(text: str) -> tuple[Category, ...]:
    try:
        return tuple(Category(int(i), str(name), str(extra)) for i, name, extra in json.loads(text))
    except (ValueError, TypeError) as error:
        raise StoreCorrupt(f"the classes of the run cannot be read, its database is damaged: {error}") from error


def categories_to(categories: Sequence[Category]) -> str:
    return json.dumps([[c.id, c.name, c.extra] for c in categories])


def _as_listing(listed: Listing | Iterable[Entry], directory: Path) -> AbstractContextManager[Listing]:
    """What can be compared with the manifest: a listing that is there stays open."""
    return nullcontext(listed) if isinstance(listed, Listing) else Listing(listed, directory)


def _record_of(image_id: object, path: object, data: object) -> ImageRecord:
    return decode_record(*_checked(image_id, path, data))


def _checked(image_id: object, path: object, data: object) -> tuple[bytes, str, str]:
    """SQLite keeps any type in any column, and a damaged or foreign file may do so."""
    if not (isinstance(image_id, bytes) and isinstance(path, bytes) and isinstance(data, bytes)):
        raise StoreCorrupt(f"the record of {image_id!r} is not what autolabel wrote: the run database is damaged")
    return data, os.fsdecode(image_id), os.fsdecode(path)


def _prepare(connection: sqlite3.Connection, path: Path, *, rollback: bool) -> None:
    connection.execute("PRAGMA trusted_schema=OFF")
    fresh = _count_of_tables(connection, path) == 0
    if not fresh:
        _check_is_ours(connection, path)
    # PRAGMAs answer with what they did; one that did not take would break a promise silently.
    # TRUNCATE, not DELETE: whose deletion of the journal is not synced, so that a power cut brings it back.
    mode = "truncate" if rollback else "wal"
    for pragma, wanted in ((f"journal_mode={mode}", mode), ("wal_autocheckpoint=0", 0)):
        (got,) = connection.execute(f"PRAGMA {pragma}").fetchone()
        if got != wanted:
            raise StoreError(
                f"{path}: SQLite answered {got!r} to {pragma}; is this a network file system? use a local run=..."
            )
    connection.execute("PRAGMA synchronous=FULL")
    if fresh:
        with _transaction(connection):
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    connection.execute(BY_STATUS)
    connection.execute(GONE)
    connection.execute(LOOK)


def _count_of_tables(connection: sqlite3.Connection, path: Path) -> int:
    """The first SELECT of a connection reads the whole schema, so a damaged one shows here."""
    try:
        (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except UnicodeDecodeError as error:  # SQLite quotes it in its message, bytes as they are
        raise StoreCorrupt(f"{path} has a damaged schema") from error
    return int(count)


def _check_is_ours(connection: sqlite3.Connection, path: Path) -> None:
    _count_of_tables(connection, path)
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise StoreCorrupt(f"{path} is not a run of autolabel; use another directory with run=...")
    if version != SCHEMA_VERSION:
        raise StoreCorrupt(f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY:
            raise StoreBusy(f"{path} is held open by another program; close it there and run again") from error
        if code == sqlite3.SQLITE_FULL:
            raise StoreFull(
                f"{path}: the disk is full; what was committed is safe, make room and the same command continues"
            ) from error
        if code == sqlite3.SQLITE_CANTOPEN and _is_in_wal_mode(path):
            # SQLite must index the log first, in a file beside it. Told that nothing changes (immutable), it would
            # read on without the log, and what was committed last would be missing.
            raise StoreError(
                f"{path.parent} was not closed: its process was killed, or is still at work; it cannot be read where "
                f"nothing can be written; {WORK_ON_A_COPY}"
            ) from error
        if code == sqlite3.SQLITE_READONLY_ROLLBACK:
            raise StoreError(
                f"{path.parent} was not closed: its process was killed as it wrote, and what it had begun must be taken "
                "back before the run can be read; the command that made it does so, and goes on with it"
            ) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreCorrupt(
                f"{path} is damaged ({error}); use a copy of the run, or label again with run=..."
            ) from error
        # A failed write is never tried again: a later success does not prove that the data is there.
        raise StoreError(
            f"{path}: {error}; is the disk full, read-only or damaged? what was committed is safe"
        ) from error


def _is_in_wal_mode(path: Path) -> bool:
    """By the versions in the header of the file (sqlite.org/fileformat2.html). Closed runs are not."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"
    return False
