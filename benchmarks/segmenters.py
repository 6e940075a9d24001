"""What one segmenter gains over another on the same objects, by their size, and what it costs: true boxes in, masks
compared with the truth.

    python -m benchmarks.segmenters --data ../shared/data/masks/coco_train/instances.json \\
        --first segment=nano --second segment=zoom segment@segment.inner=nano
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

import numpy as np

from autolabel.app.build import build
from autolabel.app.compose import compose
from autolabel.core.protocols import Segmenter
from autolabel.core.types import Frame, ImageRef, Prompts, Rle
from autolabel.detect.labels import LabelsDetector
from autolabel.evaluate.boundary import boundary_scores
from autolabel.ops.boxes import box_problem
from autolabel.ops.images import load_frame
from autolabel.ops.masks import iou
from autolabel.source.coco import CocoSource
from benchmarks.page import processor

SIZES = ((0.0, 0.03125), (0.03125, 0.0625), (0.0625, 0.125), (0.125, 1.01))
"""Parts of the picture's side that a box takes; 0.0625 is 64 of 1024 px."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one object: the part of the picture's side that its box takes, the IoU of its mask with the truth, and of
    the bands along both outlines."""

    part: float
    iou: float
    boundary_iou: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="COCO files with masks and splits")
    parser.add_argument("--first", nargs="+", required=True, help="settings, for example segment=nano")
    parser.add_argument("--second", nargs="+", required=True)
    parser.add_argument("--images", type=int, default=1000, help="most pictures of each file")
    parser.add_argument("--out", type=Path, required=True, help="the table goes to its end")
    options = parser.parse_args()
    first, second = built(options.first), built(options.second)
    text = header(options, first)
    for file in options.data:
        frames = list(islice(labelled(file), options.images))
        text += table(file.parent.name, measured(first, frames), measured(second, frames), len(frames))
    sys.stdout.write(text)
    with options.out.open("a", encoding="utf-8") as out:
        out.write(text)


def built(overrides: Sequence[str]) -> Segmenter:
    return build(compose("label", [*overrides, "source.path=x"]).segment)


def header(options: argparse.Namespace, segmenter: Segmenter) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "sam2", "numpy"))
    return (
        f"# `{' '.join(options.first)}` and `{' '.join(options.second)}`, {datetime.now(UTC):%Y-%m-%d}\n\n"
        "True boxes of the val splits as prompts; mean IoU with the true mask, one object one vote. "
        f"Weights {segmenter.identity['weights'][:12]}. {processor()}, OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'unset')}, shared with other work; {versions}.\n"
    )


def labelled(file: Path) -> Iterator[Frame]:
    """The pictures of the val split."""
    source = CocoSource(path=str(file), images_dir=str(file.parent / "images"))
    for ref in source.images():
        if ref.split == "val" and isinstance(ref, ImageRef):
            yield load_frame(ref, max_pixels=10**9, min_side=1)


def measured(segmenter: Segmenter, frames: Sequence[Frame]) -> tuple[list[Answer], float]:
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
            both = (0.0, 0.0) if answer is None else scores(answer, truth_mask)
            answers.append(Answer(float(parts[number]), *both))
    return answers, seconds


def scores(found: Rle, truth: Rle) -> tuple[float, float]:
    """Mask IoU and boundary IoU."""
    return iou(found, truth), boundary_scores(found, truth).iou


def table(name: str, first: tuple[list[Answer], float], second: tuple[list[Answer], float], pictures: int) -> str:
    rows = [
        f"\n## {name}: {pictures} pictures\n",
        "| box, of the picture's side | objects | first | second | gain | better / worse (by 0.01) | boundary IoU |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for low, high in (*SIZES, (0.0, 1.01)):
        pairs = [(a, b) for a, b in zip(first[0], second[0], strict=True) if low <= a.part < high]
        if not pairs:
            continue
        ious = np.array([(a.iou, b.iou) for a, b in pairs])
        outlines = np.array([(a.boundary_iou, b.boundary_iou) for a, b in pairs])
        gain = ious[:, 1] - ious[:, 0]
        rows.append(
            f"| {low:g} to {min(high, 1):g} | {len(pairs)} | {ious[:, 0].mean():.3f} | {ious[:, 1].mean():.3f} "
            f"| {gain.mean():+.3f} | {(gain > 0.01).sum()} / {(gain < -0.01).sum()} "
            f"| {outlines[:, 0].mean():.3f} to {outlines[:, 1].mean():.3f} |"
        )
    rows.append(f"\nCPU seconds a picture: {first[1] / pictures:.2f} first, {second[1] / pictures:.2f} second.")
    return "\n".join(rows) + "\n\n"


if __name__ == "__main__":
    main()
