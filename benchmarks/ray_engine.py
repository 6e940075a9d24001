"""engine=ray against the same cores without it: `--workers` actors, and as many processes with a part each.

`python -m benchmarks.ray_engine --pictures 768 --repeats 3`. The shipped nano models on the sample photographs,
each under many names, in units and batches of the default size. Every worker has one core for its models. The
contestants take turns; the speed is the slope of what is committed between the first sixth and the last sixth of
the pictures, so that starting and ending are not in it: both are in the last column. Units are committed as a
whole: take 16 of them or more. Parity: the exports of engine=ray, of the parts merged, and of nothing else, are
compared byte by byte.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from autolabel.app.demo import sample_folder

SETTINGS = ("experiment=offline", "export=[]", "offline=true")
EXPORTS = "export=[coco,yolo]"
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Measured:
    """Pictures a second in the middle of the run, and how long all of it took."""

    steady: float
    whole_s: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=768)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        pictures = copies(scratch / "in", arguments.pictures)
        speeds: dict[str, list[Measured]] = {"parts": [], "ray": []}
        for turn in range(arguments.repeats):
            for contestant, runs in (("parts", by_parts), ("ray", by_ray)):
                measured = runs(pictures, scratch / f"{contestant}-{turn}", arguments.workers)
                speeds[contestant].append(measured)
                sys.stderr.write(f"{contestant}: {measured}\n")
        equal = digest(scratch / "parts-0" / "all") == digest(scratch / "ray-0" / "run")
    sys.stdout.write(table(speeds, arguments.pictures, arguments.workers, equal))
    return 0 if equal else 1


def copies(folder: Path, count: int) -> Path:
    """The sample photographs under `count` names."""
    samples = sorted(p for p in sample_folder().iterdir() if p.suffix == ".jpg")
    folder.mkdir()
    for i in range(count):
        shutil.copyfile(samples[i % len(samples)], folder / f"{i:06}.jpg")
    return folder


def by_parts(pictures: Path, scratch: Path, workers: int) -> Measured:
    runs = [scratch / f"part {k}" for k in range(1, workers + 1)]
    commands = [
        [*label(pictures, run), "engine=threaded", "engine.workers=1", f"part={k}/{workers}"]
        for k, run in enumerate(runs, start=1)
    ]
    measured = watched(commands, runs, len(list(pictures.iterdir())))
    program("merge", *map(str, runs), f"run={scratch / 'all'}")
    program("export", str(scratch / "all"), EXPORTS)
    return measured


def by_ray(pictures: Path, scratch: Path, workers: int) -> Measured:
    own = ("engine=ray", f"engine.cpus={workers}", f"engine.max_actors={workers}", "engine.cpus_per_actor=1")
    run = scratch / "run"
    measured = watched([[*label(pictures, run), *own]], [run], len(list(pictures.iterdir())))
    program("export", str(run), EXPORTS)
    return measured


def label(pictures: Path, run: Path) -> list[str]:
    return [*PROGRAM, "label", str(pictures), *SETTINGS, f"run={run}"]


PROGRAM = (sys.executable, "-m", "autolabel.app.main")


def program(*arguments: str) -> None:
    subprocess.run([*PROGRAM, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def watched(commands: Sequence[Sequence[str]], runs: Sequence[Path], total: int) -> Measured:
    """The commands at once; how fast pictures are committed in the middle."""
    started = time.perf_counter()
    environment = {**os.environ, **ONE_CORE}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    seen = [(time.perf_counter(), 0)]
    while any(process.poll() is None for process in processes):
        time.sleep(0.05)
        done = sum(map(committed, runs))
        if done != seen[-1][1]:
            seen.append((time.perf_counter(), done))
    whole = time.perf_counter() - started
    assert [process.returncode for process in processes] == [0] * len(processes)
    return Measured(steady(seen, total), whole)


def steady(seen: Sequence[tuple[float, int]], total: int) -> float:
    """Pictures a second in the middle: the slope of a straight line through the middles of the steps. Between two
    commits alone it would depend on whether the other worker is about to commit a unit, too."""
    middles = [(after[0], (before[1] + after[1]) / 2) for before, after in pairwise(seen)]
    times, counts = zip(*[one for one in middles if total / 6 <= one[1] <= total * 5 / 6], strict=True)
    return float(statistics.linear_regression(times, counts).slope)


def committed(run: Path) -> int:
    """Pictures that have a record."""
    path = run / "run.sqlite"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM record").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0


def digest(run: Path) -> str:
    """Of all exported files, their names and bytes."""
    found = hashlib.sha256()
    for path in sorted((run / "export").rglob("*")):
        if path.is_file():
            found.update(path.relative_to(run).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def table(speeds: dict[str, list[Measured]], pictures: int, workers: int, equal: bool) -> str:
    names = {"parts": f"{workers} processes, a part each", "ray": f"engine=ray, {workers} actors"}
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "autolabel-sam2"))
    lines = [
        f"{pictures} pictures, {len(speeds['ray'])} turns; {platform.machine()}, {os.cpu_count()} cores; {versions}\n",
        "| contestant | pictures/s, steady: median (lowest to highest) | whole run, s: median |",
        "|---|---|---|",
    ]
    for contestant, turns in speeds.items():
        steady = [measured.steady for measured in turns]
        whole = statistics.median(measured.whole_s for measured in turns)
        spread = f"{statistics.median(steady):.2f} ({min(steady):.2f} to {max(steady):.2f})"
        lines.append(f"| {names[contestant]} | {spread} | {whole:.1f} |")
    ratios = [ray.steady / parts.steady for ray, parts in zip(speeds["ray"], speeds["parts"], strict=True)]
    lines.append(f"\nRay against parts, turn by turn: median {100 * statistics.median(ratios):.1f} %. ")
    lines.append(f"Exports byte for byte equal: {'yes' if equal else '**no**'}.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
