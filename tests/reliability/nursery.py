"""Real processes that start in milliseconds: one warm interpreter that forks on demand. Each may be killed.

Run as a program it is that interpreter: it imports everything once, has one thread, and for every line of JSON on
its input forks a child that calls one function and leaves with its return value as exit code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
QUICK = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "AUTOLABEL_OFFLINE"), "1")


@dataclass(frozen=True)
class Ended:
    """`code` as subprocess has it: negative for a signal."""

    code: int
    text: str


class Child:
    """A process of the nursery; `pid` is that of the process itself, so signals reach nobody else."""

    def __init__(self, nursery: Nursery, pid: int, out: Path) -> None:
        self._nursery = nursery
        self.pid = pid
        self._out = out

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def text(self) -> str:
        return self._out.read_text(errors="replace") if self._out.exists() else ""

    def wait(self, timeout_s: float = 60) -> Ended:
        """Until it ended by itself or by a signal; a child that takes longer is killed and fails the test."""
        deadline = time.monotonic() + timeout_s
        while (status := self._nursery.ask(poll=self.pid)["status"]) is None:
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                raise AssertionError(f"still running after {timeout_s} s: {self.text()}")
            time.sleep(0.002)
        text = self.text()
        self._out.unlink(missing_ok=True)  # a child killed in its first moments has opened nothing
        return Ended(os.waitstatus_to_exitcode(status), text)


class Nursery:
    """The warm interpreter, seen from the tests. A context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.nursery"],
            cwd=ROOT,
            env={**os.environ, **QUICK, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="autolabel-nursery-")
        self._count = 0
        assert self._read() == {"threads": 1}, "a process with threads must not fork"

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(self, function: str, *arguments: Any, stopped: bool = False, uid: int = 0) -> Child:
        """Call `module:function` in a child. `stopped`: it waits for SIGCONT before it calls. `uid`: as that user."""
        self._count += 1
        out = Path(self._folder.name) / f"{self._count}.txt"
        answer = self.ask(call=function, args=arguments, out=str(out), stopped=stopped, uid=uid)
        child = Child(self, int(answer["pid"]), out)
        if stopped:
            await_state(child.pid, "T")
        return child

    def run(self, function: str, *arguments: Any, **options: Any) -> Ended:
        return self.start(function, *arguments, **options).wait()


def await_state(pid: int, state: str) -> None:
    """Until the kernel says that the process is in `state` (T stopped, t traced)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        line = Path(f"/proc/{pid}/stat").read_text()
        if line.rpartition(")")[2].split()[0] == state:
            return
        time.sleep(0.001)
    raise AssertionError(f"process {pid} never came to state {state}")


def _serve() -> None:
    from tests.reliability import programs

    programs.warm_up()
    _answer(threads=len(list(Path("/proc/self/task").iterdir())))
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            _answer(status=status if pid else None)
            continue
        programs.prepare([a for a in request["args"] if isinstance(a, str)])
        pid = os.fork()
        if pid == 0:
            _be_child(request)
        _answer(pid=pid)


def _answer(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _be_child(request: dict[str, Any]) -> None:
    from importlib import import_module

    code = 70
    try:
        out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.closerange(3, 64)
        if request["uid"]:
            os.setuid(request["uid"])
        if request["stopped"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        module, _, name = request["call"].partition(":")
        code = int(getattr(import_module(module), name)(*request["args"]) or 0)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - whatever it is, the test reads it
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
