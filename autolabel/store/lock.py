"""One process a run: an advisory lock that dies with its holder, whatever kills it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autolabel.core.errors import StoreBusy


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the run directory's lock. Raises StoreBusy naming the holder's process and host."""
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise StoreBusy(
                f"{directory} is in use by {holder}; wait for it, or choose another run directory with run=..."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
