"""Speed against the reference, parity beside it: `make bench`.

Contestants take turns (A B A B ...), CPU seconds of the process are compared pair by pair, and every ratio
stands beside the fraction of identical masks, and whether the masks are as near to the reference's as its arithmetic has
to bring them. Results are written to benchmarks/results as a dated page.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from PIL import Image

from autolabel.app.compose import build, compose
from autolabel.core.types import Rle
from autolabel.ops.device import runs_bf16
from autolabel.ops.masks import encode, iou
from autolabel.ops.rle import logits_to_rle
from benchmarks.contestants import Contestant, Masks, choices_of, contestants

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Limits:
    """How near masks have to be to the reference's: IoU, and the share of prompts that got another of the four masks."""

    mean: float
    percentile_1: float
    flips: float


LIMITS = {"float32": Limits(0.9999, 0.999, 0.0), "bfloat16": Limits(0.995, 0.97, 0.005)}
SIZES_HW = {"640x480": (480, 640), "1080p": (1080, 1920), "4000x3000": (3000, 4000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=["nano"], help="segment configs, e.g. nano sam2_tiny")
    parser.add_argument(
        "--device", default="cpu", help="cpu or cuda; on cuda the ratio is of seconds on the clock"
    )
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16 too, where it is only imitated")
    parser.add_argument("--skip", nargs="*", default=[], help="contestants to leave out")
    parser.add_argument("--random", action="store_true", help="random weights: for speed where none are at hand")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--boxes", type=int, nargs="*", default=[1, 10, 50])
    parser.add_argument("--sizes", nargs="*", choices=SIZES_HW, default=list(SIZES_HW))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    lines = [header(arguments), *tail_table(arguments.repeats)]
    for model in arguments.models:
        lines += model_table(model, arguments)
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"{arguments.device}_{platform.machine()}_{datetime.now(UTC):%Y-%m-%d}.md"
    (arguments.out / name).write_text(text)


def header(options: argparse.Namespace) -> str:
    names = ("torch", "sam2", "ultralytics", "numpy", "numba", "pycocotools")
    versions = ", ".join(f"{n} {version(n)}" for n in names)
    on_cuda = options.device != "cpu"
    gpu = f"{torch.cuda.get_device_name()}, " if on_cuda else ""
    return (
        f"# {'GPU' if on_cuda else 'CPU'}, {datetime.now(UTC):%Y-%m-%d}\n\n{gpu}{processor()}, "
        f"{torch.get_num_threads()} threads; {versions}. Medians of {options.repeats} repeats in turns after one "
        f"warm-up; the ratio is of {'seconds on the clock' if on_cuda else 'CPU seconds of the process'}, "
        "pair by pair (min to max).\n"
    )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def paired(reference: Callable[[], object], ours: Callable[[], object], repeats: int) -> tuple[float, float, str]:
    """Median CPU seconds of both, and the ratio reference / ours as text."""
    reference(), ours()
    times = [(cpu_seconds(reference), cpu_seconds(ours)) for _ in range(repeats)]
    ratios = sorted(a / b for a, b in times)
    text = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times), text


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def tail_table(repeats: int) -> list[str]:
    """From low-resolution logits to run lengths: upsample + threshold + pycocotools against the direct way."""
    rows = ["## Mask tail: 256 x 256 logits to COCO RLE, 10 masks\n",
            "| picture | reference, ms a mask | direct, ms a mask | ratio | identical bytes |", "|---|---|---|---|---|"]  # fmt: skip
    fused = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    logits = blobs(10)
    for name, size in SIZES_HW.items():

        def reference(size: tuple[int, int] = size) -> list[Rle]:
            return [reference_rle(one, size) for one in logits]

        def ours(size: tuple[int, int] = size) -> list[Rle]:
            return [logits_to_rle(one, size, fused=fused) for one in logits]

        same = sum(a == b for a, b in zip(reference(), ours(), strict=True))
        slow, fast, ratio = paired(reference, lambda ours=ours: [ours() for _ in range(20)], repeats)
        ratios = float(ratio.split()[0]) * 20
        rows.append(f"| {name} | {slow * 100:.2f} | {fast * 5:.3f} | {ratios:.0f} | {same} of {len(logits)} |")
    return [*rows, ""]


