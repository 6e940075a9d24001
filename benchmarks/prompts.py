"""Each way to ask, on pictures with known masks: mean IoU with the label, and pictures a second, in one run.

The val splits of the data sets are asked for their labelled objects with the boxes of the labels, so that the way
to ask is all that differs. `detector` boxes are the same with every side moved by up to a tenth of the box
(seeded), as a detector's are. What has a mask to start from (`mask`) starts from the label's polygon made coarse:
the convex hull; clicks (`points`) are seeded pixels of the label. The ways take turns picture by picture, so that
a busy moment of the machine slows all of them.

    python -m benchmarks.prompts --data ../shared/data/masks --limit 40
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
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
from autolabel.detect.labels import LabelsDetector
from autolabel.engine.asking import ask
from autolabel.ops.boxes import box_problem, clip_xyxy
from autolabel.ops.masks import area_px, bounds_xyxy, decode, encode, iou
from autolabel.source.coco import CocoSource
from benchmarks.page import RESULTS, processor, publish
from benchmarks.pictures import read_bgr

DETECTOR_ERROR = 0.1
SMALLEST_PX = 100
WAYS: dict[str, list[str]] = {
    "box": ["prompt=box"],
    "box, padded 5 %": ["prompt=box", "prompt.pad=0.05"],
    "box_point, centre": ["prompt=box_point", "prompt.point=centre"],
    "box_point, inside the known mask": ["prompt=box_point"],
    "negatives": ["prompt=negatives"],
    "jitter, original": ["prompt=jitter"],
    "jitter, medoid": ["prompt=jitter", "prompt.keep=medoid"],
    "mask (its hull) and box": ["prompt=mask"],
    "mask (its hull)": ["prompt=mask", "prompt.box=false"],
    "box, best_iou": ["prompt=box", "segment.masks=best_iou"],
    "box, best_box_fit": ["prompt=box", "segment.masks=best_box_fit"],
    "box, most_stable": ["prompt=box", "segment.masks=most_stable"],
    "box, 1 step": ["prompt=box", "segment.refine_steps=1"],
    "box, 1 step with a point": ["prompt=box", "segment.refine_steps=1", "segment.refine_with=point"],
    "box, 1 step with the mask alone": ["prompt=box", "segment.refine_steps=1", "segment.refine_with=mask"],
    "box, 2 steps": ["prompt=box", "segment.refine_steps=2"],
    "box, 3 steps": ["prompt=box", "segment.refine_steps=3"],
    "box, best_box_fit, 1 step": ["prompt=box", "segment.masks=best_box_fit", "segment.refine_steps=1"],
    "a click inside": ["prompt=box_point", "boxless"],
    "a click inside, best_iou": ["prompt=box_point", "segment.masks=best_iou", "boxless"],
    "points, 3 inside": ["prompt=points"],
    "points, 3 inside, and box": ["prompt=points", "prompt.box=true"],
    "box, zoom": ["prompt=box", "zoom"],
}
CLICKS = 3


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with its labelled objects: `given` holds the boxes to ask with, `truth` the masks."""

    frame: Frame
    given: Detections
    truth: tuple[Rle, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets with instances.json")
    parser.add_argument(
        "--segment", nargs="*", default=["nano"], help="segment configs, with settings after a comma"
    )
    parser.add_argument("--limit", type=int, default=40, help="pictures of each data set")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--boxes", choices=["labels", "detector"], default="detector")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    sets = {
        file.parent.name: list(pictures(file, given.limit, given.boxes))
        for file in sorted(given.data.glob("*/instances.json"))
    }
    lines = [header(given.boxes, sets)]
    for segment in given.segment:
        lines += table(segment, given.ways, sets)
    publish(given.out, f"prompts_cpu_{platform.machine()}", "\n".join(lines) + "\n")


def header(boxes: str, sets: dict[str, list[Picture]]) -> str:
    what = {
        "labels": "the tight boxes of the labels",
        "detector": f"the boxes of the labels, each side moved by up to {DETECTOR_ERROR:.0%} of the box (seeded)",
    }[boxes]
    sizes = ", ".join(
        f"{name} {len(some)} pictures, {sum(len(p.truth) for p in some)} objects" for name, some in sets.items()
    )
    return (
        f"# Prompts on a CPU, {datetime.now(UTC):%Y-%m-%d}\n\n{processor()}, {torch.get_num_threads()} threads; "
        f"torch {version('torch')}. Asked with {what}. {sizes}; objects of at least {SMALLEST_PX} px. Mean IoU with the label over "
        "objects; an unanswered prompt counts 0. Pictures per CPU second: all data sets, encoding included.\n"
    )


@dataclass(slots=True)
class Way:
    """One way to ask, and what it did so far. `qualities` are IoUs by data set."""

    name: str
    segmenter: Segmenter
    prompter: Prompter
    boxless: bool
    qualities: dict[str, list[float]]
    agreements: list[tuple[float, float]]
    pictures: int = 0
    cpu_s: float = 0.0

    def ask(self, name: str, picture: Picture) -> None:
        start = time.process_time()
        found = answer(self.segmenter, self.prompter, picture, boxless=self.boxless)
        self.cpu_s += time.process_time() - start
        self.pictures += 1
        self.qualities[name] += [quality for quality, _ in found]
        self.agreements += [(agreement, quality) for quality, agreement in found if agreement is not None]

    def row(self) -> str:
        cells = " | ".join(f"{np.mean(some):.4f}" for some in self.qualities.values())
        mean = np.mean([quality for some in self.qualities.values() for quality in some])
        columns = map(np.array, zip(*self.agreements, strict=True))
        rank = f"{rank_correlation(*columns):.2f}" if self.agreements else ""
        return f"| {self.name} | {cells} | {mean:.4f} | {self.pictures / self.cpu_s:.2f} | {rank} |"


