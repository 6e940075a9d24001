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


def checkpoint(path: Path, architecture: str, *, chooses_itself: bool = False) -> str:
    """A model whose scores spread; one that `chooses_itself` has the head without NMS alone."""
    with ultralytics_at_bay():
        model = load_detector("random:0", architecture).model
        head = model.model[-1]
        with torch.no_grad():
            for contrast in head.one2one_cv4 if chooses_itself else head.cv4:
                contrast.bias.fill_(0.0)
                contrast.logit_scale.fill_(1.0)
        if chooses_itself:
            head.cv2 = head.cv3 = head.cv4 = None
        model.task = "segment" if hasattr(head, "proto") else "detect"
        torch.save({"model": model.eval()}, path)
    return str(path)
