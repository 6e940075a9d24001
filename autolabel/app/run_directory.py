"""The run directory: its name, and what would stop a run before any model is loaded."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from autolabel.app.run_log import FILE_NAME as LOG
from autolabel.core.errors import AutolabelError, ConfigError, SourceError, StoreError, StoreFull, is_disk_full
from autolabel.core.text import counted, printable
from autolabel.core.types import ImageRef
from autolabel.ops.evaluation_file import FIGURES, FOLDER, OBJECTS
from autolabel.ops.files import replace_durably
from autolabel.ops.storage import absolute, is_url, redact
from autolabel.store.lock import FILE_NAME as LOCK
from autolabel.store.lock import exclusive
from autolabel.store.place import free_bytes
from autolabel.store.run import FILE_NAME, check_is_run, open_reader

_SUFFIXES = frozenset((".txt", ".lst", ".json", ".yaml", ".yml", ".parquet"))
"""Suffixes of files that list pictures; whether an address is a folder is not asked for a name."""
MIN_FREE_BYTES = 256 << 20
BYTES_A_PICTURE = 3 << 10
"""Room for a record: 2 KiB, measured with real detections, and half as much again for the log that SQLite keeps."""


def root_of(values: Mapping[str, Any]) -> str:
    """Where the pictures come from; empty for a source of somebody's own that has no path."""
    path = values["source"].get("path")
    if path is None:
        return ""
    return absolute(str(path)) if is_url(str(path)) else str(Path(str(path)).expanduser().resolve())


def run_path(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"run must be a path, got {value!r} (a directory called 5 is run=./5)")
    if is_url(value):
        raise ConfigError(
            f"run={redact(value)}: a run is a database and needs a disk of this machine; "
            "its exports can go to an address: export_to=..."
        )
    return Path(value).expanduser()


def default_run(source_path: str) -> Path:
    """`runs/<name of the source>`; the parent's name where the file's own says nothing."""
    remote = is_url(source_path)
    path = PurePosixPath(source_path) if remote else Path(source_path).expanduser().resolve()
    generic = {"instances", "data", "annotations", "images", "labels", "list"}
    whole = path.suffix.lower() not in _SUFFIXES if remote else Path(path).is_dir()
    name = path.name if whole else path.stem  # `photos.v1` and `photos.v2` are two folders
    name = path.parent.name if name.lower() in generic and path.parent.name else name
    return Path("runs") / (name.replace("*", "_").replace("?", "_") or "run")


