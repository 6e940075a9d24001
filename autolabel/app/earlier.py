"""The masks of an earlier run, for prompts that sharpen them."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from autolabel.core.errors import ConfigError
from autolabel.core.types import Float32, Rle
from autolabel.store.run import open_reader


class EarlierRun:
    """What the run in the directory `run` kept, copied once to a scratch file that goes with the process; nothing when
    that is null. So memory does not grow with that run, and refining it meanwhile changes nothing here. Knows the run
    by the hash of its boxes and masks, so that a run that was refined since is another one."""

    def __init__(self, *, run: str | None) -> None:
        if run is not None and (not isinstance(run, str) or not run):
            raise ConfigError(f"prompt.run must be a run directory or null, got {run!r}")
        # A name that is empty: SQLite keeps what its cache cannot hold in a file without a name.
        self._scratch = sqlite3.connect("", check_same_thread=False)
        self._scratch.execute("PRAGMA journal_mode=OFF")
        self._scratch.execute(
            "CREATE TABLE kept (image_id BLOB PRIMARY KEY, sha256 TEXT, boxes BLOB, masks TEXT) WITHOUT ROWID"
        )
        self._lock = threading.Lock()
        self._identity: Mapping[str, str] = {}
        if run is not None:
            digest = hashlib.sha256()
            with self._scratch:
                self._scratch.executemany(
                    "INSERT INTO kept VALUES (?, ?, ?, ?)", _rows(Path(run).expanduser(), digest)
                )
            self._identity = {"run": digest.hexdigest()}

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity

    @property
    def image_ids(self) -> Iterator[str]:
        """The images that have a mask, in the order of their ids; not held together."""
        last: bytes | None = b""
        while last is not None:
            with self._lock:
                (last,) = self._scratch.execute(
                    "SELECT min(image_id) FROM kept WHERE image_id > ? AND masks != '[]'", (last,)
                ).fetchone()
            if last is not None:
                yield os.fsdecode(last)

    def of(self, image_id: str, sha256: str) -> tuple[Float32, Sequence[Rle]]:
        """Boxes (N, 4) and masks of the objects of an image, whose file has this sha256; none for an image that the run
        does not have, or of which it has another file."""
        _, boxes, masks = self._row(image_id) if self.has_same(image_id, sha256) else _NOTHING
        return (
            np.frombuffer(boxes, np.float32).reshape(-1, 4),
            tuple(Rle((height, width), counts.encode("ascii")) for height, width, counts in json.loads(masks)),
        )

    def has_same(self, image_id: str, sha256: str) -> bool:
        """False where the run has masks of an image of this id whose file had other bytes. What is not known, or not
        there, is no other."""
        labelled, _, masks = self._row(image_id)
        return masks == "[]" or "" in (labelled, sha256) or labelled == sha256

    def _row(self, image_id: str) -> tuple[str, bytes, str]:
        with self._lock:
            row = self._scratch.execute(
                "SELECT sha256, boxes, masks FROM kept WHERE image_id = ?", (os.fsencode(image_id),)
            ).fetchone()
        return _NOTHING if row is None else row


_NOTHING = ("", b"", "[]")


def _rows(directory: Path, digest: hashlib._Hash) -> Iterator[tuple[bytes, str, bytes, str]]:
    """Image id, sha256, boxes and masks of every picture; but for the sha256, which runs of earlier versions did not
    count, they are added to the digest in the order of the ids."""
    with open_reader(directory) as reader:
        for record in reader.records_by_id():
            kept = [(i.box_xyxy, i.mask) for i in record.instances if i.mask is not None]
            boxes = np.array([box for box, _ in kept], np.float32).reshape(-1, 4)
            masks = tuple(mask for _, mask in kept)
            digest.update(repr((record.image_id, boxes.tolist(), masks)).encode("utf-8", "surrogateescape"))
            text = json.dumps([(*mask.size_hw, mask.counts.decode("ascii")) for mask in masks])
            sha256 = "" if record.info is None else record.info.sha256
            yield os.fsencode(record.image_id), sha256, boxes.tobytes(), text
