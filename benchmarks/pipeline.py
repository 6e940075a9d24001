"""The whole `autolabel label` beside what people would write, from a folder of pictures to labels: pictures a second.

Every program is a process of its own, they take turns, and all have a detector whose boxes are then replaced, so that
each picture has exactly as many as were asked for. Decoding, batches, run lengths, commits and exports are in it as a
user has them; parity of the masks with the predictor's stands beside the speed, and the exit code is 1 where ours are
not as near as they have to be. Results are written to benchmarks/results as a dated page.

    python -m benchmarks.pipeline                                         # a CPU, the shipped models: minutes
    python -m benchmarks.pipeline --device cuda --detect yolo11n --segment sam2_tiny --random segment.precision=bfloat16

`precision=auto` tries bfloat16 on pictures of the run first (decision 0014), which random weights say nothing about.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from platform import machine
from tempfile import TemporaryDirectory

import torch

from autolabel.app.compose import compose
from autolabel.ops.device import runs_bf16
from autolabel.store.run import open_reader
from autolabel.weights import resolve
from autolabel.weights.quiet import ultralytics_at_bay
from benchmarks import programs
from benchmarks.contestants import ULTRALYTICS, Networks, Setup, saved, ultralytics_file
from benchmarks.fresh import environment
from benchmarks.page import RESULTS, commit, processor, publish, table, told, versions
from benchmarks.parity import LIMITS, Answer, Answers, Parity, cells, parity
from benchmarks.parity import told as told_parity
from benchmarks.pictures import SIZES_HW, Picture, photographs_in, samples, written
from benchmarks.programs import ANNOTATE, HALF_ANNOTATE, HALF_LOOP, LOOP, OURS, Mark, Measured, Task

PACKAGES = ("torch", "sam2", "ultralytics", "numpy", "numba")
WARM = 32
"""Pictures that may pass before a program is taken to be warm, or a quarter of all where they are few."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Pictures of ours and of the other programs, whose speed does not depend on how many there are, and how often."""

    images: int
    others: int
    repeats: int


AMOUNTS = {"cpu": Amount(64, 12, 1), "cuda": Amount(4096, 128, 2)}
"""For a minute or two; a GPU needs more pictures to be seen at its speed."""


def main() -> int:
    options = parsed()
    with TemporaryDirectory() as folder:
        text, beyond = page(options, Path(folder))
    return publish(options.out, f"pipeline_{options.device}_{machine()}", text, beyond)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--detect", default="nano", help="a choice of detect=, e.g. yolo11n")
    parser.add_argument("--segment", default="nano", help="a choice of segment=, e.g. sam2_tiny")
    parser.add_argument("--random", action="store_true", help="random weights, but of detect=nano")
    parser.add_argument("--size", default="1080p", choices=SIZES_HW)
    parser.add_argument("--boxes", type=int, default=10, help="of each picture")
    parser.add_argument("--images", type=int, help="of ours; default 64, on cuda 4096")
    parser.add_argument("--others", type=int, help="of the other programs; default 12, on cuda 128")
    parser.add_argument("--repeats", type=int, help="default 1, on cuda 2")
    parser.add_argument(
        "--threads", type=int, default=0, help="of torch; 0: as many as every program takes by itself"
    )
    parser.add_argument(
        "--skip", nargs="*", default=[], help="programs to leave out; ours and the first loop stay"
    )
    parser.add_argument("--pictures", type=Path, help="a folder of photographs instead of the samples")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("settings", nargs="*", help="further ones of ours, e.g. segment.compile_mode=default")
    options = parser.parse_args(arguments)
    usual = AMOUNTS[options.device]
    options.images = options.images or usual.images
    options.others = min(options.others or usual.others, options.images)
    options.repeats = options.repeats or usual.repeats
    return options


def page(options: argparse.Namespace, folder: Path) -> tuple[str, str]:
    """Its text, and why the masks of ours are not known to be within their limits, "" where they are."""
    photographs = samples() if options.pictures is None else photographs_in(options.pictures)
    pictures = written(folder / "all", SIZES_HW[options.size], options.boxes, options.images, photographs)
    few = pictures[: options.others]
    link(few, folder / "few")
    boxes = folder / "boxes.json"
    boxes.write_text(json.dumps({one.path.name: one.boxes_xyxy.tolist() for one in pictures}))
    tasks, absent = tasks_of(options, folder, boxes)
    runs = in_turns(tasks, options.repeats, folder, absent)
    found = parities([name for name in (LOOP, HALF_LOOP, OURS) if name in runs], tasks, few, folder)
    rows = [row(name, runs, found.get(name), options) for name in runs]
    (ours, *_) = runs[OURS]
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ours.progress.stages.items())
    lines = [*header(options), *table(rows), f"\nStages of `{OURS}`, which overlap: {stages}.\n"]
    lines += [f"Not here: {'; '.join(f'{name} ({why})' for name, why in absent.items())}."] if absent else []
    return "\n".join(lines) + "\n", miss(found[OURS], ours.progress.arithmetic, options.random)


