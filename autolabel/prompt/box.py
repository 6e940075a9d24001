"""The detection's box as the prompt: the plain way. Refuses to judge boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autolabel.core.errors import ConfigError
from autolabel.core.types import Detections, Float32, Frame, Prompts


class BoxPrompter:
    """Asks for the object in the detection's box, widened on each side by `pad` times the box's size.

    Boxes are clipped to the image.
    """

    def __init__(self, *, pad: float) -> None:
        number = isinstance(pad, int | float) and not isinstance(pad, bool)
        if not (number and math.isfinite(pad) and 0.0 <= pad <= 1.0):
            raise ConfigError(f"prompt.pad must be in [0, 1], got {pad!r}")
        self._pad = float(pad)

    def prompt(self, frames: Sequence[Frame], detections: Sequence[Detections]) -> list[Prompts]:
        return [
            Prompts(boxes_xyxy=pad_xyxy(found.boxes_xyxy, self._pad, frame.info.size_hw))
            for frame, found in zip(frames, detections, strict=True)
        ]


def pad_xyxy(boxes_xyxy: Float32, pad: float, size_hw: tuple[int, int]) -> Float32:
    """Boxes (N, 4) with each side moved out by `pad` times the box's width or height, clipped to the image."""
    h, w = size_hw
    margin = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * np.float32(pad)
    padded = boxes_xyxy + np.concatenate([-margin, margin], axis=1)
    return np.clip(padded, np.float32(0), np.array([w, h, w, h], np.float32)).astype(np.float32)