OWN_FILES = (LOCK, LOG, FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", "config.yaml")
"""Files that a run directory may hold before the first record."""
KEPT_CALIBRATION = "quality-{}.json"
"""The run's own copy of a calibration that it was judged with, by the start of its sha256."""


@contextmanager
def made_run(directory: Path) -> Iterator[None]:
    """The run directory, its lock held. One that was not there before, and where no record came to be, goes again with
    an error: of a mistyped path or setting nothing is left. Raises as `preflight` and `exclusive`."""
    new = not os.path.exists(directory)  # noqa: PTH110 - what cannot even be looked at is for preflight to say
    try:
        preflight(directory)
        with exclusive(directory):
            try:
                yield
            except Exception:  # not a Ctrl-C, after which the same command continues
                if new and not _has_records(directory):
                    for path in (
                        *map(directory.joinpath, OWN_FILES),
                        *directory.glob(KEPT_CALIBRATION.format("*")),
                    ):
                        path.unlink(missing_ok=True)
                raise
    except Exception:
        if new:
            with suppress(OSError):  # there is something in it
                directory.rmdir()
        raise


def _has_records(directory: Path) -> bool:
    """Also true for what cannot be read: there may be some."""
    if not (directory / FILE_NAME).exists():
        return False
    try:
        with open_reader(directory) as reader:
            return any(True for _ in reader.records())
    except AutolabelError:
        return True


def preflight(directory: Path) -> None:
    """Create the directory. Raises StoreError when it cannot be written, StoreFull when its disk is nearly full."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        if is_disk_full(error):
            raise StoreFull(f"{directory}: the disk is full; make room or choose another with run=...") from error
        raise StoreError(
            f"{directory} cannot be written: {error.strerror}; choose another with run=..."
        ) from error
    require_room(directory, 0, 0)


def require_room(directory: Path, pictures: int, formats: int) -> None:
    """Raises StoreFull when the records of so many pictures, and their exports in so many formats, may not fit."""
    database = directory / FILE_NAME
    there = database.stat().st_size if database.is_file() else 0
    needed = MIN_FREE_BYTES + max(0, pictures * BYTES_A_PICTURE - there) + pictures * formats * BYTES_A_PICTURE
    free = free_bytes(directory)
    if free < needed:
        raise StoreFull(
            f"{directory}: {free >> 20} MiB free, this run needs {needed >> 20} MiB; "
            "make room or choose another disk with run=..."
        )


def require_readable(refs: Mapping[str, ImageRef]) -> None:
    """Raises SourceError when none of the pictures is there to be read: a wrong folder, not a bad picture."""
    for ref in refs.values():
        try:
            # A storage is not asked once more: its listing named the picture, or reading will tell.
            if ref.problem is not None or is_url(ref.path) or os.access(ref.path, os.R_OK):
                return
        except ValueError:  # a NUL: no file has this name
            continue
    first = next(iter(refs.values()))
    elsewhere = first.labels is not None and not os.path.lexists(first.path)
    raise SourceError(
        f"{counted(len(refs), '[the picture cannot be|none of the {} pictures can be] read')}, the first is {printable(first.path)}; "
        + (
            "where are they? source.images_dir=FOLDER says so"
            if elsewhere
            else "is the folder the right one, and may this user read it?"
        )
    )


NOTHING_LABELLED = (
    "{} holds nothing that was labelled yet; delete it, or label again: autolabel label PATH run=..."
)


def existing_run(path: str | None, run: object, command: str) -> Path:
    """The run that a command is given, as a bare path or as `run=`. Raises ConfigError or StoreError."""
    if path and run is not None and Path(path).expanduser().resolve() != Path(str(run)).expanduser().resolve():
        raise ConfigError(
            f"{command} works on one run, got {path} and run={run}; it writes into that run itself: to keep {path} as it "
            "is, copy it first"
        )
    chosen = path or run
    if chosen is None:
        raise ConfigError(f"which run? autolabel {command} RUN (autolabel --help)")
    directory = Path(str(chosen)).expanduser()
    if not directory.is_dir():
        raise StoreError(f"there is no run directory {directory}")
    check_is_run(directory)  # before a lock file is left in somebody's folder
    return directory


def runs_below(folder: Path) -> list[Path]:
    """The run directories that lie in a folder, sorted: those of a sweep, say."""
    return sorted(path.parent for path in folder.glob(f"*/{FILE_NAME}") if path.is_file())


def is_labelled(run: Path) -> bool:
    """Whether labelling began. Raises StoreError for a run that cannot be read."""
    with open_reader(run) as reader:
        return reader.meta("config") is not None


def write_text(path: Path, text: str) -> None:
    """Replace a file whole: after a kill or a power cut it is the old one or the new one."""
    with replaced_text(path) as file:
        file.write(text)


@contextmanager
def replaced_text(path: Path) -> Iterator[TextIO]:
    """A text file to write into, that takes the place of `path` when the block ends well, and vanishes otherwise."""
    temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}"))
    try:
        # Made like any other file, so that the umask says who may read it.
        with open(temporary, "x", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            yield file
        replace_durably(Path(temporary), path)
    except BaseException as error:
        with suppress(OSError):  # it may never have been made
            Path(temporary).unlink()
        if isinstance(error, OSError) and error.filename in (None, temporary):  # nobody knows the temporary one
            error.filename, error.filename2 = str(path), None
        raise


def set_aside_evaluation(directory: Path) -> bool:
    """Rename the evaluation of records that are no more (`evaluation.json` to `evaluation.json.outdated`), so that no
    report and no comparison takes it for one of today's. Returns whether there was one. `quality.json`, a
    setting, stays."""
    old = [path for name in (FIGURES, OBJECTS) if (path := directory / FOLDER / name).exists()]
    for path in old:
        path.replace(path.with_name(f"{path.name}.outdated"))
    return bool(old)
