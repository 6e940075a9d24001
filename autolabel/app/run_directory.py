"""The run directory: its default name, and what would stop a run before any model is loaded."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from autolabel.core.errors import ConfigError, StoreError
from autolabel.store.run import check_is_run

MIN_FREE_BYTES = 256 << 20


def default_run(source_path: str) -> Path:
    """`runs/<name of the source>`; the parent's name where the file's own says nothing."""
    path = Path(source_path).expanduser().resolve()
    generic = {"instances", "data", "annotations", "images", "labels", "list"}
    name = path.name if path.is_dir() else path.stem  # `photos.v1` and `photos.v2` are two folders
    name = path.parent.name if name.lower() in generic and path.parent.name else name
    return Path("runs") / (name.replace("*", "_").replace("?", "_") or "run")


def preflight(directory: Path) -> None:
    """Create the directory. Raises StoreError when it cannot be written or its disk is nearly full."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise StoreError(
            f"{directory} cannot be written: {error.strerror}; choose another with run=..."
        ) from error
    free = shutil.disk_usage(directory).free
    if free < MIN_FREE_BYTES:
        raise StoreError(
            f"{directory}: {free >> 20} MiB free, a run needs {MIN_FREE_BYTES >> 20} MiB at least; "
            "make room or choose another disk with run=..."
        )


def existing_run(path: str | None, run: object, command: str) -> Path:
    """The run that a command is given, as a bare path or as `run=`. Raises ConfigError or StoreError."""
    chosen = path or run
    if chosen is None:
        raise ConfigError(f"which run? autolabel {command} RUN (autolabel --help)")
    directory = Path(str(chosen)).expanduser()
    if not directory.is_dir():
        raise StoreError(f"there is no run directory {directory}")
    check_is_run(directory)  # before a lock file is left in somebody's folder
    return directory


def write_text(path: Path, text: str) -> None:
    """Replace a file whole: after a kill or a power cut it is the old one or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # noqa: PTH101
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
