"""Fake detectors for faults: one whose answers depend on its batch, one that does something at a given picture."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autolabel.core.types import Detections, Frame
from tests.fakes import ColourDetector


class MatesDetector(ColourDetector):
    """The blocks of a picture, with scores that depend on every picture of the batch and on their order: a batch
    that is put together otherwise after a kill shows at once."""

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        found = super().detect(frames)
        mix = np.float32(sum(int(f.info.sha256[:4], 16) * (i + 1) for i, f in enumerate(frames)) % 997 / 2000)
        return [replace(d, scores=np.float32(0.5) + mix * np.ones(len(d), np.float32)) for d in found]


class ActingDetector(MatesDetector):
    """Obeys the file `orders` once, which is gone then: `5 term` asks its own process to end when it sees picture
    number 5, `5 twice` does so two times, `5 hang` does and goes on for two minutes, `5 fill FOLDER` fills that disk,
    `5 remove PATH` deletes, `5 replace PATH` alters. Without such a file it is a MatesDetector."""

    def __init__(self, *, orders: str) -> None:
        super().__init__()
        self.at, self.act, self.argument = -1, "", ""
        if Path(orders).is_file():
            at, self.act, *rest = Path(orders).read_text().split(" ", 2)
            self.at, self.argument = int(at), "".join(rest)
            Path(orders).unlink()

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        if self.calls <= self.at < self.calls + len(frames):
            getattr(self, f"_{self.act}")()
        return super().detect(frames)

    def _term(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def _twice(self) -> None:
        self._term()
        self._term()

    def _hang(self) -> None:
        self._term()
        time.sleep(120)

    def _fill(self) -> None:
        fill(Path(self.argument))

    def _remove(self) -> None:
        Path(self.argument).unlink()

    def _replace(self) -> None:
        Path(self.argument).write_bytes(b"no picture any more")


def fill(folder: Path, leave_bytes: int = 0) -> None:
    """Take all space of the folder's disk but `leave_bytes`."""
    with (folder / "filler").open("ab") as file:
        free = shutil.disk_usage(folder).free - leave_bytes
        step = 1 << 26
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, min(step, max(free, 1)))
            except OSError:
                step >>= 1
            else:
                free = shutil.disk_usage(folder).free - leave_bytes
                if free <= 0:
                    return
