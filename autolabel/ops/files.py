"""Files of this machine: what is in them, and names that a power cut does not take back. Everything raises OSError."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The sha256 of the file's bytes, lower-case hex; about 1 s for 1 GB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """A file's content, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(written: Path, target: Path) -> None:
    """Give a complete file its final name: after a power cut it is the old one or the new one, and once this has
    returned the new one."""
    sync(written)
    written.replace(target)
    sync(target.parent)
