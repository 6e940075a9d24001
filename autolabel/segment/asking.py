"""How SAM is asked, whatever loads it: where it computes, in what pieces, which mask of three stays, how often again.
The settings that all its segmenters have; holds no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autolabel.ops.device import Precision, choose_device, choose_precision
from autolabel.ops.settings import count, one_of

MASK_CHOICES = ("single", "best_iou", "best_box_fit", "most_stable")
REFINE_WITH = ("prompt", "mask", "point")


@dataclass(frozen=True, slots=True)
class Asking:
    """Checked settings, with numbers where `auto` and 0 left the choice to the device."""

    device: Any
    precision: Precision
    prompt_chunk: int
    encode_batch: int
    masks: str
    refine_steps: int
    refine_with: str


def read_asking(
    *,
    device: str,
    precision: str,
    prompt_chunk: int,
    encode_batch: int,
    masks: str,
    refine_steps: int,
    refine_with: str,
    chunk_on_cuda: int,
) -> Asking:
    """Raises ConfigError naming the key. `chunk_on_cuda` is the `prompt_chunk` that 0 stands for there."""
    count("prompt_chunk", prompt_chunk, 0, 4096)
    count("encode_batch", encode_batch, 0, 63)
    place = choose_device(device)
    on_cuda = place.type == "cuda"
    return Asking(
        device=place,
        precision=choose_precision(precision, place),
        # Large chunks are slower on a CPU (they leave the cache) and faster on a GPU.
        prompt_chunk=prompt_chunk or (chunk_on_cuda if on_cuda else 4),
        encode_batch=encode_batch or (8 if on_cuda else 1),
        masks=one_of("masks", masks, MASK_CHOICES),
        refine_steps=count("refine_steps", refine_steps, 0, 100),
        refine_with=one_of("refine_with", refine_with, REFINE_WITH),
    )
