"""What is there and whether it is what it should be: a row for each known file. Fetches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autolabel.core.errors import WeightsCorrupt, WeightsMissing
from autolabel.weights import cache
from autolabel.weights.access import Access
from autolabel.weights.obtain import expected_sha256, shipped
from autolabel.weights.registry import PUBLISHED, SHIPPED, Published, Shipped

State = Literal["ok", "corrupt", "absent", "unpinned", "present", "partial"]


@dataclass(frozen=True, slots=True)
class Row:
    """One known file. `bytes` and `sha256` are those on disk, `published_bytes` those of the registry.

    `ok`: hash as expected. `unpinned`: there, but nobody states its hash. `present`: there, of the right
    size, not hashed. `partial`: a fetch was interrupted.
    """

    name: str
    state: State
    path: Path
    bytes: int | None
    sha256: str | None
    published_bytes: int | None
    licence: str
    configs: tuple[str, ...]
    note: str = ""


def survey(access: Access, *, hashed: bool) -> list[Row]:
    """All shipped and published weights. `hashed` reads every file that is there, about 1 s for 1 GB."""
    return [_shipped_row(e, hashed) for e in SHIPPED] + [_published_row(e, access, hashed) for e in PUBLISHED]


def _shipped_row(entry: Shipped, hashed: bool) -> Row:
    state: State = "present" if entry.path.is_file() else "absent"
    sha256, note = None, "in the package"
    if hashed and state == "present":
        try:
            state, sha256 = "ok", shipped(entry).sha256
        except WeightsCorrupt as error:
            state, note = "corrupt", str(error)
    size = _size(entry.path)
    return Row(entry.name, state, entry.path, size, sha256, size, entry.licence, entry.configs, note)


def _published_row(entry: Published, access: Access, hashed: bool) -> Row:
    path = access.weights / entry.file
    size, sha256, note = _size(path), None, entry.note
    if size is None:
        begun = path.with_name(f"{entry.file}.partial").exists()
        state: State = "partial" if begun else "absent"
    elif entry.bytes not in (None, size):
        state, note = "corrupt", f"{size:,} bytes instead of {entry.bytes:,}"
    elif not hashed:
        state = "present"
    else:
        state, sha256, note = _judge(entry, access, path)
    return Row(entry.name, state, path, size, sha256, entry.bytes, entry.licence, entry.configs, note)


def _judge(entry: Published, access: Access, path: Path) -> tuple[State, str | None, str]:
    try:
        found = cache.sha256_of(path)
    except WeightsMissing as error:
        return "corrupt", None, str(error)
    expected = expected_sha256(entry, access, None)
    if expected is None:
        return "unpinned", found, entry.note
    if found != expected:
        return "corrupt", found, f"sha256 {expected} is expected"
    return "ok", found, entry.note if entry.sha256 else "trusted on first use"


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
