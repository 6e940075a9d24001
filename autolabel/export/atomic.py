"""A folder that is written whole or not at all. Knows no format.

The files go to a draft beside the final folder, with a `manifest.json` that holds the sha256 of every file and
of itself. The draft is synced to disk and takes the place of the old folder in one step. Whatever kills the export, the
old folder or the new one is there (where the file system cannot exchange two folders in one step, the next
export puts an old folder back that a kill left aside).

Beside the folder, `.<name>.draft` holds nothing of anybody's and goes without a look. `.<name>.old` may have been in
place: files that somebody changed or added there are looked for first, also by the next export after a kill.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import json
import logging
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from autolabel.core.errors import ExportError, is_disk_full
from autolabel.core.protocols import DigestReader, RecordReader, SettingsReader
from autolabel.core.text import counted, printable
from autolabel.export.manifest import (
    SEAL,
    SETTINGS,
    edited_files,
    origin_line,
)
from autolabel.ops.export_mark import HEAD, MANIFEST, RECORDS, is_export
from autolabel.ops.files import sync

logger = logging.getLogger(__name__)

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CHUNK = 1 << 20


class Draft:
    """The folder while it is written. Paths are relative to it, with `/`.

    Memory does not grow with the number of files: the manifest is written as they come, and only the last
    file can be taken back.
    """

    def __init__(self, root: Path, origin: Mapping[str, object]) -> None:
        """`origin`: what is exported, for the manifest."""
        self.root = root
        self._origin = origin
        self._held: Counter[str] = Counter()
        self._folders = {root}
        self._last: tuple[str, dict[str, object]] | None = None
        self._manifest = (root / MANIFEST).open("xb")
        self._digest = hashlib.sha256()
        self._separator = b""
        self._append(HEAD)

    @property
    def files(self) -> tuple[str, ...]:
        """What was written so far, sorted: the files at the top by name, all others by their folder, at most
        two levels deep and with a closing `/`."""
        return tuple(sorted(self._held))

    def folder(self, path: str) -> Path:
        """A folder that exists from now on, also when nothing is written into it."""
        folder = self.root / path
        if folder not in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            while folder not in self._folders:
                self._folders.add(folder)
                folder = folder.parent
        return self.root / path

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """One file of the given bytes."""
        digest, size = hashlib.sha256(), 0
        with self._place(path).open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        self._enter(path, {"bytes": size, "sha256": digest.hexdigest()})

    def copy(self, source: Path, path: str) -> str:
        """A copy of a file, its sha256 in return. Raises OSError when the source cannot be read."""
        with source.open("rb") as file:
            self.write(path, iter(lambda: file.read(_CHUNK), b""))
        return self.sha256(path)

    def sha256(self, path: str) -> str:
        """The sha256 of the file that was written last."""
        assert self._last is not None, "a file was written"
        assert self._last[0] == path, "only the last file is remembered"
        return str(self._last[1]["sha256"])

    def link(self, source: Path, path: str, sha256: str) -> None:
        """A symbolic link to a file elsewhere; the manifest carries the sha256 of what it should hold."""
        self._place(path).symlink_to(source.absolute())
        self._enter(path, {"link": True, "sha256": sha256})

    def remove(self, path: str) -> None:
        """Take back the file that was written last."""
        self.sha256(path)
        (self.root / path).unlink()
        self._last = None
        shown = _shown(path)
        self._held[shown] -= 1
        self._held = +self._held

    def finish(self) -> None:
        """Complete the manifest and sync everything to disk."""
        self._flush_entry()
        self._append(b"\n},\n")
        if self._origin:
            self._append(origin_line(self._origin))
        self._manifest.write(
            json.dumps(SEAL).encode() + b":" + json.dumps(self._digest.hexdigest()).encode() + b"}\n"
        )
        self._manifest.close()
        self._held[MANIFEST] += 1
        _sync_tree(self.root, self._folders)

    def abandon(self) -> None:
        """Close what is open; what was written stays."""
        self._manifest.close()

    def _place(self, path: str) -> Path:
        place = self.root / path
        self.folder(str(Path(path).parent))
        return place

    def _enter(self, path: str, entry: dict[str, object]) -> None:
        self._flush_entry()
        self._last = (path, entry)
        self._held[_shown(path)] += 1

    def _flush_entry(self) -> None:
        if self._last is None:
            return
        path, entry = self._last
        text = json.dumps(path) + ": " + json.dumps(entry, sort_keys=True, allow_nan=False)
        self._append(self._separator + text.encode("ascii"))
        self._separator, self._last = b",\n", None

    def _append(self, line: bytes) -> None:
        self._manifest.write(line)
        self._digest.update(line)


@contextmanager
def replaced(directory: Path, run: RecordReader | None = None) -> Iterator[Draft]:
    """A draft that becomes `directory` when the block ends well, and vanishes when it does not. Its manifest tells
    the records of `run`, and the settings, from others where the run can.

    An old folder with files that somebody changed or added is kept as `<name>.edited-1` (-2, ...), and a warning says
    so. Raises ExportError when `directory` holds something that is not an export of ours.
    """
    directory = directory.absolute()
    draft, aside = _beside(directory, "draft"), _beside(directory, "old")
    directory.parent.mkdir(parents=True, exist_ok=True)
    if aside.exists() and not directory.exists():
        aside.rename(directory)
    _refuse_strangers(directory)
    _remove(draft)
    _retire(aside, directory, draft)
    try:
        with _written(draft, _origin(run)) as writer:
            yield writer
        _put_in_place(draft, directory, aside)
    except OSError as error:
        if is_disk_full(error) and error.filename is None:  # of a write, which knows no names
            error.filename = str(directory)
        raise
    finally:
        try:
            _remove(draft)
            # A folder left aside goes only when another one is in its place.
            if directory.exists():
                _retire(aside, directory, draft)
        except ExportError as error:  # what was to be written is there, or has an error of its own
            logger.warning("%s", error)


@contextmanager
def _written(draft: Path, origin: Mapping[str, object]) -> Iterator[Draft]:
    """A new folder, finished when the block ends well."""
    draft.mkdir()
    writer = Draft(draft, origin)
    try:
        yield writer
        writer.finish()
    finally:
        with suppress(OSError):  # a full disk, which has said so before
            writer.abandon()


def _origin(run: RecordReader | None) -> dict[str, object]:
    if not isinstance(run, DigestReader):
        return {}
    settings = {SETTINGS: run.settings} if isinstance(run, SettingsReader) else {}
    return {RECORDS: run.digest(), **settings}


def _shown(path: str) -> str:
    """How `Draft.files` names a file."""
    folders = path.split("/")[:-1]
    return "/".join([*folders[:2], ""]) if folders else path


def _beside(directory: Path, word: str) -> Path:
    return directory.with_name(f".{directory.name}.{word}")


def _refuse_strangers(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir() or directory.is_symlink():
        raise ExportError(f"{directory} is not a folder; export to another place")
    if not any(directory.iterdir()):
        return
    if not is_export(directory):
        raise ExportError(
            f"{directory} holds files that autolabel did not export; export to another place, or empty it"
        )


def _put_in_place(draft: Path, directory: Path, aside: Path) -> None:
    if not directory.exists():
        draft.rename(directory)
    else:
        # The name under which the old folder will be after the exchange: one that is not removed without a look.
        draft.rename(aside)
        if not _exchanged(aside, directory):
            aside.rename(draft)
            directory.rename(aside)
            draft.rename(directory)
    sync(directory.parent)


def _retire(aside: Path, directory: Path, draft: Path) -> None:
    """Remove what another folder took the place of, or give it a name of its own where somebody worked in it."""
    if not aside.exists():
        return
    edited = edited_files(aside)
    if not edited:
        # What is half removed has lost its manifest, and could not be told from somebody's work any more.
        aside.rename(draft)
        _remove(draft)
        return
    names = (directory.with_name(f"{directory.name}.edited-{number}") for number in itertools.count(1))
    kept = next(name for name in names if not os.path.lexists(name))
    aside.rename(kept)
    sync(directory.parent)
    logger.warning(
        counted(
            len(edited),
            "{} file[ was|s were] changed or added in {} since it was written ({}); the old folder is now {}, nothing is lost",
            directory,
            printable(edited[0]),
            kept,
        )
    )


def _remove(folder: Path) -> None:
    """Also one that somebody protected from writing. Raises ExportError when it cannot be."""
    if not folder.exists():
        return
    try:
        try:
            shutil.rmtree(folder)
        except PermissionError:
            _allow_writing(folder)
            shutil.rmtree(folder)
    except OSError as error:
        raise ExportError(
            f"{folder} is left of an earlier export and cannot be removed ({error.strerror}); nothing in it is needed: "
            f"chmod -R u+w {shlex.quote(str(folder))}, and remove it"
        ) from error


def _allow_writing(folder: Path) -> None:
    """In every folder of the tree, none of them behind a link."""
    folder.chmod(0o700)
    for path, folders, _ in os.walk(folder):
        for inner in (Path(path, name) for name in folders):
            if not inner.is_symlink():
                inner.chmod(0o700)


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


def _sync_tree(root: Path, folders: Iterable[Path]) -> None:
    """Everything below `root` to disk: in one call where the system has one for a whole file system."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is not None:
        with _opened(root) as handle:
            if syncfs(handle) == 0:
                return
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(root))
    for folder in sorted(folders, reverse=True):
        for path in (p for p in folder.iterdir() if p.is_file() and not p.is_symlink()):
            sync(path)
        sync(folder)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)
