"""Faults at system calls, through strace: a process that is traced dies at its Nth call, or that call fails.

This is the kernel's own boundary: whatever library makes the call, nothing of ours is replaced.
"""

from __future__ import annotations

import functools
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.nursery import Child, Ended, Nursery

COMMIT_CALLS = ("openat", "pwrite64", "write", "fdatasync", "fsync", "ftruncate", "unlink", "rename", "fallocate")
"""What SQLite and our own file writing do to a disk."""


@functools.cache
def can_inject() -> bool:
    """Whether strace is here and may trace: some containers forbid it."""
    if shutil.which("strace") is None:
        return False
    probe = ["strace", "-f", "-qq", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "sync", "/"]
    return b"Input/output error" in subprocess.run(probe, capture_output=True).stderr


@dataclass(frozen=True)
class Fault:
    """At the `nth` one of `calls` (1 is the first; "3+" is the third and all later ones): die of `signal`, or fail with
    `errno`."""

    calls: str
    nth: int | str
    errno: str = ""
    signal: str = "SIGKILL"

    def __str__(self) -> str:
        return f"{self.errno or self.signal} at {self.calls} {self.nth}"

    @property
    def options(self) -> list[str]:
        what = f"error={self.errno}" if self.errno else f"signal={self.signal}"
        return ["-e", f"trace={self.calls}", "-e", f"inject={self.calls}:{what}:when={self.nth}"]


def run_with(nursery: Nursery, fault: Fault, function: str, *arguments: Any, paths: Sequence[Path] = ()) -> Ended:
    """The function in a child that has the fault. `paths`: only calls about these files count."""
    child, tracer = _traced(nursery, fault.options, function, arguments, paths)
    ended = child.wait()
    tracer.communicate()
    return ended


def calls_of(nursery: Nursery, calls: Sequence[str], function: str, *arguments: Any) -> list[tuple[str, int, str]]:
    """Each of these calls that a whole run makes: its name, that it is the nth of that name, and its file."""
    child, tracer = _traced(nursery, ["-y", "-e", f"trace={','.join(calls)}"], function, arguments, ())
    ended = child.wait()
    assert ended.code == 0, ended
    _, log = tracer.communicate()
    made: list[tuple[str, int, str]] = []
    seen: Counter[str] = Counter()
    for name, first in re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(([^,)]*)", log, re.MULTILINE):
        seen[name] += 1
        made.append((name, seen[name], first.partition("<")[2].rstrip(">")))
    return made


def _traced(
    nursery: Nursery, options: Sequence[str], function: str, arguments: Sequence[Any], paths: Sequence[Path]
) -> tuple[Child, subprocess.Popen[str]]:
    child = nursery.start(function, *arguments, stopped=True)
    about = [part for path in paths for part in ("-P", str(path))]
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", *about, *options, "-p", str(child.pid)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 20
    while "TracerPid:\t0" in Path(f"/proc/{child.pid}/status").read_text():
        assert tracer.poll() is None, tracer.communicate()[1]
        assert time.monotonic() < deadline, "strace never attached"
        time.sleep(0.002)
    child.signal(signal.SIGCONT)
    return child, tracer
