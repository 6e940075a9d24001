"""Speed against the reference, parity beside it: `make bench`.

Contestants take turns (A B A B ...), CPU seconds of the process are compared pair by pair, and every ratio stands
beside how near the masks are to the reference's, and whether that is as near as its arithmetic has to bring them: the
exit code is 1 where one of ours is not, or where that cannot be told. Pictures are photographs (`pictures.py`). What a
first pass and memory cost is measured in fresh processes. Results are written to benchmarks/results as a dated page.

It sees the segmenter alone: `benchmarks.pipeline` has the whole command, with decoding ahead and a detector.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from platform import machine
from tempfile import TemporaryDirectory

import torch

from benchmarks import fresh, parity
from benchmarks.contestants import REFERENCE, Contestant, Networks, Setup, absent, contestants
from benchmarks.page import RESULTS, commit, processor, publish, table, told, versions
from benchmarks.pictures import SIZES_HW, Photograph, Picture, photographs_in, samples, written
from benchmarks.tail import tail_table

LARGE_PX = 4_000_000
PACKAGES = ("torch", "sam2", "ultralytics", "numpy", "numba", "pycocotools")


@dataclass(frozen=True, slots=True)
class Effort:
    """How many pictures, and how often each contestant sees them after its first pass."""

    images: int
    repeats: int


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One size and number of boxes: its rows, the names of judged contestants that are not known to be within
    their limits, and of those left out with what they said."""

    rows: list[dict[str, str]]
    beyond: list[str]
    failed: dict[str, str]


@dataclass(slots=True, eq=False)
class Entry:
    """A contestant in a cell: its call with everything given, its first answers and choices, then what it took."""

    contestant: Contestant
    call: Callable[[], parity.Answers | None]
    answers: parity.Answers | None
    choices: list[int]
    runs: list[Run] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Run:
    """One call: CPU seconds of the process, seconds on the clock."""

    cpu_s: float
    wall_s: float