def reference_rle(logits: np.ndarray, size: tuple[int, int]) -> Rle:
    full = F.interpolate(torch.from_numpy(logits)[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return encode((full > 0).numpy())


def blobs(count: int) -> list[np.ndarray]:
    """Wobbly ellipses of about 3 % of the area, as logits."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:256, 0:256]
    found = []
    for _ in range(count):
        y, x = random.uniform(50, 206, 2)
        angle = np.arctan2(rows - y, columns - x)
        wobble = 1 + 0.15 * np.sin(random.integers(3, 8) * angle + random.uniform(0, 6))
        found.append(
            (25 * wobble - np.hypot(rows - y, (columns - x) * random.uniform(0.7, 1.4))).astype(np.float32)
        )
    return found


def model_table(config: str, options: argparse.Namespace) -> list[str]:
    """Pictures and boxes in, run lengths on disk: every contestant with the same weights, in turns."""
    segmenters = built(config, options)
    rows = [f"## {config}: {options.images} pictures, from the file to COCO RLE on disk\n",
            "| picture | boxes | contestant | CPU s a picture | reference / it | wall, pictures/s | peak MB more | first call, s |"
            " mean IoU | 1st percentile | least | identical | flips | within its limits |", "|" + "---|" * 14]  # fmt: skip
    with TemporaryDirectory() as folder:
        wanted = config == "sam2_tiny" and "ultralytics SAM" not in options.skip
        exact = next(iter(segmenters.values()))._model
        strangers = ultralytics_weights(Path(folder), exact) if wanted else None
        for name in options.sizes:
            paths = pictures(Path(folder) / name, SIZES_HW[name], options.images)
            for count in options.boxes:
                boxes = [random_boxes(count, SIZES_HW[name], seed) for seed in range(len(paths))]
                table = contestants(segmenters, Path(folder) / "out", strangers)
                table = {who: call for who, call in table.items() if who not in options.skip}
                models = [segmenter._model for segmenter in segmenters.values()]
                rows += compared(f"| {name} | {count} ", table, paths, boxes, options, models)
    return [*rows, ""]


def built(config: str, options: argparse.Namespace) -> dict[str, Any]:
    """Our ways to compute: exact, in buckets, and in bfloat16 where it is fast or asked for."""
    ways = {"autolabel": ["precision=float32", "batching=image"],
            "autolabel, buckets": ["precision=float32", "batching=bucket"]}  # fmt: skip
    if options.bf16 or runs_bf16(options.device):
        ways["autolabel, bfloat16"] = ["precision=bfloat16", "batching=auto"]
    common = ["source.path=x", f"segment={config}", f"segment.device={options.device}"]
    common += ["segment.weights=random:0"] if options.random else []
    return {
        name: build(compose("label", [*common, *(f"segment.{setting}" for setting in settings)]).segment)
        for name, settings in ways.items()
        if name not in options.skip
    }


def compared(
    start: str,
    table: dict[str, Contestant],
    paths: list[Path],
    boxes: list[np.ndarray],
    options: argparse.Namespace,
    models: Sequence[Any],
) -> list[str]:
    """A row a contestant. The first is the reference of times and masks."""
    first, answers, choices = {}, {}, {}
    for name, contestant in table.items():
        began = time.process_time()
        with choices_of(models) as chosen:
            answers[name] = contestant(paths, boxes)
        first[name], choices[name] = time.process_time() - began, chosen
    runs: dict[str, list[Run]] = {name: [] for name in table}
    for _ in range(options.repeats):
        for name, contestant in table.items():
            runs[name].append(measured(lambda c=contestant: c(paths, boxes)))
    reference, *_ = table
    seconds = attrgetter("cpu_s" if options.device == "cpu" else "wall_s")
    rows = []
    for name, some in runs.items():
        ratios = sorted(seconds(a) / seconds(b) for a, b in zip(runs[reference], some, strict=True))
        cpu_s = statistics.median(r.cpu_s for r in some) / len(paths)
        rate = len(paths) / statistics.median(r.wall_s for r in some)
        rows.append(
            f"{start}| {name} | {cpu_s:.3f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) "
            f"| {rate:.2f} | {max(r.extra_mb for r in some):.0f} | {first[name]:.1f} "
            f"| {parity(answers[reference], answers[name], choices[reference], choices[name], LIMITS[kind(name, options)])} |"
        )
    return rows


def kind(contestant: str, options: argparse.Namespace) -> str:
    """What it computes in, and so which limits are its own."""
    strongest = contestant == "predictor, set_image_batch" and runs_bf16(options.device)
    return "bfloat16" if strongest or contestant.endswith("bfloat16") else "float32"


def flips(reference: Sequence[int], found: Sequence[int]) -> int | None:
    """How many prompts got another one of the four masks; unknown where a bucket was padded."""
    if len(reference) != len(found) or not reference:
        return None
    return sum(a != b for a, b in zip(reference, found, strict=True))


@dataclass(frozen=True, slots=True)
class Run:
    """One call: CPU seconds of the process, seconds on the wall, memory above what was held before, MB."""

    cpu_s: float
    wall_s: float
    extra_mb: float


def measured(call: Callable[[], object]) -> Run:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, wall, cpu = resident_mb("VmRSS"), time.monotonic(), time.process_time()
    call()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    return Run(cpu, wall, resident_mb("VmHWM") - before)


def resident_mb(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def parity(
    reference: Masks | None, found: Masks | None, chosen: Sequence[int], choices: Sequence[int], limits: Limits
) -> str:
    """Mean, 1st percentile and least IoU over masks, how many are identical, how many prompts got another mask, and whether
    all that is within `limits`."""
    if reference is None or found is None:
        return "polygons only, other resize | | | | |"
    pairs = [(a, b) for x, y in zip(reference, found, strict=True) for a, b in zip(x, y, strict=True)]
    ious = np.array([1.0 if a == b else iou(a, b) for a, b in pairs])
    same = sum(a == b for a, b in pairs)
    mean, percentile_1, flipped = ious.mean(), np.percentile(ious, 1), flips(chosen, choices)
    within = mean >= limits.mean and percentile_1 >= limits.percentile_1
    within &= flipped is None or flipped <= limits.flips * len(choices)
    told = "" if flipped is None else f"{flipped} of {len(choices)}"
    return (
        f"{mean:.5f} | {percentile_1:.5f} | {ious.min():.5f} | {same} of {len(pairs)} | {told} "
        f"| {'yes' if within else '**no**'}"
    )


def pictures(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i:04d}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(picture(size, i)).save(path, quality=90)
    return paths


def ultralytics_weights(folder: Path, model: Any) -> Path:
    """The weights that all have, in a file as ultralytics names it: the name says the architecture."""
    path = folder / "sam2.1_t.pt"
    torch.save({"model": model.state_dict()}, path)
    return path


def picture(size: tuple[int, int], seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    small = torch.from_numpy(random.uniform(0, 255, (1, 3, 24, 32)).astype(np.float32))
    return F.interpolate(small, size, mode="bicubic").clamp(0, 255)[0].permute(1, 2, 0).byte().numpy().copy()


def random_boxes(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    random = np.random.default_rng([count, seed])
    height, width = size
    x0, y0 = random.uniform(0, width * 0.7, count), random.uniform(0, height * 0.7, count)
    w, h = random.uniform(0.08, 0.28, count) * width, random.uniform(0.08, 0.28, count) * height
    return np.stack([x0, y0, x0 + w, y0 + h], 1).astype(np.float32)


if __name__ == "__main__":
    main()
