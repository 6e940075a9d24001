"""A nano segmenter with more blocks begins with the answers of the one it grew from."""

import json
import sys

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from scripts import grow_nano_segmenter
from scripts.nano import segmenter
from scripts.nano.segmenter import WEIGHTS, build_segmenter, encode, load_weights


def more_blocks(folder, monkeypatch, stages, wide):
    """nano.yaml with other blocks, of which `wide` see the whole picture, takes its place."""
    config = OmegaConf.load(segmenter.ARCHITECTURE)
    config.model.image_encoder.trunk.stages = stages
    config.model.image_encoder.trunk.global_att_blocks = wide
    path = folder / f"{sum(stages)}.yaml"
    OmegaConf.save(config, path)
    monkeypatch.setattr(segmenter, "ARCHITECTURE", path)


def grow(folder, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["grow", "--weights", str(WEIGHTS), "--out", str(folder / "large.safetensors")]
    )
    grow_nano_segmenter.main()


def test_the_larger_model_sees_what_the_small_one_saw(tmp_path, monkeypatch):
    small, images = build_segmenter(128), torch.randn(1, 3, 128, 128)
    load_weights(small, WEIGHTS)
    trunk = OmegaConf.load(segmenter.ARCHITECTURE).model.image_encoder.trunk
    first, second, third, fourth = trunk.stages
    fourth_begins = first + second + third
    moved = [n if n < fourth_begins else n + 2 for n in trunk.global_att_blocks]
    more_blocks(tmp_path, monkeypatch, [first, second, third + 2, fourth + 1], [*moved, fourth_begins + 1])
    grow(tmp_path, monkeypatch)
    large = build_segmenter(128)
    load_weights(large, tmp_path / "large.safetensors")
    assert len(large.image_encoder.trunk.blocks) == sum(trunk.stages) + 3
    with torch.no_grad():
        for found, expected in zip(encode(large, images), encode(small, images), strict=True):
            assert torch.equal(found, expected)
    about = json.loads((tmp_path / "large.json").read_text())
    assert about["grown_from"] == json.loads(WEIGHTS.with_suffix(".json").read_text())["sha256"]


def test_what_is_new_can_learn(tmp_path, monkeypatch):
    more_blocks(tmp_path, monkeypatch, [1, 2, 8, 2], [4, 5])
    grow(tmp_path, monkeypatch)
    large = build_segmenter(128)
    load_weights(large, tmp_path / "large.safetensors")
    encode(large, torch.randn(1, 3, 128, 128))[-1].square().mean().backward()
    assert large.image_encoder.trunk.blocks[10].attn.proj.weight.grad.abs().max() > 0


def test_a_smaller_model_is_refused(tmp_path, monkeypatch):
    more_blocks(tmp_path, monkeypatch, [1, 1, 2, 1], [3])
    with pytest.raises(ValueError, match="does not fit into one of"):
        grow_nano_segmenter.grown(load_file(WEIGHTS), build_segmenter(128).state_dict())