def main() -> int:
    options = parsed()
    fresh.prepare(options.threads)
    photographs = samples() if options.pictures is None else photographs_in(options.pictures)
    lines, beyond = [*header(options), *tail_table(options.repeats or 5)], []
    for config in options.models:
        rows, names = model_table(
            Setup(config, options.device, options.random, options.bf16, options.compiled), photographs, options
        )
        lines += rows
        beyond += names
    return publish(options.out, f"{options.device}_{machine()}", "\n".join(lines) + "\n", "; ".join(beyond))


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, help="default: 5, of large pictures 3")
    parser.add_argument("--images", type=int, help="default: 4, of large pictures 2")
    parser.add_argument("--models", nargs="*", default=["nano"], help="segment configs, e.g. nano sam2_tiny")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="on cuda the ratio is of seconds on the clock"
    )
    parser.add_argument(
        "--threads", type=int, help="of torch; 0: as many as it likes. Default: 1, on cuda 0. More than one spin while "
        "they wait, which counts as CPU seconds",
    )  # fmt: skip
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16 too, where nobody would choose it")
    parser.add_argument("--compiled", action="store_true", help="compiled networks on a CPU too, minutes each")
    parser.add_argument("--skip", nargs="*", default=[], help="contestants to leave out; the reference stays")
    parser.add_argument("--random", action="store_true", help="random weights: for speed where none are at hand")
    parser.add_argument("--pictures", type=Path, help="a folder of photographs instead of the samples")
    parser.add_argument("--boxes", type=int, nargs="*", default=[1, 10, 50])
    parser.add_argument("--sizes", nargs="*", choices=SIZES_HW, default=list(SIZES_HW))
    parser.add_argument(
        "--fresh",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="first pass and memory in new processes",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.threads is None:
        options.threads = 0 if options.device == "cuda" else 1
    return options


def effort(size_hw: tuple[int, int], images: int | None, repeats: int | None) -> Effort:
    """What is given holds; else less of pictures so large that the reference takes ten seconds for one."""
    large = size_hw[0] * size_hw[1] > LARGE_PX
    return Effort(images or (2 if large else 4), repeats or (3 if large else 5))


def header(options: argparse.Namespace) -> list[str]:
    on_cuda = options.device == "cuda"
    gpu = f"{torch.cuda.get_device_name()}, " if on_cuda else ""
    efforts = {name: effort(SIZES_HW[name], options.images, options.repeats) for name in options.sizes}
    seen = ", ".join(f"{one.images} of {name} {one.repeats} times" for name, one in efforts.items())
    which = "the sample photographs" if options.pictures is None else "photographs of a folder"
    return [
        f"# {'GPU' if on_cuda else 'CPU'}, {datetime.now(UTC):%Y-%m-%d}\n",
        f"{gpu}{processor()}, torch with {torch.get_num_threads()} thread(s); {commit()}; {versions(PACKAGES)}. "
        f"`{told('benchmarks.run', sys.argv[1:])}` (more threads than one spin while they wait, and count as CPU seconds)\n",
        f"Crops of {which} with boxes of what is in them: {seen}, in turns, after a first pass; less of large ones, so that "
        "all of it takes no more than half an hour. Medians; the ratio is of "
        f"{'seconds on the clock' if on_cuda else 'CPU seconds of the process'}, pair by pair (min to max). Pictures/s are on "
        "the clock: warm, and of the first pass of a fresh process with models loaded, where all warming up is in it. Peaks "
        "of memory are those of that process, all in all (in brackets: before the first picture). "
        f"{parity.told()}\n",
    ]  # fmt: skip


def model_table(
    setup: Setup, photographs: Sequence[Photograph], options: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """Pictures and boxes in, run lengths on disk: every contestant with the same weights, in turns. The lines of
    the page, and which judged contestants are not known to be within their limits, and where."""
    wanted = [one for one in contestants(setup) if one.name == REFERENCE or one.name not in options.skip]
    rows: list[dict[str, str]] = []
    beyond: list[str] = []
    failed: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        calls = ready(wanted, setup, Path(folder), failed)
        for name in options.sizes:
            tried = effort(SIZES_HW[name], options.images, options.repeats)
            for count in options.boxes:
                place = Path(folder) / f"{name} {count}"
                pictures = written(place, SIZES_HW[name], count, tried.images, photographs)
                cell = compared({"picture": name, "boxes": f"{count}"}, calls, pictures, tried, setup, options)
                rows += cell.rows
                beyond += [f"{setup.config}, {name}, {count} boxes: {who}" for who in cell.beyond]
                failed |= cell.failed
    missing = [*absent(setup), *(f"{who} ({why})" for who, why in failed.items())]
    random = ", random weights" if setup.random else ""
    lines = [f"## {setup.config}{random}: from the file to COCO RLE on disk\n", *table(rows)]
    return [*lines, f"\nNot here: {'; '.join(missing)}.\n"], beyond


def ready(
    wanted: Sequence[Contestant], setup: Setup, folder: Path, failed: dict[str, str]
) -> list[tuple[Contestant, Callable[..., parity.Answers | None]]]:
    """Each contestant with its call; what keeps a stranger from it goes into `failed`."""
    networks, found = Networks(setup), []
    for contestant in wanted:
        try:
            found.append((contestant, contestant.make(networks, folder)))
        except Exception as error:  # noqa: BLE001 - somebody else's program; the page says what it said
            failed |= said(contestant, error)
    return found


def said(contestant: Contestant, error: Exception) -> dict[str, str]:
    """Why a stranger is left out, in one line; what one of ours raises, or the reference, is raised."""
    if contestant.ours or contestant.name == REFERENCE:
        raise error
    return {contestant.name: f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def compared(
    start: dict[str, str],
    calls: Sequence[tuple[Contestant, Callable[..., parity.Answers | None]]],
    pictures: Sequence[Picture],
    tried: Effort,
    setup: Setup,
    options: argparse.Namespace,
) -> Cell:
    """A row a contestant. The first is the reference of times and masks."""
    entries: list[Entry] = []
    failed: dict[str, str] = {}
    paths, boxes = [one.path for one in pictures], [one.boxes_xyxy for one in pictures]
    for contestant, label in calls:
        call = partial(label, paths, boxes, paths[0].parent / f"of {contestant.name}")
        try:
            with parity.choices() as chosen:
                entries.append(Entry(contestant, call, call(), chosen))
        except Exception as error:  # noqa: BLE001 - somebody else's program; the page says what it said
            failed |= {f"{who}, {', '.join(start.values())}": why for who, why in said(contestant, error).items()}
    for _ in range(tried.repeats):
        for entry in entries:
            entry.runs.append(measured(entry.call))
    beyond, rows = [], []
    for entry in entries:
        found = near(entries[0], entry)
        limits = parity.LIMITS[entry.contestant.arithmetic]
        if entry.contestant.judged and (found is None or found.within(limits) is not True):
            beyond.append(entry.contestant.name)
        alone = fresh.measure(setup, entry.contestant.name, pictures, options.threads) if options.fresh else None
        rows.append(
            {
                **start,
                **speed(entries[0], entry, len(pictures), on_cuda=setup.device == "cuda"),
                **of_process(alone, len(pictures)),
                **parity.cells(found, limits, "polygons only, other resize"),
            }
        )
        if entry.contestant.ours and not entry.contestant.judged:
            rows[-1]["within its limits"] += " (only informs)"
    return Cell(rows, beyond, failed)


def near(reference: Entry, entry: Entry) -> parity.Parity | None:
    if reference.answers is None or entry.answers is None:
        return None
    return parity.parity(reference.answers, entry.answers, reference.choices, entry.choices)


def speed(reference: Entry, entry: Entry, images: int, *, on_cuda: bool) -> dict[str, str]:
    """CPU seconds, the ratio to the reference's, pictures a second."""
    seconds = attrgetter("wall_s" if on_cuda else "cpu_s")
    ratios = sorted(seconds(a) / seconds(b) for a, b in zip(reference.runs, entry.runs, strict=True))
    return {
        "contestant": entry.contestant.name,
        "CPU s a picture": f"{statistics.median(run.cpu_s for run in entry.runs) / images:.3f}",
        "reference / it": f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        "pictures/s": f"{images / statistics.median(run.wall_s for run in entry.runs):.2f}",
    }


def of_process(alone: fresh.Fresh | None, images: int) -> dict[str, str]:
    """What was measured in a fresh process, if anything was; a GPU's column only where there is one."""
    if alone is None:
        return {}
    on_gpu = {} if alone.gpu_mb is None else {"peak MB of the GPU": f"{alone.gpu_mb:.0f}"}
    return {
        "first pass, s": f"{alone.first_s:.1f}",
        "pictures/s, warm-up in it": f"{images / alone.first_s:.2f}",
        "peak MB": f"{alone.peak_mb:.0f} ({alone.loaded_mb:.0f})",
        **on_gpu,
    }


def measured(call: Callable[[], object]) -> Run:
    wall, cpu = time.monotonic(), time.process_time()
    call()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    return Run(cpu, wall)


if __name__ == "__main__":
    sys.exit(main())
