"""Export speed and memory: a run of many synthetic records, in a real store, to COCO and YOLO.

`python -m benchmarks.export --images 100000`. Masks are blobs of some 120 px in 640 x 480, `--masks` different ones,
none of them cached by anything; one in twenty has a hole. What is measured is what `autolabel export` does after it has
started, the reading of the records included. YOLO links to one tiny picture. CPU seconds are those of the process
alone, user and system, so other work on the machine matters less; resident memory is the highest while exporting,
less what it was before (after a first export of a few images, which loads the code).
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from autolabel.app.build import build_all
from autolabel.app.compose import compose
from autolabel.core.types import Category, ImageInfo, ImageRecord, ImageRef, Instance, Rle, Verdict
from autolabel.ops.masks import bounds_xyxy, encode_crop
from autolabel.store.manifest import Entry
from autolabel.store.run import FILE_NAME, categories_to, open_reader, open_store

SIZE_HW = (480, 640)
UNIT = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--masks", type=int, default=2000)
    parser.add_argument("--formats", nargs="*", default=["coco", "yolo"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        masks = [blob(i) for i in range(arguments.masks)]
        label(scratch / "few", 20, arguments.objects, masks)
        encoding = process_seconds(lambda: label(scratch / "run", arguments.images, arguments.objects, masks))
        lines = [f"{arguments.images} images x {arguments.objects} objects, {arguments.masks} different masks\n"]
        lines += [
            "| what | images/s of one core | CPU s | wall s | memory growth, MB | on disk, MB |",
            "|---|---|---|---|---|---|",
        ]
        store_mb = (scratch / "run" / FILE_NAME).stat().st_size / 1e6
        lines.append(
            f"| writing the store | {arguments.images / encoding:.0f} | {encoding:.1f} | | | {store_mb:.0f} |"
        )
        with open_reader(scratch / "few") as few, open_reader(scratch / "run") as run:
            reading = process_seconds(lambda: sum(1 for _ in run.records()))
            lines.append(f"| reading the store | {arguments.images / reading:.0f} | {reading:.1f} | | | |")
            for name in arguments.formats:
                overrides = [f"export=[{name}]"] + (["export.yolo.images=link"] if name == "yolo" else [])
                exporter = build_all("export", compose("export", overrides).export)[name]
                exporter.export(few, scratch / "warm" / name)
                lines.append(row(name, arguments.images, partial(exporter.export, run, scratch / name), scratch))
                sys.stderr.write(lines[-1] + "\n")
    sys.stdout.write("\n".join(lines) + "\n")


def label(directory: Path, images: int, objects: int, masks: Sequence[Instance]) -> None:
    """A run; object k of image i has mask (i * objects + k) % len(masks)."""
    directory.mkdir()
    picture = directory / "tiny.png"
    picture.write_bytes(cv2.imencode(".png", np.zeros((12, 12, 3), np.uint8))[1].tobytes())
    sha256 = hashlib.sha256(picture.read_bytes()).hexdigest()
    info = ImageInfo(SIZE_HW[1], SIZE_HW[0], sha256=sha256)
    refs = {name: ImageRef(name, str(picture)) for name in (f"camera{i % 20}/{i:06}.jpg" for i in range(images))}
    with open_store(directory) as store:
        store.set_meta(categories=categories_to((Category(1, "one"), Category(2, "two"))))
        store.sync((Entry(ref, 0, 0, b"") for ref in refs.values()), root="", unit_size=UNIT)
        for unit in store.pending(refs):
            records = []
            for i, ref in enumerate(unit.refs, start=unit.start):
                found = tuple(masks[(i * objects + k) % len(masks)] for k in range(objects))
                verdicts = (Verdict(),) * objects
                records.append(
                    ImageRecord(ref.image_id, ref.path, "ok", info, candidates=found, verdicts=verdicts)
                )
            store.commit(unit, records)


def row(name: str, images: int, export: Callable[[], object], scratch: Path) -> str:
    gc.collect()
    before = resident_mb()
    start = time.perf_counter()
    with Highest() as highest:
        cpu = process_seconds(export)
    wall = time.perf_counter() - start
    size_mb = (
        sum(p.stat().st_size for p in (scratch / name).rglob("*") if p.is_file() and not p.is_symlink()) / 1e6
    )
    return f"| {name} | {images / cpu:.0f} | {cpu:.1f} | {wall:.1f} | {highest.mb - before:.0f} | {size_mb:.0f} |"


def process_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


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
    """An object of one part with a wavy outline, 60 to 180 px wide; cut off by the picture's edge where it lies so."""
    rng = np.random.default_rng(seed)
    height, width = SIZE_HW
    radius, cy, cx = float(rng.uniform(30, 90)), int(rng.integers(height)), int(rng.integers(width))
    reach = int(1.3 * radius) + 1
    y0, x0 = max(0, cy - reach), max(0, cx - reach)
    y, x = np.mgrid[y0 : min(height, cy + reach), x0 : min(width, cx + reach)]
    distance, angle = np.hypot(x - cx, y - cy), np.arctan2(y - cy, x - cx)
    wavy = 1 + sum(0.08 * np.sin(n * angle + rng.uniform(0, 6)) for n in rng.integers(2, 9, 3))
    inside = distance < radius * wavy
    if seed % 20 == 0:
        inside &= distance > 8
    mask = encode_crop(inside.astype(np.uint8), x0, y0, SIZE_HW)
    return Instance(0, 1 + seed % 2, box_of(mask), 0.9, mask, predicted_iou=0.8)


def box_of(mask: Rle) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = bounds_xyxy(mask) or (0, 0, 1, 1)
    return float(x0), float(y0), float(x1), float(y1)


if __name__ == "__main__":
    main()
