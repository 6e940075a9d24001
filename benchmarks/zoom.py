"""What `segment=zoom` gains on small objects, and what it costs: true boxes in, masks compared with the truth.

    python -m benchmarks.zoom --data ../shared/data/masks/coco_train/instances.json --segment nano

Each object is asked twice with the same weights, of the whole picture and zoomed, and compared with itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from autolabel.app.compose import build, compose
from autolabel.core.types import Frame, ImageRef, Prompts
from autolabel.detect.labels import LabelsDetector
from autolabel.ops.boxes import box_problem
from autolabel.ops.images import load_frame
from autolabel.ops.masks import iou
from autolabel.source.coco import CocoSource
from benchmarks.run import processor

SIZES = ((0.0, 0.03125), (0.03125, 0.0625), (0.0625, 0.125), (0.125, 1.01))
"""Parts of the picture's side that a box takes; 0.0625 is 64 of 1024 px."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one object: the part of the picture's side that its box takes, and the IoU of its mask with the truth."""

    part: float
    iou: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="COCO files with masks and splits")
    parser.add_argument("--segment", default="nano", help="the inner segmenter")
    parser.add_argument("--images", type=int, default=1000, help="most pictures of each file")
    parser.add_argument("--settings", nargs="*", default=[], help="for example segment.fill=0.3")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    plain = built([f"segment={options.segment}"])
    zoomed = built(["segment=zoom", f"segment@segment.inner={options.segment}", *options.settings])
    text = header(options, plain)
    for file in options.data:
        frames = list(islice(labelled(file), options.images))
        text += table(file.parent.name, measured(plain, frames), measured(zoomed, frames), len(frames))
    sys.stdout.write(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"zoom_{options.segment}_{datetime.now(UTC):%Y-%m-%d}.md").write_text(text)


def built(overrides: Sequence[str]) -> Any:
    return build(compose("label", [*overrides, "source.path=x"]).segment)


def header(options: argparse.Namespace, segmenter: Any) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "sam2", "numpy"))
    settings = " ".join(options.settings) or "as shipped"
    return (
        f"# Zoom on small objects: {options.segment}, {datetime.now(UTC):%Y-%m-%d}\n\n"
        f"True boxes of the val splits as prompts; mean IoU with the true mask, one object one vote. Settings: {settings}. "
        f"Weights {segmenter.identity['weights'][:12]}. {processor()}, OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'unset')}, shared with other work; {versions}.\n"
    )


def labelled(file: Path) -> Iterator[Frame]:
    """The pictures of the val split."""
    source = CocoSource(path=str(file), images_dir=str(file.parent / "images"))
    for ref in source.images():
        if ref.split == "val" and isinstance(ref, ImageRef):
            yield load_frame(ref, max_pixels=10**9, min_side=1)


def measured(segmenter: Any, frames: Sequence[Frame]) -> tuple[list[Answer], float]:
    """An answer an object, and CPU seconds of the segmenter."""
    truth = LabelsDetector(keep_masks=True)
    answers, seconds = [], 0.0
    for frame in frames:
        (found,) = truth.detect([frame])
        size_hw = frame.info.size_hw
        rows = [
            i
            for i, mask in enumerate(found.masks)
            if mask is not None and not found.crowd[i] and box_problem(found.boxes_xyxy[i], size_hw) is None
        ]
        boxes = found.boxes_xyxy[rows]
        start = time.process_time()
        (masks,) = segmenter.segment([frame], [Prompts(boxes_xyxy=boxes)]) if rows else [[]]
        seconds += time.process_time() - start
        parts = ((boxes[:, 2:] - boxes[:, :2]) / (size_hw[1], size_hw[0])).max(axis=1) if rows else []
        by_prompt = {mask.prompt: mask.mask for mask in masks}
        for number, row in enumerate(rows):
            truth_mask, answer = found.masks[row], by_prompt.get(number)
            assert truth_mask is not None
            answers.append(Answer(float(parts[number]), 0.0 if answer is None else iou(answer, truth_mask)))
    return answers, seconds


def table(name: str, plain: tuple[list[Answer], float], zoomed: tuple[list[Answer], float], pictures: int) -> str:
    rows = [
        f"\n## {name}: {pictures} pictures\n",
        "| box, of the picture's side | objects | whole picture | zoomed | gain | better / worse (by 0.01) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for low, high in (*SIZES, (0.0, 1.01)):
        pairs = np.array(
            [(a.iou, b.iou) for a, b in zip(plain[0], zoomed[0], strict=True) if low <= a.part < high]
        ).reshape(-1, 2)
        if not len(pairs):
            continue
        gain = pairs[:, 1] - pairs[:, 0]
        rows.append(
            f"| {low:g} to {min(high, 1):g} | {len(pairs)} | {pairs[:, 0].mean():.3f} | {pairs[:, 1].mean():.3f} "
            f"| {gain.mean():+.3f} | {(gain > 0.01).sum()} / {(gain < -0.01).sum()} |"
        )
    rows.append(f"\nCPU seconds a picture: {plain[1] / pictures:.2f} whole, {zoomed[1] / pictures:.2f} zoomed.")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
