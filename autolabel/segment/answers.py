"""From the maps of a mask decoder to scored masks of a picture. Holds no model and asks nothing.

Letters in shapes: N prompts, M masks of one prompt, h and w the low-resolution mask, H and W the picture.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from autolabel.core.types import Float32, Int64, PromptedMask, Rle
from autolabel.ops.box_prior import BoxPrior
from autolabel.ops.boxes import iou_xyxy
from autolabel.ops.masks import bounds_xyxy
from autolabel.ops.masks import encode as encode_mask

logger = logging.getLogger(__name__)

STABILITY_OFFSET = 1.0
NO_BOX: Float32 = np.full(4, np.nan, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What the decoder says to N prompts: unclamped float32 `logits` (N, M, h, w), predicted `iou` (N, M), and the
    logit of there being an object, `object_logit` (N, 1)."""

    logits: Any
    iou: Any
    object_logit: Any

    def only(self, chosen: Any) -> Decoded:
        """One mask a prompt: that of number `chosen` (N,)."""
        import torch

        row = torch.arange(len(chosen), device=self.logits.device)
        return Decoded(self.logits[row, chosen][:, None], self.iou[row, chosen][:, None], self.object_logit)

    def part(self, rows: Int64) -> Decoded:
        """The answers to some of the prompts."""
        import torch

        index = torch.from_numpy(rows).to(self.logits.device)
        return Decoded(self.logits[index], self.iou[index], self.object_logit[index])

    def each(self) -> Decoded:
        """Every mask as the answer to a prompt of its own, in order."""
        m = self.logits.shape[1]
        return Decoded(
            self.logits.flatten(0, 1)[:, None],
            self.iou.flatten()[:, None],
            self.object_logit.repeat_interleave(m, dim=0),
        )

    def scores(self) -> Float32:
        """`scored` on the host."""
        scores: Float32 = self.scored().cpu().numpy()
        return scores

    def scored(self) -> Any:
        """Predicted IoU, object score and stability (N, 3) of one mask per prompt; NaN where the map is not finite."""
        import torch

        values = [self.iou.float(), self.object_logit.float().sigmoid(), stability(self.logits)]
        # A NaN or an infinity anywhere in the map must show in the row's scores.
        finite = torch.isfinite(self.logits).flatten(1).all(dim=1, keepdim=True)
        return torch.where(finite, torch.cat(values, dim=1), torch.nan)


@dataclass(frozen=True, slots=True)
class Canvas:
    """What masks are drawn on: a whole picture. `fused` is what `matching_arithmetic` found; no answer without a
    `prior` depends on it."""

    size_hw: tuple[int, int]
    fused: bool | None
    prior: BoxPrior | None = None

    def rle(self, logits_hw: Float32) -> Rle:
        return logits_rle(logits_hw, self.size_hw, self.fused)

    def rle_of_box(self, logits_hw: Float32, box_xyxy: Float32) -> Rle:
        """With what the prior says of the box (4,), where it says something; NaN is not a box."""
        if self.prior is None or np.isnan(box_xyxy).any():
            return self.rle(logits_hw)
        found = self.prior.rle(logits_hw, box_xyxy, self.size_hw, fused=bool(self.fused))
        return self.rle(logits_hw) if found is None else found

    def stability(self, logits_hw: Float32, offset: float) -> float:
        """IoU of the masks above `+offset` and above `-offset` at the picture's size; NaN where both are empty, as
        in sam2/utils/amg.py."""
        inner, outer = (
            logits_area(logits_hw - np.float32(shift), self.size_hw, self.fused) for shift in (offset, -offset)
        )
        return inner / outer if outer else float("nan")


def best_fits(logits: Float32, boxes_xyxy: Float32, canvas: Canvas) -> Int64:
    """For each prompt the one of its masks, logits (N, M, h, w), whose tight box has the highest IoU with its box
    (N, 4)."""
    fits = np.zeros(logits.shape[:2])
    for i, m in np.ndindex(fits.shape):
        bounds = bounds_xyxy(canvas.rle(logits[i, m])) or (0, 0, 0, 0)
        fits[i, m] = iou_xyxy(boxes_xyxy[i : i + 1], np.array([bounds], np.float32))[0, 0]
    return fits.argmax(axis=1)


