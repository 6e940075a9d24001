"""Any segmenter, with outlines that follow the picture: a mask is blurred where the picture is smooth and keeps the
picture's edges, by the guided filter, and what is then above a half is inside.

With `mirror` the picture's mirror image is asked too, and the mean of both masks is filtered: where they disagree, the
picture decides. Costs a second encoding. A few milliseconds an object on a CPU for the filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autolabel.core.protocols import Segmenter
from autolabel.core.types import Float32, Frame, PromptedMask, Prompts, Rle, UInt8
from autolabel.ops.guided import guided_filter
from autolabel.ops.masks import bounds_xyxy, encode_crop, iou
from autolabel.ops.returned import answers_of
from autolabel.ops.settings import flag, number
from autolabel.ops.views import frame_mirrored, mask_mirrored, prompts_mirrored
from autolabel.ops.windows import Window, window_pixels

_REACH = 3
"""Radii around a mask within which it may change."""


class GuidedSegmenter:
    """`inner`'s masks, each filtered with a radius of `radius` times its longer side and the guided filter's `eps`
    (colours in [0, 1]). A result whose IoU with `inner`'s mask is below `min_iou` is not taken: a filter may lose a
    pole that is thinner than its radius.

    With `mirror`, `agreement` is the IoU of the two masks, where the answer has none yet. Prompts with a sieve, which
    may have several answers, are not mirrored.

    Not a LateSegmenter: the filter needs the pixels around a mask, and what comes late holds none.
    """

    def __init__(self, *, inner: Segmenter, radius: float, eps: float, min_iou: float, mirror: bool) -> None:
        self._inner = inner
        self._radius = number("radius", radius, 0.001, 1)
        self._eps = number("eps", eps, 1e-9, 1)
        self._min_iou = number("min_iou", min_iou, 0, 1)
        self._mirror = flag("mirror", mirror)

    @property
    def identity(self) -> Mapping[str, str]:
        return self._inner.identity

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        """The inner segmenter's answers, with filtered masks. Everything is asked of it in one call."""
        twice = [i for i, asked in enumerate(prompts) if self._mirror and asked.sieve is None and len(asked)]
        answers = answers_of(
            self._inner,
            [*frames, *(frame_mirrored(frames[i]) for i in twice)],
            [*prompts, *(prompts_mirrored(prompts[i], frames[i].info.size_hw) for i in twice)],
            key="segment.inner",
        )()
        mirrored = {
            i: {answer.prompt: mask_mirrored(answer.mask) for answer in answers[len(frames) + at]}
            for at, i in enumerate(twice)
        }
        return [
            [
                self._filtered(answer, mirrored.get(i, {}).get(answer.prompt), frame.image_rgb)
                for answer in answers[i]
            ]
            for i, frame in enumerate(frames)
        ]

    def _filtered(self, answer: PromptedMask, other: Rle | None, image_rgb: UInt8) -> PromptedMask:
        if other is not None and answer.agreement is None:
            answer = replace(answer, agreement=iou(answer.mask, other))
        box = bounds_xyxy(answer.mask)
        if box is None:
            return answer
        radius = max(1, round(self._radius * max(box[2] - box[0], box[3] - box[1])))
        window = left, top, right, bottom = _widened(box, _REACH * radius, answer.mask.size_hw)
        before = window_pixels(answer.mask, window)
        votes = [before] if other is None else [before, window_pixels(other, window)]
        mean: Float32 = np.asarray(np.mean(votes, axis=0, dtype=np.float32))
        inside = guided_filter(image_rgb[top:bottom, left:right], mean, radius, self._eps) > 0.5
        kept = np.count_nonzero(inside & before) / np.count_nonzero(inside | before)
        if kept < self._min_iou or not inside.any():
            return answer
        return replace(answer, mask=encode_crop(inside.view(np.uint8), left, top, answer.mask.size_hw))


def _widened(box: Window, margin: int, size_hw: tuple[int, int]) -> Window:
    x0, y0, x1, y1 = box
    return max(x0 - margin, 0), max(y0 - margin, 0), min(x1 + margin, size_hw[1]), min(y1 + margin, size_hw[0])
