"""The list of pictures of a run, frozen when the run starts: what each file was when it was listed, and in SQL what
has changed since. Every step is one statement over the tables: memory does not grow with the number of pictures.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autolabel.core.types import ImageRef, Labels, Rle
from autolabel.ops.storage import is_url

UNKNOWN = (0, 0)
"""Size and time of a picture at an address of which no listing said them: it is taken for unchanged."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the manifest. `size` and `mtime_ns` (or `ImageRef.stamp`) are -1 when the file could not be looked
    at; `labels` is a digest of what came with the picture (annotations, split, a broken label file), empty when
    nothing did. `look` is the inode and the time of the file's last change in ns; None for a picture at an address, and
    for one that could not be looked at."""

    ref: ImageRef
    size: int
    mtime_ns: int
    labels: bytes
    look: tuple[int, int] | None = None


def entries(refs: Iterable[ImageRef]) -> Iterator[Entry]:
    for ref in refs:
        (size, mtime_ns), look = (ref.stamp, None) if ref.stamp else _look(ref.path)
        yield Entry(ref, size, mtime_ns, digest(ref), look)


def _look(path: str) -> tuple[tuple[int, int], tuple[int, int] | None]:
    if is_url(path):
        return UNKNOWN, None
    try:
        stat = os.stat(path)  # noqa: PTH116 - a str of surrogate escapes, not a Path
    except (OSError, ValueError):
        return (-1, -1), None
    if not os.access(path, os.R_OK):
        # Granting the permission changes no time of the file; this makes it a change all the same.
        return (-1, -1), None
    # SQLite's numbers have a sign.
    return (stat.st_size, stat.st_mtime_ns), (stat.st_ino & (1 << 63) - 1, stat.st_ctime_ns)


def digest(ref: ImageRef) -> bytes:
    """16 bytes that change when anything that came with the picture changes."""
    beside = (ref.split, ref.problem, ref.source_id, ref.extra)
    if ref.labels is None and beside == (None, None, None, ""):
        return b""
    h = hashlib.sha256(repr(beside).encode(errors="surrogateescape"))
    if ref.labels is not None:
        _add_labels(h, ref.labels)
    return h.digest()[:16]


def _add_labels(h: hashlib._Hash, labels: Labels) -> None:
    for array in (labels.boxes_xyxy, labels.category_ids):
        h.update(array.tobytes())
    for shape in labels.shapes:
        h.update(repr((shape.size_hw, shape.counts) if isinstance(shape, Rle) else shape).encode())
    rest = (labels.source_ids, labels.crowd, labels.normalized, labels.size_hw, labels.convention, labels.extras)
    h.update(repr(rest).encode(errors="surrogateescape"))


PASSING = ("vanished", "io_error", "out_of_memory", "decoder_hang", "decoder_killed", "worker_crash", "unit_error")
"""Failures that may be over by the next run."""
ABSENT = ("missing", "permission")
"""Failures that are over when the file can be read now: it went away during a run, and came back as it was."""

# `listed` is the table of a Listing, attached. CROSS JOIN: SQLite keeps the order, so that both sides are walked
# through from the start to the end where names are listed in their own order.
DIFFERS = "((m.size, m.mtime_ns, m.labels) IS NOT (l.size, l.mtime_ns, l.labels))"
"""Whether the file or what came with it is another one, as far as size and time tell; `looks` knows the rest."""
OTHER = "CREATE TEMP TABLE other(ordinal INTEGER PRIMARY KEY)"
"""Pictures that are others though size and time are as before, for `compare`."""
_CHANGED = f"({DIFFERS} OR m.ordinal IN (SELECT ordinal FROM other))"
# A disk that is not mounted today shall not cost what was labelled yesterday.
_AWAY = """
l.size < 0 AND m.size >= 0 AND EXISTS (SELECT 1 FROM record r WHERE r.ordinal = m.ordinal AND r.status != 'failed')
"""
_COMPARE = f"""
INSERT INTO delta SELECT l.position, m.ordinal, m.unit, m.ordinal IS NOT NULL AND {_CHANGED}
FROM listed l LEFT JOIN manifest m ON m.image_id = l.image_id
WHERE m.ordinal IS NULL OR (m.path IS NOT l.path OR {_CHANGED}) AND NOT ({_AWAY})
"""
_COUNT_AWAY = f"SELECT count(*) FROM listed l CROSS JOIN manifest m USING (image_id) WHERE {_AWAY}"
_APPEND = """
INSERT INTO manifest
SELECT :ordinal + n, :unit + n / :unit_size, image_id, path, size, mtime_ns, labels
FROM (SELECT row_number() OVER (ORDER BY position) - 1 AS n, position FROM delta WHERE ordinal IS NULL)
CROSS JOIN listed USING (position)
"""
_FIRST = """
INSERT INTO manifest SELECT position, position / ?, image_id, path, size, mtime_ns, labels FROM listed ORDER BY position
"""
_LOOK_FIRST = """
INSERT INTO look SELECT position, inode, ctime_ns FROM listed WHERE inode IS NOT NULL ORDER BY position
"""
_LOOK_AT_DELTA = """
INSERT OR REPLACE INTO look SELECT m.ordinal, l.inode, l.ctime_ns
FROM delta d CROSS JOIN listed l USING (position) CROSS JOIN manifest m USING (image_id) WHERE l.inode IS NOT NULL
"""
_FAILED = """
FROM record r CROSS JOIN manifest m USING (ordinal) CROSS JOIN listed l USING (image_id) WHERE r.status = 'failed'
"""
_UPDATE = """
UPDATE manifest SET path = l.path, size = l.size, mtime_ns = l.mtime_ns, labels = l.labels
FROM delta d CROSS JOIN listed l USING (position) WHERE manifest.ordinal = d.ordinal
"""
_UNDO = f"""
DELETE FROM record WHERE ordinal IN (
    SELECT m.ordinal FROM redo CROSS JOIN manifest m USING (unit) CROSS JOIN listed l USING (image_id)
    WHERE NOT ({_AWAY}))
