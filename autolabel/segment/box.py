"""The filled box as a mask: the baseline that every segmenter must beat, and a fake for tests. No model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autolabel.core.types import Float32, Frame, PromptedMask, Prompts, Rle
from autolabel.ops.masks import encode_crop


class BoxSegmenter:
    """Answers a box with the box. Prompts without a box, or with a box that is not finite, go unanswered."""

    identity: Mapping[str, str] = {}

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        return [
            _filled(asked.boxes_xyxy, frame.image_rgb.shape[:2])
            for frame, asked in zip(frames, prompts, strict=True)
        ]


def _filled(boxes_xyxy: Float32 | None, size_hw: tuple[int, ...]) -> list[PromptedMask]:
    if boxes_xyxy is None:
        return []
    h, w = size_hw
    return [
        PromptedMask(number, box_rle(box, (h, w)), predicted_iou=1.0)
        for number, box in enumerate(boxes_xyxy)
        if np.isfinite(box).all()
    ]


def box_rle(box_xyxy: Float32, size_hw: tuple[int, int]) -> Rle:
    """The pixels whose centres lie in the half-open box: pixel k is inside when x0 <= k + 0.5 < x1.

    A box between two pixel centres is empty.
    """
    h, w = size_hw
    x0, y0, x1, y1 = np.ceil(np.clip(box_xyxy, 0, [w, h, w, h]) - 0.5).astype(int)
    return encode_crop(np.ones((max(y1 - y0, 0), max(x1 - x0, 0)), np.uint8), x0, y0, (h, w))
