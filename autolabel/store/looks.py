"""Whether a picture whose size and time are as before is the one that was labelled. A rename keeps both, and so does a
copy or an archive; uncompressed pictures of one camera all have one size. What no program sets back tells: the inode
and the time of its last change. Where these differ, the bytes are compared, once.

A copied data set has new ones throughout, and a run of an earlier version, or a merged one, has none noted: reading
each picture once costs little beside labelling it, and a mistake that was made before would stay for ever.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autolabel.core.text import counted
from autolabel.core.types import ImageRef
from autolabel.ops.files import file_sha256
from autolabel.store.codec import decode_columns
from autolabel.store.manifest import DIFFERS

THREADS = 8
"""They wait for the disk, or hash without holding Python's lock."""
PAGE = 512
"""Pictures whose answers are kept together: a stopped run goes on behind them."""

logger = logging.getLogger(__name__)

_UNSEEN = f"""
INSERT INTO unseen SELECT m.ordinal, l.position FROM listed l CROSS JOIN manifest m USING (image_id)
LEFT JOIN look k USING (ordinal)
WHERE l.inode IS NOT NULL AND (k.inode, k.ctime_ns) IS NOT (l.inode, l.ctime_ns) AND NOT {DIFFERS}
"""
_PAGE = """
SELECT u.ordinal, l.inode, l.ctime_ns, l.image_id, l.path, k.ordinal IS NOT NULL, r.status, r.data
FROM unseen u CROSS JOIN listed l USING (position) LEFT JOIN look k ON k.ordinal = u.ordinal
LEFT JOIN record r ON r.ordinal = u.ordinal WHERE u.ordinal > ? ORDER BY u.ordinal LIMIT ?
"""

Page = tuple[list[tuple[int, int, int]], list[tuple[int]]]
"""Rows of the table `look` for pictures that are the same, and the ordinals of others."""


def look_again(db: sqlite3.Connection, refs: Mapping[str, ImageRef]) -> Iterator[Page]:
    """With `listed` attached, in no transaction: every picture with another look than the one that is noted. Those that
    cannot be read now are left out, to be looked at the next time."""
    db.execute("CREATE TEMP TABLE unseen(ordinal INTEGER PRIMARY KEY, position INTEGER NOT NULL)")
    try:
        db.execute(_UNSEEN)
        ((n,),) = db.execute("SELECT count(*) FROM unseen CROSS JOIN record USING (ordinal)")
        if n:
            logger.warning(
                counted(
                    n,
                    "{} labelled picture[ has|s have] the size and time of before, but may be [another file|other files] "
                    "(renamed, copied, or not noted): [its|their] bytes are compared, once",
                )
            )
        with ThreadPoolExecutor(THREADS, "autolabel-looks") as pool:
            last = -1
            while rows := db.execute(_PAGE, (last, PAGE)).fetchall():
                last = rows[-1][0]
                asked = {row[0]: sha256 for row in rows if (sha256 := _labelled_sha256(row[3], row[4], row[7]))}
                paths = [os.fsdecode(row[4]) for row in rows if row[0] in asked]
                found = dict(zip(asked, pool.map(_sha256, paths), strict=True))
                # Nobody knows the bytes that failed. Only if they were not read (a broken label file) do others not
                # matter, and where no look was noted nothing says that they are others.
                again = {
                    row[0]
                    for row in rows
                    if row[6] == "failed"
                    and row[5]
                    and row[0] not in asked
                    and refs[os.fsdecode(row[3])].problem is None
                }
                others = again | {one for one, sha256 in found.items() if sha256 not in (None, asked[one])}
                unread = {one for one, sha256 in found.items() if sha256 is None}
                yield (
                    [row[:3] for row in rows if row[0] not in others | unread],
                    [(one,) for one in sorted(others)],
                )
    finally:
        db.execute("DROP TABLE unseen")


def _labelled_sha256(image_id: bytes, path: bytes, data: bytes | None) -> str:
    """The sha256 of the file that was labelled; empty where that is not known."""
    info = data and decode_columns(data, os.fsdecode(image_id), os.fsdecode(path))[0].info
    return info.sha256 if info else ""


def _sha256(path: str) -> str | None:
    """None for a file that cannot be read now."""
    try:
        return file_sha256(Path(path))
    except OSError:
        return None