def in_turns(
    tasks: Mapping[str, Task], repeats: int, folder: Path, absent: dict[str, str]
) -> dict[str, list[Measured]]:
    """Every program, and again. A stranger's that fails is `absent`, with what it said; ours and the reference
    must run."""
    runs: dict[str, list[Measured]] = {name: [] for name in tasks}
    for number in range(repeats):
        for name in [name for name in tasks if name not in absent]:
            out = folder / f"{name} {number}"
            try:
                runs[name].append(run(replace(tasks[name], out=str(out))))
            except subprocess.CalledProcessError as error:
                if name in (OURS, LOOP):
                    raise
                absent[name] = error.stderr.strip().rpartition("\n")[2][:200]
            if number:
                shutil.rmtree(out)  # the labels of the first time are enough
    return {name: some for name, some in runs.items() if name not in absent}


def parities(
    names: Sequence[str], tasks: Mapping[str, Task], few: Sequence[Picture], folder: Path
) -> dict[str, Parity | None]:
    """Of the first time's masks with the loop's. Choices are watched in one more run, which is not timed."""
    answers, choices = {}, {}
    for name in names:
        out = str(folder / f"{name} watched")
        choices[name] = run(replace(tasks[name], pictures=str(folder / "few"), out=out, watched=True)).choices
        answers[name] = answers_of(name, folder / f"{name} 0", few)
    return {name: parity(answers[LOOP], answers[name], choices[LOOP], choices[name]) for name in names}


def link(pictures: Sequence[Picture], folder: Path) -> None:
    """The same files once more, for programs that take a folder."""
    folder.mkdir()
    for picture in pictures:
        os.link(picture.path, folder / picture.path.name)


def tasks_of(options: argparse.Namespace, folder: Path, boxes: Path) -> tuple[dict[str, Task], dict[str, str]]:
    """By program, in the order of their turns; and those that are not here, with the reason."""
    setup = Setup(options.segment, options.device, options.random)
    ours = Task(
        OURS, str(folder / "all"), str(boxes), "", options.device, detector(options), setup.segment,
        settings=options.settings, threads=options.threads,
    )  # fmt: skip
    tasks = {OURS: ours, LOOP: replace(ours, program=LOOP, pictures=str(folder / "few"))}
    absent = {}
    if runs_bf16(options.device):
        tasks[HALF_LOOP] = replace(tasks[LOOP], program=HALF_LOOP)
    else:
        absent[HALF_LOOP] = "bfloat16 is slow here"
    if options.segment not in ULTRALYTICS or options.detect == "nano":
        absent[ANNOTATE] = "ultralytics has no networks such as the nano models"
    else:
        segmenter = ultralytics_file(Networks(replace(setup, device="cpu")), folder)
        tasks[ANNOTATE] = replace(
            tasks[LOOP],
            program=ANNOTATE,
            detector_file=detector_file(options, folder),
            segmenter_file=str(segmenter),
        )
        if options.device == "cuda":
            tasks[HALF_ANNOTATE] = replace(tasks[ANNOTATE], program=HALF_ANNOTATE)
        else:
            absent[HALF_ANNOTATE] = "on a GPU only"
    for name in options.skip:
        if name not in (OURS, LOOP) and tasks.pop(name, None) is not None:
            absent[name] = "left out"
    return tasks, absent


def detector(options: argparse.Namespace) -> list[str]:
    """As settings; the choice comes first."""
    random = ["detect.weights=random:0", f"detect.architecture={options.detect}.yaml"]
    some = random if options.random and options.detect != "nano" else []
    return [f"detect={options.detect}", *some, f"detect.device={options.device}"]


def detector_file(options: argparse.Namespace, folder: Path) -> str:
    """The detector in a file that ultralytics reads."""
    if not options.random:
        return str(resolve(compose("label", [*detector(options), "source.path=x"]).detect.weights).path)
    path = folder / f"{options.detect}.pt"
    with ultralytics_at_bay():
        from ultralytics import YOLO

        torch.manual_seed(0)
        YOLO(f"{options.detect}.yaml").save(str(path))
    return str(path)


def run(task: Task) -> Measured:
    """In a process of its own. Raises CalledProcessError where that ends in an error."""
    out = Path(task.out)
    out.mkdir(parents=True)
    try:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.programs"],
            input=json.dumps({"task": asdict(task), "began": time.monotonic()}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
            cwd=out,  # ultralytics leaves folders where it is started
            env=environment(task.threads),
        )
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stderr)
        raise
    return programs.read_measured(out)