def table(segment: str, names: Sequence[str], sets: dict[str, list[Picture]]) -> list[str]:
    ways: list[Way] = []
    for name in names:
        ways.append(built(segment, name, sets))
        asker(ways[-1])._model = asker(ways[0])._model  # one copy of the weights for all ways
    first = next(some[0] for some in sets.values() if some)
    for way in ways:  # what is computed once a process is nobody's time
        answer(way.segmenter, way.prompter, first, boxless=way.boxless)
    turns = [(name, picture) for name, some in sets.items() for picture in some]
    for number, (name, picture) in enumerate(turns):
        # Whoever comes first finds the picture cold.
        for way in [*ways[number % len(ways) :], *ways[: number % len(ways)]]:
            way.ask(name, picture)
        sys.stderr.write(f"{segment}: {number + 1} of {len(turns)} pictures\n")
    return [
        f"## {segment}\n",
        f"| way | {' | '.join(sets)} | mean | pictures per CPU s | agreement's rank correlation with IoU |",
        "|---|" + "---|" * (len(sets) + 3),
        *(way.row() for way in ways),
        "",
    ]


def asker(way: Way) -> Any:
    """The segmenter that holds the model."""
    return getattr(way.segmenter, "_inner", way.segmenter)


def built(segment: str, name: str, sets: dict[str, list[Picture]]) -> Way:
    config, *settings = segment.split(",")
    asked = WAYS[name]
    if "zoom" in asked:
        chosen = ["segment=zoom", f"segment@segment.inner={config}"]
        settings = [s.replace("segment.", "segment.inner.", 1) for s in settings]
    else:
        chosen = [f"segment={config}"]
    overrides = [o for o in asked if "=" in o]
    composed = compose("label", [*chosen, *settings, *overrides, "source.path=x"])
    boxless, empty = "boxless" in asked, {of: list[float]() for of in sets}
    return Way(name, build(composed.segment), build(composed.prompt), boxless, empty, [])


def answer(
    segmenter: Segmenter, prompter: Prompter, picture: Picture, *, boxless: bool
) -> list[tuple[float, float | None]]:
    """IoU and agreement of each object."""
    (prompts,) = prompter.prompt([picture.frame], [picture.given], [tuple(range(len(picture.given)))])
    if boxless:
        prompts = replace(prompts, boxes_xyxy=None)
    found = ask(segmenter, [picture.frame], [prompts])()[0].by_object
    return [
        (iou(found[i].mask, mask), found[i].agreement) if i in found else (0.0, None)
        for i, mask in enumerate(picture.truth)
    ]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, ties in the order given."""
    rank_a, rank_b = (np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (a, b))
    return float(np.corrcoef(rank_a, rank_b)[0, 1])


def pictures(file: Path, limit: int, boxes: str) -> Iterator[Picture]:
    """The first `limit` of the val split that have an object."""
    detector = LabelsDetector(keep_masks=False)
    val = {i["file_name"] for i in json.loads(file.read_text())["images"] if i["split"] == "val"}
    refs = (ref for ref in CocoSource(path=str(file), images_dir=None).images() if ref.image_id in val)
    for _, picture in zip(range(limit), filter(None, (read(ref, detector, boxes) for ref in refs)), strict=False):
        yield picture


def read(ref: ImageRef, detector: LabelsDetector, boxes: str) -> Picture | None:
    image = np.ascontiguousarray(read_bgr(ref.path)[..., ::-1])
    frame = Frame(ref, image, ImageInfo(image.shape[1], image.shape[0]))
    (found,) = detector.detect([frame])
    rows = [
        i
        for i, mask in enumerate(found.replaced)
        if mask is not None and area_px(mask) >= SMALLEST_PX and not found.crowd[i]
    ]
    if not rows:
        return None
    found = found.select(rows)
    truth = tuple(mask for mask in found.replaced if mask is not None)
    asked = replace(
        found,
        boxes_xyxy=moved(truth, ref.image_id, image.shape[:2], DETECTOR_ERROR if boxes == "detector" else 0.0),
        replaced=tuple(hull(mask) for mask in truth),
        extras=tuple(clicks(mask, f"{ref.image_id} {i}") for i, mask in enumerate(truth)),
    )
    return Picture(frame, asked, truth)


def moved(masks: Sequence[Rle], image_id: str, size_hw: tuple[int, int], amount: float) -> np.ndarray:
    random = np.random.default_rng(list(image_id.encode()))
    tight = np.array([bounds_xyxy(mask) for mask in masks], np.float32)
    sides = np.tile(tight[:, 2:] - tight[:, :2], 2)
    boxes = clip_xyxy((tight + random.uniform(-amount, amount, tight.shape) * sides).astype(np.float32), size_hw)
    good = np.array([box_problem(box, size_hw) is None for box in boxes])
    return np.where(good[:, None], boxes, tight)


def clicks(mask: Rle, seed: str) -> str:
    """Some pixels inside, as COCO keypoints."""
    rows, columns = np.nonzero(decode(mask))
    chosen = np.random.default_rng(list(seed.encode())).choice(len(rows), CLICKS)
    return json.dumps(
        {"keypoints": [v for i in chosen for v in (float(columns[i]) + 0.5, float(rows[i]) + 0.5, 2)]}
    )


def hull(mask: Rle) -> Rle:
    points = cv2.findNonZero(np.ascontiguousarray(decode(mask)))
    canvas = np.zeros(mask.size_hw, np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(points), 1)
    return encode(canvas)


if __name__ == "__main__":
    main()
