"""The manifest of an export: which files were written, and whether they still are as they were. Knows no format;
changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autolabel.core.errors import ExportError
from autolabel.ops.export_mark import HEAD, MANIFEST, RECORDS, is_export
from autolabel.ops.files import file_sha256

SEAL = "sha256_of_the_above"
"""The manifest's last key: the checksum of its own bytes up to that line."""
SETTINGS = "settings"
"""Where known: the exporter's settings, as in its configuration. On the line of RECORDS, which earlier versions pass
over."""

_RECORDS_LINE = f'"{RECORDS}":"'.encode()
"""How its line begins; no file's does, whose entry is not text."""
_CACHE = ".cache"
_LITTER = (".DS_Store", "Thumbs.db")
_CACHE_FOLDER = "__pycache__"


def listed_files(directory: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Every file of an export of ours but the manifest, with its entry there, streamed. Raises ExportError when there
    is none, or when the manifest was damaged."""
    if not is_export(directory):
        raise ExportError(f"{directory} is not an export of autolabel: it has no {MANIFEST} of ours")
    digest, first = hashlib.sha256(), HEAD.splitlines(keepends=True)[0]
    with (directory / MANIFEST).open("rb") as file:
        for line in file:
            sealed = line.startswith(f'"{SEAL}"'.encode())
            if not sealed:
                digest.update(line)
            if line in (first, b"\n", b"},\n") or line.startswith(_RECORDS_LINE):
                continue
            try:
                ((path, entry),) = json.loads(b"{" + line.rstrip(b",}\n") + (b"}" if sealed else b"}}")).items()
            except ValueError:
                break
            if sealed:
                if entry == digest.hexdigest():
                    return
                break
            if not is_entry(entry):
                break
            yield path, entry
    raise ExportError(f"{directory / MANIFEST} is torn or edited; write the export again")


def origin_of(directory: Path) -> dict[str, Any]:
    """What the export was written from: RECORDS and SETTINGS, each where the manifest says it, which those of earlier
    versions do not."""
    with (directory / MANIFEST).open("rb") as file:
        for line in file:
            if line.startswith(_RECORDS_LINE):
                found: dict[str, Any] = json.loads(b"{" + line.rstrip(b",\n") + b"}")
                return found
    return {}


def origin_line(origin: Mapping[str, object]) -> bytes:
    """What `origin_of` reads, RECORDS first."""
    return json.dumps(origin, separators=(",", ":")).encode("ascii")[1:-1] + b",\n"


def is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str)


def present_files(directory: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[str]:
    """Every file that is there but the manifest, and but what readers and desktops leave beside the files they show.
    Folders that cannot be looked into are `onerror`'s."""
    for folder, folders, names in os.walk(directory, onerror=onerror):
        folders[:] = sorted(set(folders) - {_CACHE_FOLDER})
        inside = Path(folder).relative_to(directory).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        for name in sorted(names):
            if f"{prefix}{name}" != MANIFEST and name not in _LITTER and not name.endswith(_CACHE):
                yield f"{prefix}{name}"


def edited_files(directory: Path) -> list[str]:
    """What somebody changed or added since the export was written; the manifest where that cannot be told. A missing
    file is not anybody's work, and neither is what a link leads to.

    An unchanged file costs an lstat: only what is not older than the manifest is read. Memory grows with the folders
    and with what is found.
    """
    changed = []
    try:
        added = Counter(map(_folder, present_files(directory, _raised)))
        if not added:
            return []
        written_ns = (directory / MANIFEST).lstat().st_mtime_ns
        for path, entry in listed_files(directory):
            if _folder(path) not in added:  # missing, or a name that leads out of the export
                continue
            try:
                found = (directory / path).lstat()
            except FileNotFoundError:
                continue
            added[_folder(path)] -= 1
            if _is_changed(directory / path, found, entry, written_ns):
                changed.append(path)
        return changed + _added_files(directory, {folder for folder, number in added.items() if number > 0})
    except (ExportError, OSError, ValueError):  # ValueError: a name that no file can have
        return [MANIFEST]


def _is_changed(path: Path, found: os.stat_result, entry: dict[str, object], written_ns: int) -> bool:
    if stat.S_ISLNK(found.st_mode):
        return "link" not in entry
    if not stat.S_ISREG(found.st_mode):
        return True
    if entry.get("bytes", found.st_size) != found.st_size:
        return True
    # What was a link has no size in the manifest.
    older = "bytes" in entry and max(found.st_mtime_ns, found.st_ctime_ns) < written_ns
    return not older and file_sha256(path) != entry["sha256"]


def _added_files(directory: Path, folders: set[str]) -> list[str]:
    if not folders:
        return []
    added = {path for path in present_files(directory) if _folder(path) in folders}
    for path, _ in listed_files(directory):
        added.discard(path)
    return sorted(added)


def _raised(error: OSError) -> None:
    raise error


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
