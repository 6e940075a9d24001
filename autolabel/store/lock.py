"""One process writes a run: an advisory lock that dies with its holder, whatever kills it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autolabel.core.errors import StoreBusy, StoreError

FILE_NAME = ".lock"
WORK_ON_A_COPY = "let this user write there, or work on a copy: cp -r RUN COPY && chmod -R u+w COPY"
"""What to do about a run directory that cannot be written."""


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the run directory's lock, to write. Raises StoreBusy naming the holder's process and host, StoreError
    where this user may not write."""
    try:
        descriptor = os.open(directory / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise StoreError(
            f"{directory} cannot be written ({FILE_NAME}: {error.strerror}); {WORK_ON_A_COPY}"
        ) from error
    try:
        _flock(descriptor, fcntl.LOCK_EX, directory)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        try:
            yield
        finally:
            # A reader that comes next has no name here, and must not be taken for this process.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextmanager
def shared(directory: Path) -> Iterator[None]:
    """Keep writers off the run directory, other readers not; writes nothing. Raises StoreBusy while there is a writer,
    and afterwards where one came that could not be kept off."""
    path = directory / FILE_NAME
    if not path.exists():  # a copy without it: nobody writes it yet
        yield
        if path.exists():
            raise StoreBusy(f"another process began to write {directory} meanwhile; wait for it and try again")
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _flock(descriptor, fcntl.LOCK_SH, directory)
        yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int, kind: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        raise StoreBusy(f"{directory} is in use by {holder}; wait for it, or choose another directory") from None
