"""What every SAM does that is asked with prompts, whatever network computes: pictures to masks, in pieces, of
three masks one, again with its own answer, through a sieve. Holds no network and loads none.

Letters in shapes: N prompts, P points, M masks of one prompt, R the model's image side, h and w the low-resolution
mask, H and W the picture.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Generic, TypeVar

import numpy as np

from autolabel.core.types import Float32, Frame, Int64, PromptedMask, Prompts, Sieve, UInt8
from autolabel.ops.box_prior import BoxPrior
from autolabel.ops.device import Chunks, Precision, autocast, not_finite, upload, without_denormals
from autolabel.segment.answers import (
    STABILITY_OFFSET,
    Canvas,
    Decoded,
    best_fits,
    finished,
    matching_arithmetic,
    prompted,
    stability,
)
from autolabel.segment.asking import Asking
from autolabel.segment.inputs import Inputs, by_shape, inner_points

# sam2/utils/transforms.py
_MEAN_RGB = (0.485, 0.456, 0.406)
_STD_RGB = (0.229, 0.224, 0.225)
# sam2/sam2_image_predictor.py: what a mask prompt made of logits is clamped to.
_MASK_INPUT_LIMIT = 32.0

ARITHMETIC: Mapping[Precision, str] = {"float32": "5", "bfloat16": "6"}
"""Version of our own computing, from pixels to logits. It counts up whenever the last digits of an answer may change,
so that an earlier run is not continued with others."""

F = TypeVar("F")
"""What a network keeps of one encoded picture."""


class SamSegmenter(ABC, Generic[F]):
    """A Segmenter but for its network, which encodes pictures and decodes prompts. Whoever extends it sets `_identity`,
    `_scores_objects` (whether an answer says how surely there is an object at all) and `_mask_input_hw`, (h, w)."""

    _identity: Mapping[str, str]
    _scores_objects: bool
    _mask_input_hw: tuple[int, int]
    _prior: BoxPrior | None = None

    def __init__(self, asking: Asking) -> None:
        self._device, self._precision = asking.device, asking.precision
        self._prompts_at_once, self._images_at_once = Chunks(asking.prompt_chunk), Chunks(asking.encode_batch)
        self._masks, self._refine_steps, self._refine_with = asking.masks, asking.refine_steps, asking.refine_with
        self._lock = threading.Lock()
        self._fused = matching_arithmetic()

    @property
    def identity(self) -> Mapping[str, str]:
        return {**self._identity, "arithmetic": ARITHMETIC[self._precision]}

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        """Masks of all prompts of all frames. Frames without prompts cost nothing.

        A prompt whose answer is not finite (a box with NaN, say) goes unanswered. Raises
        ImageError `out_of_memory` when a single image or prompt does not fit on the device, `not_finite` when such an
        answer was to pass a sieve.
        """
        pairs = list(zip(frames, prompts, strict=True))
        answers: list[list[PromptedMask]] = [[] for _ in pairs]
        asked = [number for number, (_, prompt) in enumerate(pairs) if len(prompt)]
        at_once = self._images_at_once.size
        for first in range(0, len(asked), at_once):
            group = asked[first : first + at_once]
            features = self._encode([pairs[number][0].image_rgb for number in group])
            for number, feature in zip(group, features, strict=True):
                frame, prompt = pairs[number]
                answers[number] = self._answer(feature, prompt, frame.info.size_hw)
        return answers

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """The context that every forward pass runs in."""
        import torch

        kind = self._device.type
        with self._lock, torch.inference_mode(), autocast(kind, self._precision), without_denormals(kind):
            yield

    @abstractmethod
    def _encode(self, images_rgb: Sequence[UInt8]) -> list[F]:
        """What is kept of each picture."""

    @abstractmethod
    def _decode(self, features: F, asked: Inputs, mask_input: Any, canvas: Canvas, three: bool) -> Decoded:
        """The answer to N prompts of one shape, with one mask each or `three`; `mask_input` is (N, h, w) or None."""

    def _prepared(self, features: F, groups: Sequence[Inputs]) -> F:
        """The features of one picture, made ready before all its prompts are asked."""
        return features

    def _answer(self, features: F, prompts: Prompts, size_hw: tuple[int, int]) -> list[PromptedMask]:
        found: list[PromptedMask] = []
        groups = by_shape(prompts)
        features = self._prepared(features, groups)
        for inputs in groups:
            ask = partial(self._answer_some, features, inputs, prompts.sieve, size_hw)
            found += self._prompts_at_once.run(len(inputs), ask)
        return sorted(found, key=lambda answer: answer.prompt)

    def _answer_some(
        self,
        features: F,
        inputs: Inputs,
        sieve: Sieve | None,
        size_hw: tuple[int, int],
        start: int,
        stop: int,
    ) -> list[PromptedMask]:
        canvas = Canvas(size_hw, self._fused, self._prior)
        with self._computing():
            asked, answer = self._first(features, inputs.part(slice(start, stop)), sieve, canvas)
            for _ in range(self._refine_steps):
                answer = self._decode(features, *self._again(asked, answer, canvas), canvas, False)
            scores = answer.scores()
            if sieve is not None:  # before anything leaves the device
                if not np.isfinite(
                    scores
                ).all():  # what a box asked for would be missed; what a grid finds would not
                    raise not_finite("segment")
                passed = np.flatnonzero(scores[:, 0] > sieve.min_predicted_iou)
                asked, answer, scores = asked.part(passed), answer.part(passed), scores[passed]
            logits = answer.logits[:, 0].cpu().numpy()
        if sieve is not None:
            return self._sifted(asked.rows, logits, scores, canvas, sieve.min_stability)
        boxes = asked.boxes_for_prior()
        return finished(asked.rows, boxes, logits, scores, canvas, scores_objects=self._scores_objects)

    def _first(self, features: F, asked: Inputs, sieve: Sieve | None, canvas: Canvas) -> tuple[Inputs, Decoded]:
        """One mask a prompt; for a sieve every mask, each with its prompt."""
        three = self._masks != "single" if sieve is None else sieve.three_masks
        mask_input = asked.logits(self._mask_input_hw)
        answer = self._decode(features, asked, mask_input, canvas, three)
        if sieve is not None:
            return asked.part(np.repeat(np.arange(len(asked)), answer.logits.shape[1])), answer.each()
        return asked, answer.only(self._choice(answer, asked.boxes_xyxy, canvas)) if three else answer

    def _again(self, asked: Inputs, answer: Decoded, canvas: Canvas) -> tuple[Inputs, Any]:
        """The next step's prompt and mask input."""
        logits = answer.logits[:, 0]
        if self._refine_with == "mask":
            asked = asked.without_points()
        elif self._refine_with == "point":
            asked = asked.with_point(inner_points(logits.cpu().numpy(), canvas.size_hw))
        return asked, logits.clamp(-_MASK_INPUT_LIMIT, _MASK_INPUT_LIMIT)

    def _choice(self, answer: Decoded, boxes_xyxy: Float32, canvas: Canvas) -> Any:
        """Which of the three masks (N,) stays."""
        if self._masks == "most_stable":
            return stability(answer.logits).argmax(dim=1)
        best = answer.iou.argmax(dim=1)
        if self._masks == "best_iou" or np.isnan(boxes_xyxy).any():
            return best
        return self._tensor(best_fits(answer.logits.cpu().numpy(), boxes_xyxy, canvas))

    def _sifted(
        self, rows: Int64, logits: Float32, scores: Float32, canvas: Canvas, min_stability: float
    ) -> list[PromptedMask]:
        """The stable ones, with their stability at the picture's size. Unstable ones never get a mask."""
        found = []
        for i in range(len(rows)):
            scores[i, 2] = canvas.stability(logits[i], STABILITY_OFFSET)
            if scores[i, 2] >= min_stability:
                found.append(prompted(int(rows[i]), logits[i], scores[i], canvas, self._scores_objects))
        return found

    def _tensor(self, array: Any) -> Any:
        return upload(array, self._device) if isinstance(array, np.ndarray) else array


def to_model_image(image_rgb: UInt8, side: int, device: Any) -> Any:
    """The (3, R, R) float32 input of the encoder, as `SAM2Transforms` makes it; the resize runs on `device`."""
    import torch

    if device.type != "cpu":
        return _stretched_by_torch(image_rgb, side, device)
    from autolabel.ops.stretch import normalized

    return torch.from_numpy(normalized(image_rgb, side, np.array(_MEAN_RGB), np.array(_STD_RGB)))


def _stretched_by_torch(image_rgb: UInt8, side: int, device: Any) -> Any:
    from torch.nn import functional

    image = upload(image_rgb, device).permute(2, 0, 1).contiguous().float().div_(255)
    if image.shape[-2:] != (side, side):
        image = functional.interpolate(
            image[None], (side, side), mode="bilinear", align_corners=False, antialias=True
        )[0]
    return image.sub_(_of_channels(_MEAN_RGB, device)).div_(_of_channels(_STD_RGB, device))


@cache
def _of_channels(values: tuple[float, ...], device: Any) -> Any:
    """(3, 1, 1). Once a device: making it waits until the device has done all that was asked of it before."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor(values, device=device)[:, None, None]
