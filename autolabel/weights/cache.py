"""The cache directory: hashes, the lock of one file, and the record of hashes that a person vouches for."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from autolabel.core.errors import WeightsError, WeightsMissing
from autolabel.ops.files import file_sha256, replace_durably

logger = logging.getLogger(__name__)


def sha256_of(path: Path) -> str:
    """The sha256 of the file's bytes, lower-case hex; about 1 s for 1 GB. Raises WeightsMissing."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise WeightsMissing(f"{path} cannot be read: {error.strerror}") from error


def make_directory(directory: Path) -> None:
    """Create it with its parents. Raises WeightsError saying how to choose another place."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from error


def unwritable(place: Path, error: OSError) -> WeightsError:
    """The error for a cache that does not take what is written."""
    return WeightsError(
        f"cannot write {place}: {error.strerror}; set AUTOLABEL_CACHE to a folder with room that you may write"
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of one cached file; waits for another thread or process, and dies with its holder."""
    folder = path.parent / ".locks"
    make_directory(folder)
    try:
        descriptor = os.open(folder / f"{path.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another process is fetching %s; waiting for it", path.name)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def trusted(directory: Path, file: str, *, stated_only: bool = False) -> str | None:
    """The sha256 recorded for `file`; None when there is none, or none that a person stated."""
    entry = _read_trusted(directory).get(file)
    if entry is None or (stated_only and entry.get("how") != "stated"):
        return None
    return entry["sha256"]


def trust(directory: Path, file: str, *, sha256: str, how: Literal["stated", "first use"]) -> None:
    """Record a hash that the registry does not know; every later file of that name must equal it."""
    path = directory / "trusted.json"
    with locked(path):
        entries = _read_trusted(directory)
        entries[file] = {"sha256": sha256, "how": how}
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            replace_durably(temporary, path)
        except OSError as error:
            raise unwritable(path, error) from error


def _read_trusted(directory: Path) -> dict[str, dict[str, str]]:
    path = directory / "trusted.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); repair it, or delete it and trust again") from error
    if not isinstance(entries, dict) or not all(
        isinstance(e, dict) and isinstance(e.get("sha256"), str) for e in entries.values()
    ):
        raise WeightsError(f"{path} is not a record of trusted hashes; delete it and trust again")
    return entries
