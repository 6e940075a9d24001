"""What a source lists, in a scratch file: memory does not grow with the number of pictures.

Labels travel in it too, so the source is read once, however many units wait for their pictures. The file is this
process's own: written and read by it alone, never synced, removed at the end. Knows no run.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import zstandard

from autolabel.core.errors import SourceError, StoreError, StoreFull
from autolabel.core.types import ImageRef
from autolabel.ops.storage import is_url
from autolabel.store.manifest import Entry

FILE_NAME = ".listing.scratch"
_SCHEMA = """
CREATE TABLE listed(
    position INTEGER PRIMARY KEY, image_id BLOB NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, labels BLOB NOT NULL, carried BLOB,
    inode INTEGER, ctime_ns INTEGER)
"""
_ONCE = "CREATE UNIQUE INDEX listed_image_id ON listed(image_id)"
_TWICE = """
SELECT a.image_id, a.path, b.path FROM listed a JOIN listed b ON a.image_id = b.image_id AND a.position < b.position
WHERE a.image_id IN (SELECT image_id FROM listed GROUP BY image_id HAVING count(*) > 1 LIMIT 1) LIMIT 1
"""
_COLUMNS = "image_id, path, size, mtime_ns, carried"
_Row = tuple[bytes, bytes, int, int, bytes | None]


class Listing(Mapping[str, ImageRef]):
    """Pictures by their ids, in the order of `entries`. A context manager; what is left of a killed one is replaced.

    `directory` is where the file goes; None: a place of SQLite's own, which no other connection sees. Raises
    SourceError for an id that is listed twice, StoreError for a disk that fails.
    """

    def __init__(self, entries: Iterable[Entry], directory: Path | None) -> None:
        self.path = None if directory is None else directory / FILE_NAME
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self._db = sqlite3.connect("" if self.path is None else self.path, isolation_level=None)
        try:
            with self._errors():
                self._fill(entries)
        except BaseException:
            self.close()
            raise

    def _fill(self, entries: Iterable[Entry]) -> None:
        # Nobody needs the file after a crash.
        for pragma in ("journal_mode=OFF", "synchronous=OFF"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("BEGIN")
        self._db.execute(_SCHEMA)
        self._db.executemany("INSERT INTO listed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _rows(entries))
        try:
            self._db.execute(_ONCE)  # at the end: sorting once is cheaper than finding 10 million places
        except sqlite3.IntegrityError:
            image_id, first, second = map(os.fsdecode, self._db.execute(_TWICE).fetchone())
            raise SourceError(f"{image_id!r} is listed twice: {first} and {second}") from None
        self._db.execute("COMMIT")
        ((self._count,),) = self._db.execute("SELECT count(*) FROM listed")

    def __len__(self) -> int:
        return int(self._count)

    def __iter__(self) -> Iterator[str]:
        with self._errors():
            for (image_id,) in self._db.execute("SELECT image_id FROM listed ORDER BY position"):
                yield os.fsdecode(image_id)

    def __getitem__(self, image_id: str) -> ImageRef:
        with self._errors():
            row = self._db.execute(
                f"SELECT {_COLUMNS} FROM listed WHERE image_id = ?", (os.fsencode(image_id),)
            ).fetchone()
        if row is None:
            raise KeyError(image_id)
        return _ref(row)

    def values(self) -> ValuesView[ImageRef]:
        return _Values(self)

    def _refs(self) -> Iterator[ImageRef]:
        with self._errors():
            yield from map(_ref, self._db.execute(f"SELECT {_COLUMNS} FROM listed ORDER BY position"))

    @contextmanager
    def attached(self, db: sqlite3.Connection) -> Iterator[None]:
        """The table `listed` is there for another connection meanwhile; it must be in no transaction."""
        assert self.path is not None, "only a file can be attached"
        db.execute("ATTACH ? AS listing", (os.fsencode(self.path),))  # bytes: a path need not be UTF-8
        try:
            yield
        finally:
            db.execute("DETACH listing")

    def close(self) -> None:
        self._db.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            where = self.path or "the place for temporary files"
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StoreFull(f"{where}: the disk is full; make room and the same command continues") from error
            raise StoreError(f"{where}: {error}; is the disk full, read-only or damaged?") from error


class _Values(ValuesView[ImageRef]):
    """In one pass, not one look-up a picture."""

    def __init__(self, listing: Listing) -> None:
        super().__init__(listing)
        self._listing = listing

    def __iter__(self) -> Iterator[ImageRef]:
        return self._listing._refs()


def _rows(entries: Iterable[Entry]) -> Iterator[tuple[object, ...]]:
    pack = zstandard.ZstdCompressor(level=1).compress
    for position, entry in enumerate(entries):
        ref = entry.ref
        beside = (ref.labels, ref.split, ref.problem, ref.source_id, ref.extra)
        carried = None if beside == _BARE else pack(pickle.dumps(beside, pickle.HIGHEST_PROTOCOL))
        yield (
            position, os.fsencode(ref.image_id), os.fsencode(ref.path), entry.size, entry.mtime_ns, entry.labels,
            carried, *(entry.look or (None, None)),
        )  # fmt: skip


_BARE = (None, None, None, None, "")


def _ref(row: _Row) -> ImageRef:
    image_id, path, size, mtime_ns, carried = row
    beside = _BARE if carried is None else pickle.loads(zstandard.decompress(carried))
    labels, split, problem, source_id, extra = beside
    name, place = os.fsdecode(image_id), os.fsdecode(path)
    # Of a file here nobody said it; entries() looked.
    stamp = (size, mtime_ns) if is_url(place) and size >= 0 else None
    return ImageRef(name, place, labels, split, problem, source_id, extra, stamp)
