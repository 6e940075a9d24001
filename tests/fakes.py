"""Ordinary components that need no model: deterministic, quick, and placed at the seams."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from autolabel.core.protocols import Labeler, RecordSink, Unit
from autolabel.core.types import (
    Category,
    Detections,
    Dropped,
    Frame,
    ImageInfo,
    ImageRef,
    Instance,
    PromptedMask,
    Prompts,
    Rle,
)
from autolabel.engine.inline import InlineEngine
from autolabel.engine.labeler import PipelineLabeler
from autolabel.ops.masks import encode
from autolabel.prompt.box import BoxPrompter
from autolabel.segment.box import BoxSegmenter

CATEGORIES = (Category(1, "cat"), Category(2, "dog"), Category(3, "owl"))


class ColourDetector:
    """Finds axis-aligned blocks of pure red, green and blue: classes 1, 2, 3. Takes `delay_s` a picture."""

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.calls = 0
        self.delay_s = delay_s

    categories = CATEGORIES
    identity: Mapping[str, str] = {"weights sha256": "none"}

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        self.calls += len(frames)
        return [self._one(frame) for frame in frames]

    def _one(self, frame: Frame) -> Detections:
        time.sleep(self.delay_s)
        boxes, ids = [], []
        for channel in range(3):
            others = frame.image_rgb.sum(2) - frame.image_rgb[..., channel]
            ys, xs = np.nonzero((frame.image_rgb[..., channel] > 250) & (others < 10))
            if len(xs):
                boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                ids.append(channel + 1)
        n = len(boxes)
        scores = np.linspace(0.9, 0.5, n, dtype=np.float32)
        return Detections(np.array(boxes, np.float32).reshape(n, 4), scores, np.array(ids, np.int64))


class InterruptedDetector(ColourDetector):
    """Somebody presses Ctrl-C while it works."""

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        os.kill(os.getpid(), signal.SIGINT)
        return super().detect(frames)


class DroppingSegmenter:
    """The filled box, but prompt number `silent` of every image is never answered."""

    identity: Mapping[str, str] = {"weights sha256": "none"}

    def __init__(self, silent: int) -> None:
        self.silent = silent
        self.inner = BoxSegmenter()

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        return [[m for m in masks if m.prompt != self.silent] for masks in self.inner.segment(frames, prompts)]


class EverySecondRefiner:
    """A refiner of somebody's own: keeps every second object, from the one numbered `first` on."""

    def __init__(self, *, first: int) -> None:
        self.first = first

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        kept = [one for one in instances if one.index % 2 == self.first]
        return kept, [Dropped(one, "second: it is the other one") for one in instances if one not in kept]


class RoundingSegmenter:
    """The filled box; in bfloat16 without its last column where it is `wider_than` so many pixels. What
    `precision` each of them was built with is in `built`."""

    built: ClassVar[list[str]] = []

    def __init__(self, *, precision: str, device: str, wider_than: float) -> None:
        self.built.append(precision)
        self.precision = {"auto": "float32"}.get(precision, precision)
        self.wider_than = wider_than
        self.inner = BoxSegmenter()

    @property
    def identity(self) -> Mapping[str, str]:
        return {"precision": self.precision}

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        moved = prompts if self.precision == "float32" else [self._rounded(one) for one in prompts]
        return self.inner.segment(frames, moved)

    def _rounded(self, prompts: Prompts) -> Prompts:
        boxes = prompts.boxes_xyxy.copy()
        boxes[boxes[:, 2] - boxes[:, 0] > self.wider_than, 2] -= 1
        return replace(prompts, boxes_xyxy=boxes)


class CompiledSegmenter:
    """The filled box. What `compile_mode` each of them was built with is in `built`."""

    built: ClassVar[list[str]] = []

    def __init__(self, *, compile_mode: str, precision: str, device: str, architecture: str = "") -> None:
        self.built.append(compile_mode)
        self.inner = BoxSegmenter()

    @property
    def identity(self) -> Mapping[str, str]:
        return {}

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        return self.inner.segment(frames, prompts)


class ElsewhereEngine(InlineEngine):
    """A RemoteEngine whose other process is this one: what it is asked, and what it labels with, arrive pickled."""

    def ask(self, question: Callable[[], Any]) -> Any:
        return pickle.loads(pickle.dumps(question))()

    def on_gpus(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def run(self, labeler: Labeler, units: Iterable[Unit], sink: RecordSink) -> None:
        super().run(pickle.loads(pickle.dumps(labeler)), units, sink)


class Pictures:
    """A Source over files that exist."""

    categories: tuple[Category, ...] = ()
    document = ""
    ignored: Mapping[str, int] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def images(self) -> Iterator[ImageRef]:
        for path in sorted(self.folder.rglob("*.png")):
            yield ImageRef(path.relative_to(self.folder).as_posix(), str(path))


def units_of(folder: Path, size: int = 3) -> list[Unit]:
    refs = list(Pictures(folder).images())
    return [Unit(at // size, at, tuple(refs[at : at + size])) for at in range(0, len(refs), size)]


def labeler(
    detector: object = None,
    segmenter: object = None,
    refiners: Sequence[object] = (),
    batch_size: int = 2,
    batch_mb: int = 256,
) -> PipelineLabeler:
    return PipelineLabeler(
        detector=detector or ColourDetector(),
        prompter=BoxPrompter(pad=0.0),
        segmenter=segmenter or BoxSegmenter(),
        refiners=list(refiners),
        batch_size=batch_size,
        batch_mb=batch_mb,
        max_pixels=10**8,
        min_side=1,
    )


def draw(path: Path, blocks: Mapping[int, tuple[int, int, int, int]], size_hw: tuple[int, int] = (40, 60)) -> Path:
    """A grey picture with a block of colour `channel` (0 red, 1 green, 2 blue) at each xyxy; returns its path."""
    image = np.full((*size_hw, 3), 120, np.uint8)
    for channel, (x0, y0, x1, y1) in blocks.items():
        image[y0:y1, x0:x1] = np.eye(3, dtype=np.uint8)[channel] * 255
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(".png", image[..., ::-1])
    assert ok
    path.write_bytes(data.tobytes())
    return path


def album(folder: Path, count: int, seed: int = 0) -> Path:
    """`count` small pictures with no to three blocks each."""
    random = np.random.default_rng(seed)
    for i in range(count):
        blocks = {}
        for channel in range(i % 4):
            x, y = 20 * channel + int(random.integers(0, 8)), int(random.integers(0, 20))
            blocks[channel] = (x, y, x + int(random.integers(2, 12)), y + int(random.integers(2, 20)))
        draw(folder / f"{i % 3}" / f"picture {i:03}.png", blocks)
    return folder


def full_mask(size_hw: tuple[int, int]) -> Rle:
    return encode(np.ones(size_hw, np.uint8))
