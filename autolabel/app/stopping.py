"""Ctrl-C and SIGTERM: the first one lets the pictures in hand be finished, the second one leaves now.

Python's own handlers wait until the main thread is back from C code. A watching thread does not: it ends the process
when the main thread does not leave in time, which loses nothing, because what is committed survives a kill.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from autolabel.core.errors import STOPPED
from autolabel.core.protocols import Unit

GRACE_S = 8.0
"""What is in hand may take this long after the first signal; then it is given up, to be redone by the next run."""
LAST_S = 1.0
"""And the main thread this long to leave, after the second signal or the grace."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether somebody asked to stop. `gentle`: there is work in hand that is worth finishing; else the first
    signal leaves at once, as KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self.gentle = False

    def until(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """The units, until somebody asks to stop: what was handed out is still finished and committed."""
        for unit in units:
            if self.asked:
                return
            yield unit

    def handle(self, number: int, frame: object) -> None:
        """A signal, in the main thread."""
        if self.asked or not self.gentle:
            raise KeyboardInterrupt
        self.asked = True
        _say("stopping after the pictures in hand; once more to stop now")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Listens to SIGINT and SIGTERM meanwhile."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # a notebook's or a server's signals are not ours
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = {number: signal.signal(number, stop.handle) for number in _SIGNALS}
    woken = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(heard, stop), name="autolabel-stop", daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)  # which ends the watcher
        watcher.join()
        os.close(heard)


def _watch(heard: int, stop: Stop) -> None:
    """End the process when the main thread does not: one second after the last signal that it is to heed."""
    if not _next_signal(heard, None):
        return
    if stop.gentle:
        answer = _next_signal(heard, GRACE_S)
        if answer is False:
            return
        if answer is None:
            # As a second Ctrl-C would: it also wakes a main thread that waits for a lock.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    while _next_signal(heard, LAST_S):
        continue  # impatience changes nothing
    if _next_signal(heard, 0) is None:
        _say("autolabel: stopped at once; what was committed is safe, the same command continues")
        os._exit(STOPPED)


def _say(text: str) -> None:
    """Past `sys.stderr`, which the main thread may be in the middle of; who reads that may be stopped as well."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


def _next_signal(heard: int, timeout_s: float | None) -> bool | None:
    """True when one came, False when the listening has ended, None when nothing came in time."""
    while select.select([heard], [], [], timeout_s)[0]:
        numbers = os.read(heard, 1)
        if not numbers:
            return False
        if numbers[0] in _SIGNALS:
            return True
    return None