"""
GONE = "CREATE TABLE IF NOT EXISTS gone(ordinal INTEGER PRIMARY KEY)"
"""Pictures of the manifest that the source does not have any more. Runs of earlier versions get it when continued."""
LOOK = """
CREATE TABLE IF NOT EXISTS look(ordinal INTEGER PRIMARY KEY, inode INTEGER NOT NULL, ctime_ns INTEGER NOT NULL)
"""
"""`Entry.look` of the pictures. Runs of earlier versions get the table when continued."""
_BACK = """
DELETE FROM gone WHERE ordinal IN (
    SELECT g.ordinal FROM gone g CROSS JOIN manifest m USING (ordinal) CROSS JOIN listed l USING (image_id))
"""
_NOTE_GONE = """
INSERT OR IGNORE INTO gone SELECT ordinal FROM manifest m WHERE NOT EXISTS (SELECT 1 FROM listed l WHERE l.image_id = m.image_id)
"""
INDEX = "CREATE UNIQUE INDEX manifest_image_id ON manifest(image_id)"


@dataclass(frozen=True, slots=True)
class Difference:
    """Between the manifest and what is listed now. `before`: how many entries there were; `away`: listed and
    labelled, and not to be read now."""

    before: int
    added: int
    changed: int
    vanished: int
    away: int

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.vanished)


def compare(db: sqlite3.Connection) -> Difference:
    """Fill the temporary tables `delta` (new, changed and moved pictures) and `redo` (units to be labelled again:
    those of changed pictures, and of failures that may have passed). `OTHER` is there and filled."""
    db.execute("CREATE TEMP TABLE redo(unit INTEGER PRIMARY KEY)")
    db.execute(
        "CREATE TEMP TABLE delta(position INTEGER PRIMARY KEY, ordinal INTEGER, unit INTEGER, changed INTEGER)"
    )
    before, listed = _count(db, "manifest"), _count(db, "listed")
    if not before:
        return Difference(0, listed, 0, 0, 0)
    db.execute(_COMPARE)
    added, changed = db.execute(
        "SELECT coalesce(sum(ordinal IS NULL), 0), coalesce(sum(changed), 0) FROM delta"
    ).fetchone()
    db.execute("INSERT OR IGNORE INTO redo SELECT unit FROM delta WHERE changed")
    for codes, condition in ((PASSING, ""), (ABSENT, " AND l.size >= 0")):
        marks = ", ".join("?" * len(codes))
        db.execute(f"INSERT OR IGNORE INTO redo SELECT m.unit {_FAILED} AND r.code IN ({marks}){condition}", codes)
    ((away,),) = db.execute(_COUNT_AWAY)
    return Difference(before, added, changed, before - (listed - added), away)


def bring_up_to_date(db: sqlite3.Connection, found: Difference, unit_size: int) -> bool:
    """After `compare`, in its transaction: take back what is to be done again, note what moved and what is gone, append
    what is new. Whether a picture went since the last time, or came back."""
    moved = 0
    if found.before:
        db.execute(_UNDO)
        db.execute("DELETE FROM unit WHERE number IN (SELECT unit FROM redo)")
        db.execute(_UPDATE)
        moved = db.execute(_BACK).rowcount
        if found.vanished:
            moved += db.execute(_NOTE_GONE).rowcount
        ordinal, unit = db.execute("SELECT max(ordinal) + 1, max(unit) + 1 FROM manifest").fetchone()
        db.execute(_APPEND, {"ordinal": ordinal, "unit": unit, "unit_size": unit_size})
        db.execute(_LOOK_AT_DELTA)
    else:
        db.execute("DELETE FROM gone")
        db.execute("DELETE FROM look")
        # Sorting all names once is cheaper than finding the place of each, above all where they come in no order.
        db.execute("DROP INDEX IF EXISTS manifest_image_id")
        db.execute(_FIRST, (unit_size,))
        db.execute(_LOOK_FIRST)
        if not _is_unique(db):
            db.execute(INDEX)
    for table in ("delta", "redo", "other"):
        db.execute(f"DROP TABLE {table}")
    return moved > 0


def _is_unique(db: sqlite3.Connection) -> bool:
    """Whether the table itself forbids that a name is there twice, as in runs of early versions."""
    return any(unique for _, _, unique, *_ in db.execute("PRAGMA index_list(manifest)"))


def _count(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
