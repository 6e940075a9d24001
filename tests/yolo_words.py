"""Small worded models of ultralytics with random weights, and vectors for their words: no download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from autolabel.detect.yolo import load_detector
from autolabel.weights.quiet import ultralytics_at_bay


def vectors(path: Path, phrases: Sequence[str]) -> str:
    """A file with a vector for each phrase."""
    random = np.random.default_rng(0)
    save_file({phrase: random.normal(size=512).astype(np.float32) for phrase in phrases}, path)
    return str(path)


def checkpoint(path: Path, architecture: str) -> str:
    """A model whose scores spread."""
    with ultralytics_at_bay():
        model = load_detector("random:0", architecture).model
        with torch.no_grad():
            for contrast in model.model[-1].cv4:
                contrast.bias.fill_(0.0)
                contrast.logit_scale.fill_(1.0)
        torch.save({"model": model.eval()}, path)
    return str(path)
