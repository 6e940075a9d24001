"""Whether the files of an export are the ones that were written. Knows no format; changes nothing."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from autolabel.core.errors import ExportError
from autolabel.export.manifest import SEAL, is_entry, present_files
from autolabel.ops.export_mark import MANIFEST, is_export
from autolabel.ops.files import file_sha256


def check_files(directory: Path) -> list[str]:
    """What is missing, extra or changed against the manifest, one line each; [] when all is as it was written.

    The picture behind a link is compared too. Raises ExportError when `directory` is not an export of ours.
    """
    if not is_export(directory):
        raise ExportError(f"{directory} is not an export of autolabel: it has no {MANIFEST} of ours")
    try:
        entries = _entries((directory / MANIFEST).read_bytes())
    except ValueError as error:
        return [f"{MANIFEST}: torn or edited ({error})"]
    inside = _Inside(directory)
    faults = [
        f"{_shown(path)}: {fault}"
        for path, entry in entries.items()
        if (fault := inside.fault(path) or _checked(directory / path, entry))
    ]
    return faults + [
        f"{_shown(path)}: is not in {MANIFEST}" for path in present_files(directory) if path not in entries
    ]


def _entries(text: bytes) -> dict[str, Any]:
    """Raises ValueError when the manifest does not carry its own checksum."""
    body, _, seal = text.rstrip(b"\n").rpartition(b"\n")
    if not text.endswith(b"}\n") or SEAL.encode() not in seal:
        raise ValueError("its end is missing")
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if document.get(SEAL) != hashlib.sha256(body + b"\n").hexdigest():
        raise ValueError("its own checksum does not match")
    files = document.get("files")
    if not isinstance(files, dict) or not all(map(is_entry, files.values())):
        raise ValueError("it does not list files")
    return files


class _Inside:
    """Names of a manifest, which may be a stranger's: only what is in the export's own folder is looked at."""

    def __init__(self, directory: Path) -> None:
        self._root = directory.resolve()
        self._is_inside = functools.cache(lambda folder: folder.resolve().is_relative_to(self._root))

    def fault(self, path: str) -> str:
        """ "" for a name that leads to a place in the folder, also through the links that its folders are."""
        pure = PurePosixPath(path)
        try:
            os.fsencode(path)
            possible = "\0" not in path and ".." not in pure.parts and path not in ("", ".")
            kept = possible and not pure.is_absolute() and self._is_inside((self._root / pure).parent)
        except (UnicodeEncodeError, OSError, RuntimeError):  # no name of a file, or folders that link in a circle
            kept = False
        return "" if kept else "leads out of the folder, or nowhere; not looked at"


def _shown(path: str) -> str:
    return path if path.isprintable() else repr(path)


def _checked(path: Path, entry: dict[str, Any]) -> str:
    try:
        return _fault(path, entry)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _fault(path: Path, entry: dict[str, Any]) -> str:
    """ "" when the file is what the entry says."""
    if not path.exists():
        return "missing" if not path.is_symlink() else "the picture it links to is gone"
    if path.is_symlink() != bool(entry.get("link")):
        return "a link, not a file" if path.is_symlink() else "a file, not a link"
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return "a folder, pipe or device, not a file"
    if entry["sha256"] and file_sha256(path) != entry["sha256"]:
        size = found.st_size
        torn = "bytes" in entry and size != entry["bytes"]
        return f"changed: {size} bytes instead of {entry['bytes']}" if torn else "changed"
    return ""
