"""Standard output and error of a command. Nobody has to read them: a run whose reader left (`| head`, a terminal that
is gone), or that was started without them (`2>&-`), does its work and ends with the code that it has anyway."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_UNHEARD = (errno.EPIPE, errno.EIO)  # no reader of the pipe; no terminal any more


@contextmanager
def unheard_is_no_error() -> Iterator[None]:
    """Meanwhile what cannot be delivered is dropped. A full disk behind `>` stays an error. Streams that are not the
    process's own, as a notebook's or a test's, are left alone but for names that cannot be encoded."""
    _occupy()
    before = sys.stdout, sys.stderr
    sys.stdout = _forgiving(sys.stdout, sys.__stdout__)
    sys.stderr = _forgiving(sys.stderr, sys.__stderr__)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before


class _Heard(io.FileIO):
    """A descriptor that becomes /dev/null when nobody is at its other end."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _UNHEARD:
                raise
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            return memoryview(data).nbytes


def _forgiving(stream: TextIO | None, own: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - as long as the process
    if isinstance(stream, io.TextIOWrapper):  # a file name must never end a run that is done
        stream.reconfigure(errors="backslashreplace")
        if stream is own:
            stream.flush()
            return io.TextIOWrapper(
                io.BufferedWriter(_Heard(stream.fileno(), "w", closefd=False)),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
    return stream


def _occupy() -> None:
    """Put /dev/null where the process was started with nothing: else the next file that is opened, a run's database,
    gets the number 1 or 2, and what a library prints goes into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest free number
