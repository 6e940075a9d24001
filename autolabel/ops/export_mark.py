"""How a folder that an export wrote is known, by how its manifest begins, and what says of which records it is. Knows
nothing else of it."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "manifest.json"
HEAD = b'{"autolabel_export": 1, "files": {\n'
RECORDS = "sha256_of_the_records"
"""The key of the checksum of the records that something was written from: an export in its manifest, an evaluation."""


def is_export(directory: Path) -> bool:
    """Whether the folder is an export of ours; its manifest may be damaged further down."""
    manifest = directory / MANIFEST
    try:
        if not manifest.is_file():  # opening a pipe waits for ever
            return False
        with manifest.open("rb") as file:
            return file.read(len(HEAD)) == HEAD
    except OSError:
        return False
