"""How long a report takes to build and to open: a synthetic run, with pictures on disk.

`python -m benchmarks.report --images 10000`. Pictures are smooth noise with grain, JPEG, one in fifty a copy of
the one before it at another quality; ten objects each, a tenth of them dropped for one of three reasons, one
picture in a hundred failed. The run is stored as a labelled one is. Building is measured in wall and in CPU
seconds of the process (the first build of two is left out: it loads the code); opening is measured in headless
Chromium, from the call to the second frame after loading. Wall seconds are those of the machine as it was: its
load is written beside them.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from autolabel.app.build import build
from autolabel.app.compose import compose
from autolabel.app.report import PAGE, write_report
from autolabel.core.types import Category, ImageInfo, ImageRecord, ImageRef, Instance, Rle, Verdict
from autolabel.ops.images import load_frame
from autolabel.ops.masks import bounds_xyxy, encode
from autolabel.store.manifest import entries
from autolabel.store.run import categories_to, open_store
from tests.browser.driver import MISSING, Browser, browser, seconds_to_open

REASONS = ("min_predicted_iou: 0.41 < 0.5", "min_area: 9 < 16 px", "box_fit: 0.210 < 0.3")
CLASSES = tuple(Category(i + 1, f"class {i + 1}") for i in range(20))

GRAIN = np.random.default_rng(0).normal(0, 7, 1 << 22).astype(np.int8)
"""Makes pictures as heavy as photographs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size_hw = (arguments.height, arguments.width)
        make_run(folder / "small", folder / "pictures", 50, arguments.objects, size_hw)
        make_run(folder / "run", folder / "pictures", arguments.images, arguments.objects, size_hw)
        report = build(compose("report", []).report)
        write_report(folder / "small", report)
        load, wall, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
        built = write_report(folder / "run", report)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        page = folder / "run" / PAGE
        sys.stdout.write(
            f"{arguments.images} images of {arguments.width}x{arguments.height} px, {arguments.objects} objects each\n\n"
            "| what | figure |\n|---|---|\n"
            f"| build, wall s (load {load:.0f} before) | {wall:.1f} |\n"
            f"| build, CPU s | {cpu:.1f} |\n"
            f"| highest resident memory, MB | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} |\n"
            f"| pictures on the page | {built.pictures} |\n"
            f"| size of the page, MB | {page.stat().st_size / 1e6:.1f} |\n"
        )
        sys.stdout.writelines(opening(page))


def opening(page: Path) -> Iterator[str]:
    """Lines of the table. The main thread's CPU seconds do not grow with the load of the machine."""
    if MISSING is not None:
        yield f"| opening | {MISSING} |\n"
        return
    with browser() as opened:
        opened.look(1440)
        opened.cdp("Performance.enable", {"timeDomain": "threadTicks"})
        load = os.getloadavg()[0]
        wall, cpu = zip(*(opened_once(opened, page) for _ in range(5)), strict=True)
    yield f"| opening, wall s, first and median of five (load {load:.0f} before) | {wall[0]:.2f}, {statistics.median(wall):.2f} |\n"
    yield f"| opening, CPU s of the page's main thread, first and median of five | {cpu[0]:.2f}, {statistics.median(cpu):.2f} |\n"


def opened_once(opened: Browser, page: Path) -> tuple[float, float]:
    wall = seconds_to_open(opened, page)
    metrics = {m["name"]: m["value"] for m in opened.cdp("Performance.getMetrics", {})["metrics"]}
    return wall, metrics["TaskDuration"]


def make_run(directory: Path, pictures: Path, images: int, objects: int, size_hw: tuple[int, int]) -> None:
    directory.mkdir(parents=True)
    pictures.mkdir(exist_ok=True)
    masks = [blob(size_hw, seed) for seed in range(500)]
    refs = {f"{i:06}.jpg": ImageRef(f"{i:06}.jpg", str(pictures / f"{i:06}.jpg")) for i in range(images)}
    for i, ref in enumerate(refs.values()):
        Path(ref.path).write_bytes(jpeg(i, size_hw))
    with open_store(directory) as store:
        store.claim({})
        store.sync(entries(refs.values()), root=str(pictures), unit_size=32)
        store.set_meta(categories=categories_to(CLASSES))
        for unit in store.pending(refs):
            store.commit(unit, [labelled(unit.start + k, ref, masks, objects) for k, ref in enumerate(unit.refs)])


def labelled(number: int, ref: ImageRef, masks: list[Rle], objects: int) -> ImageRecord:
    random = np.random.default_rng(number)
    if number % 100 == 99:
        return ImageRecord(ref.image_id, ref.path, "failed", code="corrupt", detail="damaged or cut short")
    info: ImageInfo = load_frame(ref, max_pixels=10**8, min_side=1).info
    found = tuple(thing(k, masks[int(random.integers(len(masks)))], random.random(4)) for k in range(objects))
    kept = tuple(Verdict(REASONS[k % 3] if random.random() < 0.1 else None) for k in range(objects))
    return ImageRecord(ref.image_id, ref.path, "ok", info, candidates=found, verdicts=kept)


def thing(index: int, mask: Rle, chances: np.ndarray) -> Instance:
    x0, y0, x1, y1 = bounds_xyxy(mask) or (0, 0, 1, 1)
    wide = 4 * float(chances[3])
    box = (x0 - wide, y0 - wide, x1 + wide, y1 + wide)
    scores = (0.3 + 0.7 * chances[:3]).tolist()
    one = Instance(index, 1 + int(20 * chances[2] ** 2), box, scores[0], mask, scores[1], 0.99, scores[2])
    return replace(one, agreement=None)


def blob(size_hw: tuple[int, int], seed: int) -> Rle:
    """One part with a wavy outline."""
    random = np.random.default_rng(seed)
    side = min(size_hw)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radii = random.uniform(0.04, 0.2) * side * (1 + 0.2 * np.sin(angles * random.integers(2, 7)))
    centre = random.uniform(0.2, 0.8, 2) * size_hw[::-1]
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1) + centre
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return encode(mask)


def jpeg(number: int, size_hw: tuple[int, int]) -> bytes:
    again = number % 50 == 49
    noise = np.random.default_rng(number - again).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    smooth = cv2.resize(noise, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    grain = np.roll(GRAIN, number - again)[: smooth.size].reshape(smooth.shape)
    image = cv2.add(smooth, grain, dtype=cv2.CV_8U)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60 if again else 90])[1].tobytes()


if __name__ == "__main__":
    main()
