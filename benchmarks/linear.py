"""Does the cost of a picture grow with their number? `python -m benchmarks.linear --images 100 1000 10000`.

Each number of pictures is labelled and exported by a command of its own, `autolabel label` with the nano pair, on
crops of the sample photographs (320 x 240, seeded, all different), so that there is always something to find. CPU
seconds are those of the command and of the processes that decode for it; its start is in them, so the fixed part
shows in the smallest number, and the last column is the cost of each picture beyond those of the row above.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from autolabel.app.demo import SAMPLES, sample_folder
from benchmarks.page import RESULTS, commit, processor, publish

SIZE_WH = (320, 240)
COMMAND = "import sys; from autolabel.app.main import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one command: pictures, objects kept, CPU and clock seconds, and the most memory of any of its processes."""

    images: int
    objects: int
    cpu_s: float
    wall_s: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="*", default=[100, 1000, 10000])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("settings", nargs="*", help="further settings, e.g. engine=inline")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs = [labelled(Path(folder) / str(n), n, arguments.settings) for n in sorted(arguments.images)]
    publish(arguments.out, f"linear_cpu_{platform.machine()}", "\n".join(table(costs, arguments.settings)) + "\n")


def labelled(folder: Path, count: int, settings: list[str]) -> Cost:
    """What the command takes; the pictures are made before."""
    write_crops(folder / "pictures", count)
    command = [sys.executable, "-c", COMMAND, "label", str(folder / "pictures"), "experiment=offline"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [*command, f"run={folder / 'run'}", *settings],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert not summary["failures"], summary["failures"]
    # Rising numbers of pictures, so the largest child so far is this one.
    return Cost(count, sum(summary["instances"].values()), cpu_s, wall_s, after.ru_maxrss / 1024)


def write_crops(folder: Path, count: int) -> None:
    """Half to all of a photograph each, at a place of its own."""
    folder.mkdir(parents=True)
    photographs = [Image.open(sample_folder() / name).convert("RGB") for name in SAMPLES]
    random = np.random.default_rng(0)
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        part = random.uniform(0.5, 1)
        w, h = (int(side * part) for side in photograph.size)
        x, y = int(random.uniform(0, photograph.width - w)), int(random.uniform(0, photograph.height - h))
        photograph.resize(SIZE_WH, box=(x, y, x + w, y + h)).save(folder / f"{i:06d}.jpg", quality=90)


def table(costs: list[Cost], settings: list[str]) -> list[str]:
    rows = [
        f"# Cost by the number of pictures, {datetime.now(UTC):%Y-%m-%d}\n",
        f"{processor()}, {commit()}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; nano pair, {SIZE_WH[0]} x "
        f"{SIZE_WH[1]}, label and export{' with ' if settings else ''}{' '.join(settings)}.\n",
        "| pictures | objects | CPU s | CPU s a picture | clock, pictures/s | peak of one process, MB | CPU s a further picture |",
        "|" + "---|" * 7,
    ]
    for before, cost in zip([None, *costs], costs, strict=False):
        more = "" if before is None else f"{(cost.cpu_s - before.cpu_s) / (cost.images - before.images):.3f}"
        rows.append(
            f"| {cost.images} | {cost.objects} | {cost.cpu_s:.1f} | {cost.cpu_s / cost.images:.3f} "
            f"| {cost.images / cost.wall_s:.2f} | {cost.peak_mb:.0f} | {more} |"
        )
    return rows


if __name__ == "__main__":
    main()
