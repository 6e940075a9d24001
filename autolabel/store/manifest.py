"""The list of pictures of a run, frozen when the run starts: what each file was when it was listed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autolabel.core.types import ImageRef, Labels, Rle


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the manifest. `size` and `mtime_ns` are -1 when the file could not be looked at; `labels` is a
    digest of what came with the picture (annotations, split, a broken label file), empty when nothing did."""

    ref: ImageRef
    size: int
    mtime_ns: int
    labels: bytes


def entries(refs: Iterable[ImageRef]) -> Iterator[Entry]:
    for ref in refs:
        size, mtime_ns = _look(ref.path)
        yield Entry(ref, size, mtime_ns, digest(ref))


def _look(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)  # noqa: PTH116 - a str of surrogate escapes, not a Path
    except (OSError, ValueError):
        return -1, -1
    if not os.access(path, os.R_OK):
        # Granting the permission changes no time of the file; this makes it a change all the same.
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


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
