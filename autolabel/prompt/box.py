"""The detection's box as the prompt: the plain way. Refuses to judge boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autolabel.core.protocols import About
from autolabel.core.types import Detections, Float32, Frame, Prompts
from autolabel.ops.settings import fraction


class BoxPrompter:
    """Asks for the object in the detection's box, widened on each side by `pad` times the box's size.

    Boxes are clipped to the image.
    """

    identity: Mapping[str, str] = {}
    about: About = "boxes"

    def __init__(self, *, pad: float) -> None:
        self._pad = fraction("pad", pad)

    def prompt(
        self, frames: Sequence[Frame], detections: Sequence[Detections], asked: Sequence[Sequence[int]]
    ) -> list[Prompts]:
        return [box_prompts(*one, self._pad) for one in zip(frames, detections, asked, strict=True)]


def box_prompts(frame: Frame, found: Detections, rows: Sequence[int], pad: float) -> Prompts:
    """One prompt for each detection of `rows`: its box, widened."""
    objects = np.array(rows, np.int64)
    return Prompts(boxes_xyxy=pad_xyxy(found.boxes_xyxy[objects], pad, frame.info.size_hw), objects=objects)


def pad_xyxy(boxes_xyxy: Float32, pad: float, size_hw: tuple[int, int]) -> Float32:
    """Boxes (N, 4) with each side moved out by `pad` times the box's width or height, clipped to the image."""
    h, w = size_hw
    margin = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * np.float32(pad)
    padded = boxes_xyxy + np.concatenate([-margin, margin], axis=1)
    return np.clip(padded, np.float32(0), np.array([w, h, w, h], np.float32)).astype(np.float32)
