"""A folder that is written whole or not at all. Knows no format.

The files go to a draft beside the final folder, each synced to disk; the draft gets a `manifest.json` with
the sha256 of every file, and takes the place of the old folder in one step. Whatever kills the export, the
old folder or the new one is there (where the file system cannot exchange two folders in one step, the next
export puts an old folder back that a kill left aside).
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autolabel.core.errors import ExportError

MANIFEST = "manifest.json"
_MARK = "autolabel_export"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CHUNK = 1 << 20


class Draft:
    """The folder while it is written. Paths are relative to it, with `/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries: dict[str, dict[str, object]] = {}
        self._folders = {root}

    @property
    def files(self) -> tuple[str, ...]:
        """What was written so far, sorted."""
        return tuple(sorted(self._entries))

    def folder(self, path: str) -> Path:
        """A folder that exists from now on, also when nothing is written into it."""
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        while folder not in self._folders:
            self._folders.add(folder)
            folder = folder.parent
        return self.root / path

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """One file of the given bytes, synced."""
        digest, size = hashlib.sha256(), 0
        with self._place(path).open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        self._entries[path] = {"bytes": size, "sha256": digest.hexdigest()}

    def copy(self, source: Path, path: str) -> str:
        """A copy of a file, its sha256 in return. Raises OSError when the source cannot be read."""
        with source.open("rb") as file:
            self.write(path, iter(lambda: file.read(_CHUNK), b""))
        return self.sha256(path)

    def sha256(self, path: str) -> str:
        """Of a file that was written."""
        return str(self._entries[path]["sha256"])

    def link(self, source: Path, path: str, sha256: str) -> None:
        """A symbolic link to a file elsewhere; the manifest carries the sha256 of what it should hold."""
        self._place(path).symlink_to(source.absolute())
        self._entries[path] = {"link": True, "sha256": sha256}

    def remove(self, path: str) -> None:
        """Take a file back."""
        (self.root / path).unlink()
        del self._entries[path]

    def finish(self) -> None:
        """Write the manifest and sync the folders."""
        manifest = {_MARK: 1, "files": {path: self._entries[path] for path in self.files}}
        text = json.dumps(manifest, indent=0, sort_keys=True, allow_nan=False)
        self.write(MANIFEST, [text.encode("ascii")])
        for folder in sorted(self._folders, reverse=True):
            _sync_folder(folder)

    def _place(self, path: str) -> Path:
        place = self.root / path
        self.folder(str(Path(path).parent))
        return place


@contextmanager
def replaced(directory: Path) -> Iterator[Draft]:
    """A draft that becomes `directory` when the block ends well, and vanishes when it does not.

    Raises ExportError when `directory` holds something that is not an export of ours.
    """
    directory = directory.absolute()
    draft, aside = _beside(directory, "draft"), _beside(directory, "old")
    directory.parent.mkdir(parents=True, exist_ok=True)
    if aside.exists() and not directory.exists():
        aside.rename(directory)
    _refuse_strangers(directory)
    for leftover in (draft, aside):
        if leftover.exists():
            shutil.rmtree(leftover)
    draft.mkdir()
    try:
        writer = Draft(draft)
        yield writer
        writer.finish()
        _put_in_place(draft, directory, aside)
    finally:
        # After an exchange the draft's name holds the old folder. A folder left aside goes only when another
        # one is in its place.
        if draft.exists():
            shutil.rmtree(draft)
        if aside.exists() and directory.exists():
            shutil.rmtree(aside)


def _beside(directory: Path, word: str) -> Path:
    return directory.with_name(f".{directory.name}.{word}")


def _refuse_strangers(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir() or directory.is_symlink():
        raise ExportError(f"{directory} is no folder; export to another place")
    if not any(directory.iterdir()):
        return
    try:
        ours = _MARK in json.loads((directory / MANIFEST).read_bytes())
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise ExportError(
            f"{directory} holds files that are no export of autolabel; export to another place, or empty it"
        )


def _put_in_place(draft: Path, directory: Path, aside: Path) -> None:
    if not directory.exists():
        draft.rename(directory)
    elif not _exchanged(draft, directory):
        directory.rename(aside)
        draft.rename(directory)
    _sync_folder(directory.parent)


def _exchanged(a: Path, b: Path) -> bool:
    """Swap two folders in one step; False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(b))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
