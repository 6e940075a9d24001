"""A few minutes of school for the decoder before it sees a picture: what a box prompt means.

From nothing, SAM's decoder stays at "no pixel is object" for a hundred steps and more, because a mask can
only follow a box through two attentions that both point nowhere. Here the image features are noise and the
target is the ellipse in the box, so that a step costs a fifth of a real one; and the attentions start out
looking where a prompt points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PROMPTS = 48


def look_where_prompts_point(model: Any, gain: float = 2.0) -> None:
    """Equal query and key projections: equal position codes attract each other from the first step."""
    transformer = model.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        for attention in attentions:
            attention.q_proj.weight.mul_(gain)
            attention.k_proj.weight.copy_(attention.q_proj.weight)


def draw_lesson(size_px: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor, Tensor]:
    """Features of noise (one image a prompt), boxes (N, 2, 2) as corners, ellipses (N, h, w)."""
    centers = torch.rand(PROMPTS, 2, generator=generator) * size_px
    sides = size_px * 0.06 * torch.exp(torch.rand(PROMPTS, 2, generator=generator) * 2.7)
    low = (centers - sides / 2).clamp(0, size_px * 0.96)
    high = torch.maximum((centers + sides / 2).clamp(0, size_px), low + size_px * 0.03)
    grid = torch.arange(size_px // 4) * 4 + 2.0
    middle, radius = (low + high) / 2, (high - low) / 2
    x, y = ((grid[None] - middle[:, axis, None]) / radius[:, axis, None] for axis in (0, 1))
    ellipses = (x[:, None, :] ** 2 + y[:, :, None] ** 2 < 1).float()
    features = [
        torch.randn(PROMPTS, channels, size_px // stride, size_px // stride, generator=generator) * 0.3
        for channels, stride in ((16, 4), (32, 8), (128, 16))
    ]
    return features, torch.stack([low, high], 1), ellipses


def teach_boxes(
    model: Any,
    lesson_loss: Callable[[list[Tensor], Tensor, Tensor], tuple[Tensor, float]],
    take_step: Callable[[int], None],
    *,
    steps: int,
    seed: int,
    report: Callable[[int, float], None],
) -> None:
    look_where_prompts_point(model)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        loss, iou = lesson_loss(*draw_lesson(model.image_size, generator))
        loss.backward()
        take_step(step)
        if step % 20 == 19:
            report(step + 1, iou)