def answers_of(name: str, out: Path, pictures: Sequence[Picture]) -> Answers:
    """As the program left them on disk."""
    if name != OURS:
        return [saved(out / "masks", one.path.name) for one in pictures]
    wanted, found = {one.path.name for one in pictures}, {}
    with open_reader(out / "run") as reader:
        for record in reader.records():
            if record.image_id in wanted:
                found[record.image_id] = {
                    one.index: Answer(one.mask, one.predicted_iou)
                    for one in record.candidates
                    if one.mask is not None and one.predicted_iou is not None
                }
    return [[found[one.path.name].get(index) for index in range(len(one.boxes_xyxy))] for one in pictures]


def warm(marks: Sequence[Mark]) -> tuple[Mark, Mark] | None:
    """The first mark at which a program is warm, and the last; None where they are one."""
    later = [mark for mark in marks if mark.done >= warm_after(marks[-1].done)]
    return (later[0], later[-1]) if later[-1].when > later[0].when else None


def rates(some: Sequence[Measured]) -> list[float]:
    """Pictures a second of each run when it is warm; of those that have enough."""
    pairs = [warm(one.progress.marks) for one in some]
    return [(last.done - first.done) / (last.when - first.when) for first, last in filter(None, pairs)]


def costs(some: Sequence[Measured]) -> list[float]:
    """CPU seconds a picture, the same way."""
    pairs = [warm(one.progress.marks) for one in some]
    return [(last.cpu_s - first.cpu_s) / (last.done - first.done) for first, last in filter(None, pairs)]


def warm_after(images: int) -> int:
    return max(1, min(WARM, images // 4))


def row(
    name: str, runs: Mapping[str, Sequence[Measured]], found: Parity | None, options: argparse.Namespace
) -> dict[str, str]:
    some = runs[name]
    images = some[0].progress.marks[-1].done
    whole = [images / (one.ended - one.began) for one in some]
    ratios = [a / b for a, b in zip(rates(some), rates(runs[LOOP]), strict=False)]
    first = statistics.median(one.progress.marks[0].when - one.began for one in some)
    others = max(one.others_mb for one in some)
    gpu = {"peak MB of the GPU": f"{max(one.gpu_mb or 0 for one in some):.0f}"} if options.device == "cuda" else {}
    limits = LIMITS.get(some[0].progress.arithmetic, LIMITS["bfloat16"])
    return {
        "program": name,
        "pictures": str(images),
        "pictures/s, start and end in it": spread(whole),
        "pictures/s, warm": spread(rates(some)),
        "warm, of the loop's": spread(ratios),
        "first labels after, s": f"{first:.1f}",
        "CPU s a picture, start and end in it": spread([one.cpu_s / images for one in some], 3),
        "CPU s a picture, warm": spread(costs(some), 3),
        "peak MB": f"{max(one.peak_mb for one in some):.0f}" + (f" + {others:.0f} decoding" if others else ""),
        **gpu,
        **cells(found, limits, "polygons only, other resize"),
    }


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and where there are several the least and the most."""
    if not values:
        return "too few pictures"
    middle, least, most = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


def miss(found: Parity | None, arithmetic: str, random: bool) -> str:
    """Why ours is not known to be within its limits; "" where it is, and where nobody can expect it: bfloat16
    moves masks of random weights, whose logits are near 0, without saying anything about trained ones."""
    if arithmetic == "bfloat16" and random:
        return ""
    if found is None:
        return "there is nothing to compare"
    within = found.within(LIMITS[arithmetic])
    return (
        "" if within else f"{OURS} in {arithmetic} ({'flips are not known' if within is None else 'see the page'})"
    )


def header(options: argparse.Namespace) -> list[str]:
    on_cuda = options.device == "cuda"
    gpu = f"{torch.cuda.get_device_name()}, " if on_cuda else ""
    weights = "random weights" if options.random else "their own weights"
    threads = (
        f"torch with {options.threads} thread(s)" if options.threads else "threads as each program takes them"
    )
    cores = len(os.sched_getaffinity(0))
    return [
        f"# The whole command, {'GPU' if on_cuda else 'CPU'}, {datetime.now(UTC):%Y-%m-%d}\n",
        f"{gpu}{processor()}, {cores} cores, {threads}; {commit()}; {versions(PACKAGES)}. "
        f"`{told('benchmarks.pipeline', sys.argv[1:])}`\n",
        f"`detect={options.detect} segment={options.segment}` with {weights}, pictures of {options.size}, {options.boxes} "
        f"boxes each: {options.images} for ours, {options.others} for the others; {options.repeats} run(s) of each in turns, a "
        "process each. On the clock, median (least to most). Start and end: from the start of the process to its last "
        f"file, loading and exports in it, so by the number of pictures. Warm: after the first {warm_after(options.images)} pictures of ours and "
        f"{warm_after(options.others)} of the others, to the last that is on disk. CPU seconds are all of the process's and "
        "its decoders'. The detector's boxes are replaced, so with random weights it has less to sort out. "
        f"{told_parity()}\n",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
