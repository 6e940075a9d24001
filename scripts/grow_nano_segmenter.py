"""Weights of a nano segmenter with fewer blocks, as weights of the one in nano.yaml that answer the same: what is new begins as
nothing (its last products are zero) and learns from there (Chen et al. 2016, "Net2Net", for blocks with a way around them).

    python -m scripts.grow_nano_segmenter --weights SMALL.safetensors --out LARGE.safetensors

A new block starts as a copy of its stage's last one, as far as their shapes agree, else at random.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from scripts.nano.segmenter import build_segmenter, save_weights

BLOCKS = "image_encoder.trunk.blocks."
LAST_PRODUCTS = ("attn.proj.", "mlp.layers.1.")
"""Of the two parts of a block, each of which is added to what came in."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    state = grown(
        {key: value.float() for key, value in load_file(args.weights).items()}, build_segmenter().state_dict()
    )
    save_weights(state, args.out)
    about = json.loads(args.weights.with_suffix(".json").read_text("utf-8"))
    about |= {"sha256": hashlib.sha256(args.out.read_bytes()).hexdigest(), "grown_from": about["sha256"]}
    args.out.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")


def grown(small: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`fresh` weights of the larger model with those of the small one in place. Raises ValueError where it has fewer blocks."""
    taken, spare = counterparts(blocks_by_stage(small), blocks_by_stage(fresh))
    state = {}
    for key, value in fresh.items():
        number, _, part = key.removeprefix(BLOCKS).partition(".")
        if not key.startswith(BLOCKS):
            state[key] = small[key]
        elif int(number) in taken:
            state[key] = small[f"{BLOCKS}{taken[int(number)]}.{part}"]
        elif part.startswith(LAST_PRODUCTS):
            state[key] = torch.zeros_like(value)
        else:
            model = small.get(f"{BLOCKS}{spare[int(number)]}.{part}", value)
            state[key] = model if model.shape == value.shape else value
    return state


def blocks_by_stage(state: Mapping[str, Tensor]) -> list[list[int]]:
    """The numbers of the blocks of each stage; a stage is as wide as its output."""
    widths: dict[int, list[int]] = {}
    for key, value in state.items():
        if key.startswith(BLOCKS) and key.endswith(".attn.proj.bias"):
            widths.setdefault(len(value), []).append(int(key.removeprefix(BLOCKS).partition(".")[0]))
    return [sorted(widths[width]) for width in sorted(widths)]


def counterparts(small: list[list[int]], large: list[list[int]]) -> tuple[dict[int, int], dict[int, int]]:
    """For each block of the large model the small one's, or where it has none, the one to begin as a copy of."""
    taken, spare = {}, {}
    for old, new in zip(small, large, strict=True):
        if len(new) < len(old):
            raise ValueError(f"a stage of {len(old)} blocks does not fit into one of {len(new)}")
        taken |= dict(zip(new, old, strict=False))
        spare |= dict.fromkeys(new[len(old) :], old[-1])
    return taken, spare


if __name__ == "__main__":
    main()
