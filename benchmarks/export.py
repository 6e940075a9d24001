"""Export speed and memory: many synthetic records to COCO and YOLO.

`python -m benchmarks.export --images 100000`. The records are made while they are read, so what is measured is the
export: a real run adds the reading of its records (measured beside, from a store of the same records). Masks are
blobs of some 120 px in 640 x 480, `--masks` different ones, none of them cached by anything; one in twenty has a
hole. YOLO links to one tiny picture. CPU seconds are those of the process alone; resident memory is the
highest while exporting, less what it was before (after a first export of a few images, which loads the code).
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from autolabel.app.compose import build_all, compose
from autolabel.core.protocols import RecordReader
from autolabel.core.types import Category, ImageInfo, ImageRecord, Instance, Rle, Verdict
from autolabel.ops.components import fill_holes
from autolabel.ops.masks import bounds_xyxy, encode
from autolabel.store.codec import decode_record, encode_record

SIZE_HW = (480, 640)
KEPT = Verdict()


@dataclass(frozen=True)
class Synthetic:
    """A RecordReader of records that are made on the way; object k of image i has mask (i * objects + k) % masks."""

    images: int
    objects: int
    masks: tuple[Instance, ...]
    picture: str
    categories: tuple[Category, ...] = (Category(1, "one"), Category(2, "two"))
    document: str = ""

    def records(self) -> Iterator[ImageRecord]:
        info = ImageInfo(SIZE_HW[1], SIZE_HW[0])
        verdicts = (KEPT,) * self.objects
        for i in range(self.images):
            first = i * self.objects
            found = tuple(self.masks[(first + k) % len(self.masks)] for k in range(self.objects))
            yield ImageRecord(
                f"camera{i % 20}/{i:06}.jpg", self.picture, "ok", info, candidates=found, verdicts=verdicts
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--masks", type=int, default=2000)
    parser.add_argument("--formats", nargs="*", default=["coco", "yolo"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "tiny.png"
        picture.write_bytes(cv2.imencode(".png", np.zeros((12, 12, 3), np.uint8))[1].tobytes())
        objects = tuple(blob(i) for i in range(arguments.masks))
        run = Synthetic(arguments.images, arguments.objects, objects, str(picture))
        lines = [f"{arguments.images} images x {arguments.objects} objects, {arguments.masks} different masks\n"]
        lines += [
            "| format | images/s of one core | wall s | memory growth, MB | on disk, MB |",
            "|---|---|---|---|---|",
        ]
        for name in arguments.formats:
            overrides = [f"export=[{name}]"] + (["export.yolo.images=link"] if name == "yolo" else [])
            exporter = build_all(compose("export", overrides).export)[name]
            exporter.export(replace(run, images=20), Path(scratch) / "warm" / name)
            lines.append(row(name, run, lambda e=exporter, n=name: e.export(run, Path(scratch) / n), scratch))
        lines.append(f"\nreading a record from a store costs {reading_us(run):.0f} us of CPU more")
    sys.stdout.write("\n".join(lines) + "\n")


def row(name: str, run: Synthetic, export: Callable[[], object], scratch: str) -> str:
    gc.collect()
    before = resident_mb()
    start, cpu = time.perf_counter(), time.process_time()
    with Highest() as highest:
        export()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    size_mb = sum(p.stat().st_size for p in (Path(scratch) / name).rglob("*") if not p.is_symlink()) / 1e6
    return f"| {name} | {run.images / cpu:.0f} | {wall:.1f} | {highest.mb - before:.0f} | {size_mb:.0f} |"


class Highest:
    """The highest resident memory while the block runs, looked at twenty times a second."""

    def __enter__(self) -> Highest:
        self.mb, self._stop = resident_mb(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.mb = max(self.mb, resident_mb())


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def blob(seed: int) -> Instance:
    """An object of one part with a wavy outline, 60 to 180 px wide."""
    rng = np.random.default_rng(seed)
    height, width = SIZE_HW
    radius = float(rng.uniform(30, 90))
    y, x = np.mgrid[:height, :width]
    dy, dx = y - rng.uniform(0, height), x - rng.uniform(0, width)
    angle, waves = np.arctan2(dy, dx), rng.integers(2, 9, 3)
    wavy = 1 + sum(0.08 * np.sin(n * angle + rng.uniform(0, 6)) for n in waves)
    mask = encode(np.hypot(dx, dy) < radius * wavy)
    mask = fill_holes(mask, 10**6)
    if seed % 20 == 0:
        mask = encode((np.hypot(dx, dy) < radius * wavy) & (np.hypot(dx, dy) > 8))
    return Instance(0, 1 + seed % 2, box_of(mask), 0.9, mask, predicted_iou=0.8)


def box_of(mask: Rle) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = bounds_xyxy(mask) or (0, 0, 1, 1)
    return float(x0), float(y0), float(x1), float(y1)


def reading_us(run: RecordReader) -> float:
    blobs = [encode_record(record) for record, _ in zip(run.records(), range(500), strict=False)]
    start = time.process_time()
    for one in blobs:
        decode_record(one, "a.jpg", "a.jpg")
    return (time.process_time() - start) / len(blobs) * 1e6


if __name__ == "__main__":
    main()
