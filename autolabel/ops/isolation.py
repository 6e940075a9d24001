"""Pictures read and decoded by other processes: one that crashes, hangs or eats memory costs one picture.

Image decoders are large C programs that strangers feed; torchvision's dies of a damaged PNG. The process that holds
the run and the models therefore decodes no picture, only the mask PNGs of labels (index_png.py). This file knows no
picture format: see decoder.py beside it.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from typing import Any

import numpy as np

from autolabel.core.errors import AutolabelError, ImageError
from autolabel.core.text import printable
from autolabel.core.types import Frame, ImageInfo, ImageRef, UInt8
from autolabel.ops.storage import is_url

MESSAGE_BYTES = 1 << 16
READY = b"ready"
"""The first message of a process."""
DEATHS = 2
"""A picture that ended this many processes is given up; the first may have been somebody else's doing."""

_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 26), "MALLOC_TRIM_THRESHOLD_": str(1 << 27)}
"""Settings of glibc: what a picture needed is kept for the next one, up to this. Taking and giving back each picture's
pages costs as much as decoding a small one."""
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from autolabel.ops.decoder import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)


class DecoderPool:
    """One process for each thread that decodes at the same time, started when it is first needed, then kept."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _close_all, self._idle)

    def load_frame(self, ref: ImageRef, *, max_pixels: int, min_side: int, timeout_s: float) -> Frame:
        """Like `ops.images.load_frame`, from any thread. Raises ImageError also with `decoder_crash` and
        `decoder_hang`, and AutolabelError where no process can be started, which is no picture's fault."""
        if ref.problem is not None:
            raise ImageError(ref.problem.code, ref.problem.detail)
        # The processes stay where they were started, this one may have gone elsewhere. Not normalised: `a/..` may lead
        # through a link.
        path = os.path.join(os.getcwd(), ref.path)  # noqa: PTH109, PTH118 - a Path would normalise
        data = _remote_bytes(ref)
        request = {"path": path, "max_pixels": max_pixels, "min_side": min_side, "timeout_s": timeout_s}
        message = json.dumps(request | ({} if data is None else {"bytes": len(data)})).encode()
        if len(message) > MESSAGE_BYTES:
            raise ImageError("missing", f"a file name of {len(ref.path)} characters is not possible")
        status = 0
        for _ in range(DEATHS):
            worker = self._take()
            try:
                worker.await_start()
                image, info = worker.ask(message, data)
            except _Died as died:
                status = died.status
            except ImageError:
                self._give_back(worker)
                raise
            except BaseException:  # interrupted while it waited: the answer would be taken for the next one's
                worker.close()
                raise
            else:
                self._give_back(worker)
                return Frame(ref, image, info)
        raise _given_up(status, timeout_s)

    def processes(self) -> tuple[int, ...]:
        """Numbers of the idle processes."""
        with self._lock:
            return tuple(worker.number for worker in self._idle)

    def close(self) -> None:
        """End the idle processes; more are started when they are needed again."""
        with self._lock:
            idle, self._idle[:] = list(self._idle), []
        _close_all(idle)

    def forget(self) -> None:
        """In a forked child: the parent's processes are not ours to talk to, nor is its lock."""
        for worker in self._idle:
            worker.abandon()
        self._idle.clear()
        self._lock = threading.Lock()

    def _take(self) -> _Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Worker()

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)


