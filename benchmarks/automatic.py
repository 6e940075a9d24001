"""Automatic masks beside `SAM2AutomaticMaskGenerator`: the same instances, the time and the memory of both.

Both see the same pictures with the same weights and settings, in one process and in turns. An instance is matched
when one of the other's has an IoU above 0.99 with it. Memory is the growth of the process's peak (VmHWM) while one
picture is worked on. Results go to benchmarks/results as a dated page.

    python -m benchmarks.automatic --data ../shared/data/masks --models nano --pictures 4
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from autolabel.app.build import build
from autolabel.app.compose import compose
from autolabel.core.protocols import Prompter, Segmenter
from autolabel.core.types import Detections, Frame, ImageInfo, ImageRef, Rle
from autolabel.engine.asking import ask
from autolabel.ops.masks import ious
from benchmarks.fresh import memory_mb
from benchmarks.page import RESULTS, processor, write_page
from benchmarks.pictures import read_bgr

RANDOM = ["segment=sam2_tiny", "segment.weights=random:3"]
MODELS = {
    # The nano model thinks little of its masks, and random weights less; with the defaults nothing would be left.
    "nano": (["segment=nano"], {"min_predicted_iou": 0.3, "min_stability": 0.5}),
    "tiny, random weights": (RANDOM, {"min_predicted_iou": 0.3, "min_stability": 0.5}),
}
MATCHED = 0.99


@dataclass(frozen=True, slots=True)
class Measured:
    masks: list[Rle]
    cpu_s: float
    grown_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets with instances.json")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--pictures", type=int, default=2, help="of each data set")
    parser.add_argument("--sides", nargs="*", type=int, default=[0], help="longest side in px; 0: as it is")
    parser.add_argument("--points", type=int, default=16, help="a side")
    parser.add_argument("--crop-layers", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    lines = [header(given.points)]
    for model in given.models:
        for layers in given.crop_layers:
            for side in given.sides:
                paths = pictures(given.data, given.pictures)
                lines.append(row(model, layers, side, given.points, paths))
                sys.stdout.write(lines[-1] + "\n")
                sys.stdout.flush()
    write_page(given.out, f"automatic_cpu_{platform.machine()}", "\n".join(lines) + "\n")


def header(points: int) -> str:
    names = ("torch", "sam2", "numpy", "numba", "pycocotools")
    versions = ", ".join(f"{n} {version(n)}" for n in names)
    return (
        f"# Automatic masks on a CPU, {datetime.now(UTC):%Y-%m-%d}\n\n{processor()}, {torch.get_num_threads()} threads; "
        f"{versions}.\n`detect=none prompt=grid` beside `SAM2AutomaticMaskGenerator` with the same settings: "
        f"{points} points a side, 64 at once for the generator; means over the pictures. Shared machine: look at the "
        "ratios.\n\n"
        "| model | crop layers | longest side | pictures | generator: instances, CPU s, MiB | ours: instances, CPU s, MiB "
        "| its instances found | ours that it has | time ratio | memory ratio |\n|---|---|---|---|---|---|---|---|---|---|"
    )


def pictures(data: Path, count: int) -> list[Path]:
    """The first `count` of the val split of each data set."""
    found = []
    for file in sorted(data.glob("*/instances.json")):
        images = json.loads(file.read_text())["images"]
        found += [file.parent / i["file_name"] for i in images if i["split"] == "val"][:count]
    return found


def row(model: str, layers: int, side: int, points: int, paths: list[Path]) -> str:
    overrides, settings = MODELS[model]
    grid = {"points_per_side": points, "crop_layers": layers, **settings}
    prompt = ["detect=none", "prompt=grid", *(f"prompt.{key}={value}" for key, value in grid.items())]
    config = compose("label", [*overrides, *prompt, "source.path=x"])
    segmenter, prompter = build(config.segment), build(config.prompt)
    generator = generator_of(segmenter._model, config.prompt)
    theirs, ours, matched, back = [], [], 0, 0
    warm = read(paths[0], 160)
    automatic(segmenter, prompter, Frame(ImageRef("", ""), warm, ImageInfo(warm.shape[1], warm.shape[0])))
    generated(generator, warm)
    for path in paths:
        image = read(path, side)
        frame = Frame(ImageRef(path.name, str(path)), image, ImageInfo(image.shape[1], image.shape[0]))
        theirs.append(measured(partial(generated, generator, image)))
        ours.append(measured(partial(automatic, segmenter, prompter, frame)))
        best = ious(theirs[-1].masks, ours[-1].masks)
        matched += int((best.max(axis=1, initial=0) > MATCHED).sum())
        back += int((best.max(axis=0, initial=0) > MATCHED).sum())
    return " | ".join(
        [f"| {model}", str(layers), str(side or "as it is"), str(len(paths)), cell(theirs), cell(ours),
         share(matched, theirs), share(back, ours), f"{total(theirs, 'cpu_s') / total(ours, 'cpu_s'):.1f}",
         f"{total(theirs, 'grown_mib') / max(total(ours, 'grown_mib'), 1):.1f} |"]
    )  # fmt: skip


def total(some: list[Measured], name: str) -> float:
    return float(sum(getattr(one, name) for one in some))


def cell(some: list[Measured]) -> str:
    n = len(some)
    masks = sum(len(one.masks) for one in some)
    return f"{masks / n:.1f}, {total(some, 'cpu_s') / n:.2f}, {total(some, 'grown_mib') / n:.0f}"


def share(count: int, some: list[Measured]) -> str:
    return f"{count} of {sum(len(one.masks) for one in some)}"


def generator_of(model: Any, prompt: Any) -> Any:
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    generator = SAM2AutomaticMaskGenerator(
        model,
        points_per_side=prompt.points_per_side,
        pred_iou_thresh=prompt.min_predicted_iou,
        stability_score_thresh=prompt.min_stability,
        box_nms_thresh=prompt.box_iou,
        crop_n_layers=prompt.crop_layers,
        crop_nms_thresh=prompt.crop_iou,
        crop_overlap_ratio=prompt.crop_overlap,
        crop_n_points_downscale_factor=prompt.crop_points_downscale,
        multimask_output=prompt.three_masks,
        output_mode="coco_rle",
    )
    # The predictor writes down the feature sizes of a 1024 px model.
    generator.predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    return generator


def generated(generator: Any, image: np.ndarray) -> list[Rle]:
    try:
        found = [one["segmentation"] for one in generator.generate(image)]
    except IndexError:  # how it ends where no crop has anything
        return []
    return [Rle((rle["size"][0], rle["size"][1]), rle["counts"].encode()) for rle in found]


def automatic(segmenter: Segmenter, prompter: Prompter, frame: Frame) -> list[Rle]:
    prompts = prompter.prompt([frame], [Detections.none()], [()])
    return [answer.mask for answer in ask(segmenter, [frame], prompts)()[0].found]


def read(path: Path, side: int) -> np.ndarray:
    image = read_bgr(path)[..., ::-1]
    scale = side / max(image.shape[:2]) if side else 1
    if scale == 1:
        return np.ascontiguousarray(image)
    return np.ascontiguousarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))


def measured(call: Callable[[], list[Rle]]) -> Measured:
    gc.collect()
    # What the other one has freed must not be there to be used again.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = memory_mb("VmRSS")
    # Linux: the peak so far is forgotten.
    Path("/proc/self/clear_refs").write_text("5")
    start = time.process_time()
    masks = call()
    return Measured(masks, time.process_time() - start, memory_mb("VmHWM") - before)


if __name__ == "__main__":
    main()
