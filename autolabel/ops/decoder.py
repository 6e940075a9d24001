"""A process that decodes pictures for another one, so that a decoder that crashes takes no run with it.

Run as a program with two inherited descriptors: a socket for requests and answers (JSON), and shared memory for the
pixels. It holds no lock, no store and no model, and ends when the other side of the socket is gone. It kills itself
when a picture takes too long, whatever the decoder does at that moment.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import socket
import sys
from typing import Any

import numpy as np

from autolabel.core.errors import ImageError
from autolabel.core.types import ImageRef, UInt8
from autolabel.ops.images import frame_of, load_frame
from autolabel.ops.isolation import MESSAGE_BYTES, READY

KEPT_BYTES = 1 << 26
"""Shared memory that is kept between two pictures; what a larger one needed is given back."""
STEP_BYTES = 1 << 20
BASE_BYTES = 3 << 30
BYTES_A_PIXEL = 24
"""Address space that decoding may take: the libraries, and what the largest allowed picture needs in the worst format
(16-bit RGBA, its 8-bit copy, and the upright copy of that)."""


class Shared:
    """The memory that the other side reads. It stays mapped: mapping costs as much as copying."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def get(self, size: int) -> bytes:
        """The first bytes that the other side wrote."""
        return os.pread(self._descriptor, size, 0)

    def put(self, image_rgb: UInt8) -> int:
        """Copy the picture to the start; how large the memory is now."""
        shared = self._at_least(image_rgb.nbytes)
        np.copyto(np.frombuffer(shared, np.uint8, image_rgb.size).reshape(image_rgb.shape), image_rgb)
        return len(shared)

    def _at_least(self, size: int) -> mmap.mmap:
        if self._map is None or not size <= len(self._map) <= max(size, KEPT_BYTES):
            if self._map is not None:
                self._map.close()
            # Down to nothing first: what a huge picture took is given back.
            os.ftruncate(self._descriptor, 0)
            os.ftruncate(self._descriptor, -(-size // STEP_BYTES) * STEP_BYTES)
            self._map = mmap.mmap(self._descriptor, 0)
        return self._map


def serve(requests: socket.socket, shared: Shared) -> None:
    """Answer until the other side closes."""
    while message := requests.recv(MESSAGE_BYTES):
        request: dict[str, Any] = json.loads(message)
        _limit_memory(BASE_BYTES + BYTES_A_PIXEL * request["max_pixels"])
        # The kernel ends this process then: no decoder can prevent it.
        signal.setitimer(signal.ITIMER_REAL, request["timeout_s"])
        answer = _answer(request, shared)
        signal.setitimer(signal.ITIMER_REAL, 0)
        requests.send(json.dumps(answer).encode())


def _answer(request: dict[str, Any], shared: Shared) -> dict[str, Any]:
    ref = ImageRef(request["path"], request["path"])
    bounds = {"max_pixels": request["max_pixels"], "min_side": request["min_side"]}
    try:
        if "bytes" in request:
            frame = frame_of(ref, shared.get(request["bytes"]), **bounds)
        else:
            frame = load_frame(ref, **bounds)
        capacity = shared.put(frame.image_rgb)
    except ImageError as error:
        return {"error": [error.code, error.detail[:2000]]}
    except MemoryError:
        return {"error": ["too_large", "decoding it needs more memory than a picture of max_pixels may take"]}
    info = frame.info
    found = {"size_hw": info.size_hw, "orientation": info.orientation, "sha256": info.sha256, "notes": info.notes}
    return {**found, "capacity": capacity}


def _limit_memory(limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    highest = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_AS, (min(limit, highest), hard))


def main(descriptor: int, memory: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C goes to the whole group; whoever asked us decides
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Decoders print what they think of a file.
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - os.devnull is a str
        os.dup2(nothing.fileno(), 2)
    with socket.socket(fileno=descriptor) as requests:
        requests.send(READY)
        serve(requests, Shared(memory))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
