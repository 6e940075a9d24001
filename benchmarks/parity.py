"""How near masks are to the reference's: IoU, selection flips, scores. What cannot be told never counts as near.

Letters: an answer is a mask and its predicted IoU; a choice is the number of the one of four masks that a prompt got.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from autolabel.core.types import Rle
from autolabel.ops.masks import iou
from autolabel.segment.sam2 import hydra_left_alone
from autolabel.segment.sam2_buckets import Asked, BucketSegmenter
from autolabel.segment.sam2_decoder import ImageSide


@dataclass(frozen=True, slots=True)
class Answer:
    """To one prompt: its mask, and what the model takes that mask's IoU for."""

    mask: Rle
    score: float


Answers = list[list[Answer | None]]
"""Of each picture, an entry a prompt, in order; None for one that went unanswered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How near masks have to be to the reference's: IoU, and the share of prompts that got another of the four
    masks."""

    mean: float
    percentile_1: float
    flips: float


LIMITS = {"float32": Limits(0.9999, 0.999, 0.0), "bfloat16": Limits(0.995, 0.97, 0.005)}
"""By what the masks were computed in."""


def told() -> str:
    """What the columns mean, for a page."""
    some = [
        f"{name}: mean IoU {one.mean:g}, 1st percentile {one.percentile_1:g}, flips {one.flips * 100:g} %"
        for name, one in LIMITS.items()
    ]
    return f"Flips: prompts that got another of the four masks. Scores: predicted IoU. Limits, {'; '.join(some)}."


@dataclass(frozen=True, slots=True)
class Parity:
    """Of `prompts` prompts: mean, 1st percentile and least IoU with the reference's masks, how many masks are
    identical, how many prompts one of the two left unanswered (their IoU is 0), how many got another of the four
    masks (None: not known), and the largest and the mean absolute difference of the scores (NaN where nothing was
    answered)."""

    prompts: int
    mean: float
    percentile_1: float
    least: float
    identical: int
    unanswered: int
    flipped: int | None
    score_largest: float
    score_mean: float

    def within(self, limits: Limits) -> bool | None:
        """None where it cannot be told."""
        if self.unanswered or not (self.mean >= limits.mean and self.percentile_1 >= limits.percentile_1):
            return False
        return None if self.flipped is None else self.flipped <= limits.flips * self.prompts


def parity(reference: Answers, found: Answers, chosen: Sequence[int], choices: Sequence[int]) -> Parity | None:
    """None where there is nothing to compare. `chosen` are the reference's choices. Raises ValueError where the two are
    not about the same pictures and prompts."""
    pairs = [(a, b) for x, y in zip(reference, found, strict=True) for a, b in zip(x, y, strict=True)]
    if not pairs:
        return None
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    ious = [1.0 if a.mask == b.mask else iou(a.mask, b.mask) for a, b in both] + [0.0] * (len(pairs) - len(both))
    apart = [abs(a.score - b.score) for a, b in both] or [float("nan")]
    return Parity(
        prompts=len(pairs),
        mean=float(np.mean(ious)),
        percentile_1=float(np.percentile(ious, 1)),
        least=min(ious),
        identical=sum(a.mask == b.mask for a, b in both),
        unanswered=len(pairs) - len(both),
        flipped=flips(chosen, choices, len(pairs)),
        score_largest=max(apart),
        score_mean=float(np.mean(apart)),
    )


def flips(chosen: Sequence[int], choices: Sequence[int], prompts: int) -> int | None:
    """How many prompts got another one of the four masks; None where the choices are not one a prompt."""
    if not len(chosen) == len(choices) == prompts:
        return None
    return sum(a != b for a, b in zip(chosen, choices, strict=True))


def cells(found: Parity | None, limits: Limits, missing: str = "no masks") -> dict[str, str]:
    """What a table says of it; where there is none, why."""
    if found is None:
        titles = ("1st percentile", "least", "identical", "flips", "score apart: most, mean")
        return {"mean IoU": missing, **dict.fromkeys(titles, ""), "within its limits": ""}
    verdict = {True: "yes", False: "**no**", None: "**unknown**"}[found.within(limits)]
    unanswered = f", {found.unanswered} unanswered" if found.unanswered else ""
    return {
        "mean IoU": f"{found.mean:.5f}",
        "1st percentile": f"{found.percentile_1:.5f}",
        "least": f"{found.least:.5f}",
        "identical": f"{found.identical} of {found.prompts}{unanswered}",
        "flips": "unknown" if found.flipped is None else f"{found.flipped} of {found.prompts}",
        "score apart: most, mean": f"{found.score_largest:.1e}, {found.score_mean:.1e}",
        "within its limits": verdict,
    }


@contextmanager
def choices() -> Iterator[list[int]]:
    """Which of its four masks each prompt got meanwhile, in the order of the calls, whoever asked: sam2's
    `build_sam.py` has an unstable mask replaced by the best of three, and a last digit can tip that. Waits for the
    device: not for what is timed."""
    import torch

    with hydra_left_alone():
        from sam2.modeling.sam.mask_decoder import MaskDecoder

    chosen: list[int] = []
    choose, bucket = MaskDecoder._dynamic_multimask_via_stability, BucketSegmenter._bucket

    def watched(decoder: Any, logits: Any, iou: Any) -> Any:
        stable = decoder._get_stability_scores(logits[:, :1]) >= decoder.dynamic_multimask_stability_thresh
        chosen.extend(torch.where(stable[:, 0], 0, 1 + iou[:, 1:].argmax(-1)).tolist())
        return choose(decoder, logits, iou)

    def of_real_rows(self: BucketSegmenter, images: ImageSide, asked: Asked) -> tuple[Any, ...]:
        before, real = len(chosen), 0
        try:
            maps = bucket(self, images, asked)
            real = len(asked)
        finally:
            # A compiled bucket is padded with copies of its last row; one that did not fit in memory is asked again.
            del chosen[before + real :]
        return maps

    MaskDecoder._dynamic_multimask_via_stability = watched
    BucketSegmenter._bucket = of_real_rows  # type: ignore[method-assign]  # whoever asks is to be watched
    try:
        yield chosen
    finally:
        MaskDecoder._dynamic_multimask_via_stability = choose
        BucketSegmenter._bucket = bucket  # type: ignore[method-assign]  # as it was
