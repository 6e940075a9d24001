"""The box asked again and again, each time moved a little: where the answers agree, the mask can be trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from autolabel.core.protocols import About
from autolabel.core.types import Detections, Float32, Frame, Prompts
from autolabel.ops.boxes import box_problem, clip_xyxy
from autolabel.ops.settings import count as whole
from autolabel.ops.settings import fraction, one_of
from autolabel.prompt.box import box_prompts


class JitterPrompter:
    """The detection's box and `count` others, each side moved by up to `amount` times the box's width or height.
    The answer to the box itself stays (`keep: original`) or the one that agrees best with the others (`medoid`); its
    mean IoU with the others becomes the object's `agreement`. Boxes are widened by `pad` first.

    The moves are a function of `seed`, the image id and the detection's number: of nothing that a restart changes.
    """

    about: About = "boxes"

    def __init__(self, *, count: int, amount: float, keep: str, seed: int, pad: float) -> None:
        self._count = whole("count", count, 1, 64)
        self._amount = fraction("amount", amount)
        chosen = one_of("keep", keep, ("original", "medoid"))
        self._keep: Literal["first", "medoid"] = "medoid" if chosen == "medoid" else "first"
        self._seed = whole("seed", seed, 0, 2**31 - 1)
        self._pad = fraction("pad", pad)

    @property
    def identity(self) -> Mapping[str, str]:
        # numpy may change what a seed gives from one release to the next.
        return {"numpy": np.__version__}

    def prompt(
        self, frames: Sequence[Frame], detections: Sequence[Detections], asked: Sequence[Sequence[int]]
    ) -> list[Prompts]:
        return [self._one(*one) for one in zip(frames, detections, asked, strict=True)]

    def _one(self, frame: Frame, found: Detections, rows: Sequence[int]) -> Prompts:
        plain = box_prompts(frame, found, rows, self._pad)
        assert plain.boxes_xyxy is not None
        boxes = [self._around(box, frame, row) for box, row in zip(plain.boxes_xyxy, rows, strict=True)]
        return replace(
            plain,
            boxes_xyxy=np.concatenate(boxes) if boxes else plain.boxes_xyxy,
            objects=np.repeat(np.array(rows, np.int64), self._count + 1),
            keep=self._keep,
        )

    def _around(self, box_xyxy: Float32, frame: Frame, row: int) -> Float32:
        """The box and the others (count + 1, 4), inside the picture; a move that leaves no area is not made."""
        random = np.random.default_rng(stable_seed(self._seed, frame.ref.image_id, row))
        sides = np.tile(box_xyxy[2:] - box_xyxy[:2], 2)
        moves = random.uniform(-self._amount, self._amount, (self._count, 4)).astype(np.float32)
        moved = clip_xyxy((box_xyxy + moves * sides).astype(np.float32), frame.info.size_hw)
        for i, box in enumerate(moved):
            if box_problem(box, frame.info.size_hw) is not None:
                moved[i] = box_xyxy
        return np.concatenate([box_xyxy[None], moved])


def stable_seed(seed: int, image_id: str, row: int) -> int:
    """The same number on every machine and in every order of work."""
    text = f"{seed}\0{row}\0{image_id}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