class _Died(Exception):
    """The process ended before it answered; `status` as subprocess has it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Worker:
    """One process, and the memory that it shares with us. One picture at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._memory = os.memfd_create("autolabel-picture")
        self._map: mmap.mmap | None = None
        # What Python says when it cannot start; the process itself takes no more than that.
        self._said: int | None = os.memfd_create("autolabel-decoder-said")
        paths = [path for path in sys.path if isinstance(path, str)]  # as Python, which passes over the others
        with theirs:
            handles = (theirs.fileno(), self._memory)
            self._process = subprocess.Popen(
                # -P: not one file of the folder that we happen to be in, which may be a stranger's.
                [sys.executable, "-P", "-c", _PROGRAM, json.dumps(paths), *map(str, handles)],
                pass_fds=handles,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                env=_KEEP_MEMORY | os.environ,
                # A Ctrl-C in the terminal is for us alone.
                start_new_session=True,
            )

    @property
    def number(self) -> int:
        return self._process.pid

    def await_start(self) -> None:
        """Until it is ready for its first picture. Raises AutolabelError when it ends before."""
        if self._said is None:
            return
        try:
            ready = self._socket.recv(MESSAGE_BYTES)
        except ConnectionResetError:
            ready = b""
        if not ready:
            said = os.pread(self._said, MESSAGE_BYTES, max(0, os.fstat(self._said).st_size - MESSAGE_BYTES))
            last = printable(said.decode(errors="replace").strip().rpartition("\n")[2][:300])
            raise AutolabelError(
                f"the process that decodes pictures cannot start ({_ending(self.close())}): {last or 'it said nothing'}; "
                "decode.isolated=false decodes in this one"
            )
        os.close(self._said)
        self._said = None

    def ask(self, message: bytes, file: bytes | None = None) -> tuple[UInt8, ImageInfo]:
        """`file` is what the picture's file holds, where the process is not to read it. Raises ImageError, or _Died;
        then the worker is closed."""
        if file is not None:
            # Where the pixels go afterwards. Never smaller: the other side has what is there mapped.
            os.ftruncate(self._memory, max(len(file), os.fstat(self._memory).st_size))
            _write_all(self._memory, file)
        try:
            self._socket.send(message)
            data = self._socket.recv(MESSAGE_BYTES)
        except (BrokenPipeError, ConnectionResetError):
            data = b""
        if not data:
            raise _Died(self.close())
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            raise ImageError(*answer["error"])
        height, width = answer["size_hw"]
        info = ImageInfo(width, height, answer["orientation"], answer["sha256"], tuple(answer["notes"]))
        try:
            return self._pixels(height, width, answer["capacity"]), info
        except (OSError, MemoryError) as error:  # of mmap, and of the copy
            raise ImageError("out_of_memory", f"no room for {width}x{height} pixels: {error}") from error

    def _pixels(self, height: int, width: int, capacity: int) -> UInt8:
        if self._map is None or len(self._map) != capacity:
            self._map = mmap.mmap(self._memory, capacity, prot=mmap.PROT_READ)
        # A copy: the next picture comes to the same place.
        return np.frombuffer(self._map, np.uint8, height * width * 3).reshape(height, width, 3).copy()

    def close(self) -> int:
        """End the process; how it ended."""
        self.abandon()
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def abandon(self) -> None:
        """Let go of what connects us, and of nothing else."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            os.close(self._memory)
        if self._said is not None:
            os.close(self._said)
            self._said = None


def _remote_bytes(ref: ImageRef) -> bytes | None:
    """The file of a picture at an address: this process has the connections and the credentials, and bytes that are
    not looked at harm nobody. None for a file of this machine."""
    if not is_url(ref.path):
        return None
    from autolabel.ops.images import read_ref

    return read_ref(ref)


def _write_all(descriptor: int, data: bytes) -> None:
    at = 0
    while at < len(data):
        at += os.pwrite(descriptor, data[at:], at)


def _close_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.abandon()  # first all of them: they end side by side
    for worker in workers:
        worker.close()


def _given_up(status: int, timeout_s: float) -> ImageError:
    if -status == signal.SIGALRM:
        return ImageError("decoder_hang", f"no picture after {timeout_s:g} s, {DEATHS} times; it is left out")
    if -status == signal.SIGKILL:  # no decoder does that to itself: the kernel, where memory runs out, or a person
        return ImageError(
            "decoder_killed", f"{DEATHS} processes were killed while they decoded it; it is left out"
        )
    return ImageError("decoder_crash", f"decoding it ended {DEATHS} processes ({_ending(status)}); it is left out")


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit code {status}"


POOL = DecoderPool()
"""The process's own: several runs and labelers, one after the other or at once, share its decoders."""
os.register_at_fork(after_in_child=POOL.forget)


def isolated_frame(ref: ImageRef, *, max_pixels: int, min_side: int, timeout_s: float) -> Frame:
    """`POOL.load_frame`, as a function that can travel to another process."""
    return POOL.load_frame(ref, max_pixels=max_pixels, min_side=min_side, timeout_s=timeout_s)
