"""The models on a CUDA device: the CPU's objects, within what another arithmetic may move."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autolabel.core.types import Frame, ImageInfo, ImageRef, Prompts
from autolabel.detect.yolo import YoloDetector
from autolabel.ops.masks import iou
from autolabel.segment.sam2 import Sam2Segmenter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

BOXES = np.array([[20, 30, 90, 110], [60, 10, 150, 60], [5, 70, 155, 118]], np.float32)


def frame(seed: int) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8)
    return Frame(ImageRef("a", "a"), coarse.repeat(8, 0).repeat(8, 1), ImageInfo(160, 120))


def masks(device: str, precision: str, **sizes: int):
    settings = {"prompt_chunk": 0, "encode_batch": 0, "masks": "single", "refine_steps": 0,
                "refine_with": "prompt", **sizes}  # fmt: skip
    segmenter = Sam2Segmenter(
        weights="nano_segmenter", architecture="nano", device=device, precision=precision, **settings
    )
    frames = [frame(seed) for seed in range(3)]
    answers = segmenter.segment(frames, [Prompts(boxes_xyxy=BOXES)] * 3)
    return [answer.mask for found in answers for answer in found]


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99), ("bfloat16", 0.9)])
def test_masks_are_those_of_the_cpu(precision, least):
    pairs = zip(masks("cpu", "float32"), masks("cuda", precision), strict=True)
    assert np.mean([iou(a, b) for a, b in pairs]) >= least


def test_chunks_and_batches_do_not_change_masks():
    pairs = zip(masks("cuda", "float32"), masks("cuda", "float32", prompt_chunk=1, encode_batch=1), strict=True)
    assert min(iou(a, b) for a, b in pairs) >= 0.99


@pytest.mark.parametrize("architecture", ["yolo11n.yaml", "yolo26n.yaml", "rtdetr-l.yaml"])
def test_boxes_are_those_of_the_cpu(architecture):
    found = []
    for device in ("cpu", "cuda"):
        detector = YoloDetector(
            weights="random:0", architecture=architecture, conf=0.0, iou=0.7, max_det=300, image_size=320, batch=2,
            device=device, precision="float32", classes=None, agnostic_nms=False,
        )  # fmt: skip
        found.append([len(boxes) for boxes in detector.detect([frame(0), frame(1), frame(2)])])
    assert np.allclose(found[0], found[1], rtol=0.1)
