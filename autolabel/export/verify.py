"""Whether the files of an export are the ones that were written. Knows no format; changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autolabel.core.errors import ExportError
from autolabel.export.atomic import MANIFEST, SEAL, is_export

_CACHE = ".cache"
"""Readers leave such files beside the labels; they are no part of the export."""


def check_files(directory: Path) -> list[str]:
    """What is missing, extra or changed against the manifest, one line each; [] when all is as it was written.

    The picture behind a link is compared too. Raises ExportError when `directory` is no export of ours.
    """
    if not is_export(directory):
        raise ExportError(f"{directory} is no export of autolabel: it has no {MANIFEST} of ours")
    try:
        entries = _entries((directory / MANIFEST).read_bytes())
    except ValueError as error:
        return [f"{MANIFEST}: torn or edited ({error})"]
    faults = [f"{path}: {fault}" for path, entry in entries.items() if (fault := _fault(directory / path, entry))]
    return faults + [f"{path}: is not in {MANIFEST}" for path in _present(directory) if path not in entries]


def _entries(text: bytes) -> dict[str, Any]:
    """Raises ValueError when the manifest does not carry its own checksum."""
    body, _, seal = text.rstrip(b"\n").rpartition(b"\n")
    if not text.endswith(b"}\n") or SEAL.encode() not in seal:
        raise ValueError("its end is missing")
    document = json.loads(text)
    if document[SEAL] != hashlib.sha256(body + b"\n").hexdigest():
        raise ValueError("its own checksum does not match")
    files: dict[str, Any] = document["files"]
    return files


def _fault(path: Path, entry: dict[str, Any]) -> str:
    """ "" when the file is what the entry says."""
    if not path.exists():
        return "missing" if not path.is_symlink() else "the picture it links to is gone"
    if path.is_symlink() != bool(entry.get("link")):
        return "a link, not a file" if path.is_symlink() else "a file, not a link"
    if entry["sha256"] and _sha256(path) != entry["sha256"]:
        size = path.stat().st_size
        torn = "bytes" in entry and size != entry["bytes"]
        return f"changed: {size} bytes instead of {entry['bytes']}" if torn else "changed"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _present(directory: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            path = (Path(folder) / name).relative_to(directory).as_posix()
            if path != MANIFEST and not name.endswith(_CACHE):
                yield path