def finished(
    rows: Int64, boxes_xyxy: Float32, logits: Float32, scores: Float32, canvas: Canvas, *, scores_objects: bool
) -> list[PromptedMask]:
    """Every finite answer of logits (N, h, w) with `Decoded.scores` (N, 3); a NaN in the map shows in the scores.
    `boxes_xyxy` (N, 4) are those that a prior may go by, NaN where there is none."""
    numbers = rows.tolist()
    return [
        prompted(numbers[i], logits[i], scores[i], canvas, scores_objects, boxes_xyxy[i])
        for i in np.flatnonzero(np.isfinite(scores).all(axis=1)).tolist()
    ]


def prompted(
    row: int,
    logits_hw: Float32,
    scores: Float32,
    canvas: Canvas,
    scores_objects: bool,
    box_xyxy: Float32 = NO_BOX,
) -> PromptedMask:
    """The answer to prompt `row`. Without an object head the decoder states a constant, which is left out."""
    predicted_iou, object_score, stable = scores.tolist()
    mask = canvas.rle_of_box(logits_hw, box_xyxy)
    return PromptedMask(row, mask, predicted_iou, object_score if scores_objects else None, stable)


def stability(logits: Any) -> Any:
    """Stability of logits (N, M, h, w): the IoU (N, M) of the masks above +1 and above -1; 0 where both are empty."""
    inner = (logits > STABILITY_OFFSET).flatten(2).sum(dim=2)
    outer = (logits > -STABILITY_OFFSET).flatten(2).sum(dim=2)
    return inner / outer.clamp(min=1)


def logits_rle(logits_hw: Float32, size_hw: tuple[int, int], fused: bool | None) -> Rle:
    """The mask `upsampled logits > 0` of one finite low-resolution map; no answer depends on `fused`.

    `fused` is what `matching_arithmetic` found. Where it found nothing, and for tiny pictures, the mask is
    made at full size, one at a time: many boxes on a large picture must not hold all of theirs together.
    """
    from autolabel.ops.rle import logits_to_rle

    if _is_direct(size_hw, fused):
        return logits_to_rle(logits_hw, size_hw, fused=bool(fused))
    return encode_mask(_full_mask(logits_hw, size_hw))


def logits_area(logits_hw: Float32, size_hw: tuple[int, int], fused: bool | None) -> int:
    """Pixels of that mask."""
    from autolabel.ops.rle import logits_area_px

    if _is_direct(size_hw, fused):
        return logits_area_px(logits_hw, size_hw, fused=bool(fused))
    return int(_full_mask(logits_hw, size_hw).sum())


def _is_direct(size_hw: tuple[int, int], fused: bool | None) -> bool:
    from autolabel.ops.rle import SMALLEST_H_PLUS_W

    return fused is not None and sum(size_hw) >= SMALLEST_H_PLUS_W


def _full_mask(logits_hw: Float32, size_hw: tuple[int, int]) -> np.ndarray:
    import torch
    from torch.nn import functional

    logits_11hw = torch.from_numpy(logits_hw)[None, None]
    full = functional.interpolate(logits_11hw, size_hw, mode="bilinear", align_corners=False)
    mask: np.ndarray = (full[0, 0] > 0).numpy()
    return mask


@cache
def matching_arithmetic() -> bool | None:
    """The `fused` with which `ops.rle` computes as torch does on this CPU, bit for bit; None when neither does."""
    import torch
    from torch.nn import functional

    from autolabel.ops.rle import interpolate

    probe = np.random.default_rng(0).normal(size=(24, 20)).astype(np.float32)
    size_hw = (90, 110)
    torchs = functional.interpolate(torch.from_numpy(probe)[None, None], size_hw, mode="bilinear")[0, 0].numpy()
    for fused in (True, False):
        if np.array_equal(interpolate(probe, size_hw, fused=fused), torchs):
            return fused
    logger.info("masks are made at full size: this CPU's arithmetic is not one that ops.rle knows")
    return None
