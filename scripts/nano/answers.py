"""What a segmenter answers to boxes whose true mask is known: the data that a quality score is fitted on and judged by.

Every object is asked for twice, with its true box and with one whose sides were moved, as a detector's are; in every
JITTER_EVERY-th picture with boxes around these too, for the agreement. Reads the COCO files below `<data>/masks/*`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from autolabel.core.protocols import Prompter, Segmenter
from autolabel.core.types import Detections, Float32, Frame, ImageRef
from autolabel.detect.labels import LabelsDetector
from autolabel.engine.asking import ask
from autolabel.engine.labeler import candidates_of
from autolabel.evaluate.calibration import Known
from autolabel.ops.boxes import clip_xyxy
from autolabel.ops.images import load_frame
from autolabel.ops.masks import area_px, iou, is_empty
from autolabel.prompt.box import BoxPrompter
from autolabel.prompt.jitter import JitterPrompter
from autolabel.source.coco import CocoSource
from scripts.nano.dataset import DATASETS

SMALLEST_PX = 16
MOST_OBJECTS = 8
"""Of one picture: a street full of people shall not outweigh ten others."""
LARGEST_MOVE = 0.2
"""Of the box's width or height: the standard deviation with which its sides are moved is drawn up to this."""
JITTER_EVERY = 4


def choose(data: Path, split: str, pictures: int | None) -> list[ImageRef]:
    """At most `pictures` of each data set's split, spread evenly over it."""
    chosen = []
    for name in DATASETS:
        source = CocoSource(path=str(data / "masks" / name / "instances.json"), images_dir=None)
        refs = [
            ref for ref in source.images() if ref.split == split and ref.labels is not None and len(ref.labels)
        ]
        count = len(refs) if pictures is None else min(pictures, len(refs))
        chosen += [refs[i] for i in np.linspace(0, len(refs) - 1, count).astype(int)]
    return chosen


def answers(segmenter: Segmenter, refs: Sequence[ImageRef], seed: int = 0) -> Iterator[list[Known]]:
    """The objects of one picture after the other. Every detector score is 1.0, as that of an existing box."""
    detector = LabelsDetector(keep_masks=True)
    jitter = JitterPrompter(count=4, amount=0.05, keep="original", seed=seed, pad=0.0)
    for number, ref in enumerate(refs):
        frame = load_frame(ref, max_pixels=10**9, min_side=1)
        (found,) = detector.detect([frame])
        truth = found.select(_to_ask(found, np.random.default_rng([seed, number])))
        prompter = BoxPrompter(pad=0.0) if number % JITTER_EVERY else jitter
        yield _answered(segmenter, prompter, frame, truth, np.random.default_rng([seed, number, 1]))


def _to_ask(found: Detections, random: np.random.Generator) -> list[int]:
    sound = [mask is not None and not crowd for mask, crowd in zip(found.masks, found.crowd, strict=True)]
    good = [i for i, mask in enumerate(found.masks) if sound[i] and mask and area_px(mask) >= SMALLEST_PX]
    return sorted(random.permutation(good)[:MOST_OBJECTS].tolist())


def _answered(
    segmenter: Segmenter, prompter: Prompter, frame: Frame, truth: Detections, random: np.random.Generator
) -> list[Known]:
    boxes = clip_xyxy(truth.boxes_xyxy, frame.info.size_hw)
    boxes = np.concatenate([boxes, moved(boxes, random, frame.info.size_hw)])
    asked = Detections(boxes, np.ones(len(boxes), np.float32), np.tile(truth.category_ids, 2))
    (given,) = ask(segmenter, [frame], prompter.prompt([frame], [asked], [range(len(boxes))]))()
    pairs = zip(candidates_of(asked, dict(given.by_object)), (*truth.masks, *truth.masks), strict=True)
    return [
        Known(frame.ref.path, instance, iou(instance.mask, mask))
        for instance, mask in pairs
        if instance.mask is not None and mask is not None and not is_empty(instance.mask)
    ]


def moved(boxes_xyxy: Float32, random: np.random.Generator, size_hw: tuple[int, int]) -> Float32:
    """Boxes (N, 4) whose four sides are moved at random, some hardly and some by much; at least a pixel large."""
    size = np.tile(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 2)
    strength = random.uniform(0, LARGEST_MOVE, (len(boxes_xyxy), 1))
    boxes = boxes_xyxy + random.normal(size=boxes_xyxy.shape) * strength * size
    h, w = size_hw
    low = np.clip(np.minimum(boxes[:, :2], boxes[:, 2:]), 0, (w - 1, h - 1))
    high = np.clip(np.maximum(boxes[:, :2], boxes[:, 2:]), low + 1, (w, h))
    return np.concatenate([low, high], axis=1).astype(np.float32)
