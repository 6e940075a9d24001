"""The models on a CUDA device: the CPU's objects, within what another arithmetic may move."""

from __future__ import annotations

import gc
import json
import re
from typing import Any

import numpy as np
import pytest
import torch

from autolabel.app import precision
from autolabel.app.demo import sample_folder
from autolabel.app.main import main
from autolabel.core.types import Frame, ImageInfo, ImageRef, Prompts
from autolabel.detect.yolo import YoloDetector
from autolabel.detect.yolo_words import YoloWordsDetector
from autolabel.ops.device import autocast
from autolabel.ops.masks import iou
from autolabel.segment.sam2 import Sam2Segmenter
from autolabel.segment.sam2_buckets import flattened
from autolabel.segment.sam2_decoder import _scores
from tests import yolo_words

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

BOXES = np.array([[20, 30, 90, 110], [60, 10, 150, 60], [5, 70, 155, 118]], np.float32)


def frame(seed: int) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8)
    return Frame(ImageRef("a", "a"), coarse.repeat(8, 0).repeat(8, 1), ImageInfo(160, 120))


def built(device: str, arithmetic: str, **changed: Any) -> Sam2Segmenter:
    settings = {"prompt_chunk": 0, "encode_batch": 0, "masks": "single", "refine_steps": 0,
                "refine_with": "prompt", **changed}  # fmt: skip
    return Sam2Segmenter(
        weights="nano_segmenter", architecture="nano", device=device, precision=arithmetic, **settings
    )


def masks(device: str, arithmetic: str, batches: int = 1, **changed: Any):
    """Of three pictures a batch, one batch after the other."""
    segmenter = built(device, arithmetic, **changed)
    answers = []
    for first in range(0, 3 * batches, 3):
        frames = [frame(seed) for seed in range(first, first + 3)]
        answers += segmenter.segment(frames, [Prompts(boxes_xyxy=BOXES)] * 3)
    return [answer.mask for found in answers for answer in found]


@pytest.mark.parametrize(("arithmetic", "least"), [("float32", 0.99), ("bfloat16", 0.9)])
def test_masks_are_those_of_the_cpu(arithmetic, least):
    pairs = zip(masks("cpu", "float32"), masks("cuda", arithmetic), strict=True)
    assert np.mean([iou(a, b) for a, b in pairs]) >= least


def test_chunks_and_batches_do_not_change_masks():
    pairs = zip(masks("cuda", "float32"), masks("cuda", "float32", prompt_chunk=1, encode_batch=1), strict=True)
    assert min(iou(a, b) for a, b in pairs) >= 0.99


def test_buckets_give_the_masks_of_picture_by_picture():
    pairs = zip(
        masks("cuda", "float32", batching="bucket"), masks("cuda", "float32", batching="image"), strict=True
    )
    assert min(iou(a, b) for a, b in pairs) >= 0.99


@pytest.fixture
def no_graphs_left():
    """CUDA graphs keep their memory until torch forgets what it compiled."""
    yield
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize(("arithmetic", "least"), [("float32", 0.99), ("bfloat16", 0.9)])
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_networks_give_the_same_masks(mode, arithmetic, least, no_graphs_left):
    # A CUDA graph is recorded by the second call and replayed, over the answers before, by the third.
    found = masks("cuda", arithmetic, batches=4, compile_mode=mode)
    pairs = list(zip(found, masks("cpu", "float32", batches=4), strict=True))
    for batch in range(4):
        assert np.mean([iou(a, b) for a, b in pairs[9 * batch : 9 * batch + 9]]) >= least


def test_nobody_waits_for_the_device_before_its_answers():
    segmenter = built("cuda", "float32")
    buckets = segmenter._buckets
    assert buckets is not None
    images = [frame(seed).image_rgb for seed in range(3)]
    asked = flattened([Prompts(boxes_xyxy=BOXES)] * 3, [(120, 160)] * 3, segmenter._model.image_size)[0]
    for mode in ("default", "error"):  # the first time, for what is made once
        torch.cuda.set_sync_debug_mode(mode)
        try:
            side = buckets._side(images)
            with segmenter._computing():
                waiting = buckets._copies.to_host(buckets._bucket(side, asked))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert [values.shape[0] for values in waiting.values()] == [9, 9]


def test_auto_is_decided_by_a_trial_on_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "ONE_OF", 1)
    monkeypatch.setattr(precision, "FEWEST", 1)
    run = tmp_path / "run"
    words = ["label", str(sample_folder()), "detect=nano", "segment=nano", "segment.precision=auto", f"run={run}"]
    assert main(words) == 0
    told = json.loads((run / "summary.json").read_text())["precision"]
    decided, mean, apart = re.fullmatch(
        r"(float32|bfloat16): .* mean IoU ([0-9.]+), (\d+) below 0.97", told
    ).groups()
    # Of five objects: which it is, is no matter here; that it follows from what was seen is.
    assert decided == ("bfloat16" if float(mean) >= 0.995 and apart == "0" else "float32")
    assert f"precision: {decided}" in (run / "config.yaml").read_text()


@pytest.mark.parametrize("images", [1, 3])
def test_scores_of_bfloat16_factors_come_out_as_float32(images):
    rows, placed = torch.randn(3, 72, 256, device="cuda"), torch.randn(images, 4096, 256, device="cuda").bfloat16()
    with torch.inference_mode():
        found = _scores(rows, placed.transpose(1, 2))
        expected = rows.bfloat16().float() @ placed.float().transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_float32_has_all_its_digits_whoever_asked_for_less():
    a, b = torch.randn(512, 512, device="cuda"), torch.randn(512, 512, device="cuda")
    kernel, image = torch.randn(64, 64, 3, 3, device="cuda"), torch.randn(1, 64, 64, 64, device="cuda")
    torch.set_float32_matmul_precision("high")
    try:
        with autocast("cuda", "float32"):
            found = a @ b, torch.nn.functional.conv2d(image, kernel)
    finally:
        torch.set_float32_matmul_precision("highest")
    expected = a.double() @ b.double(), torch.nn.functional.conv2d(image.double(), kernel.double())
    for ours, exact in zip(found, expected, strict=True):
        assert float((ours - exact).abs().max() / exact.abs().max()) < 1e-5  # TF32: some 1e-4


def test_a_device_without_room_halves_its_buckets_and_answers_all():
    segmenter = built("cuda", "float32")
    frames, asked = [frame(seed) for seed in range(8)], [Prompts(boxes_xyxy=np.tile(BOXES, (8, 1)))] * 8
    expected = segmenter.segment(frames, asked)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    segmenter.segment(frames[:1], [Prompts(boxes_xyxy=BOXES)])
    room = 2 * torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        found = segmenter.segment(frames, asked)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert segmenter._prompts_at_once.size < 128 or segmenter._images_at_once.size < 8, "there was room"
    for ours, theirs in zip(found, expected, strict=True):
        assert [answer.prompt for answer in ours] == list(range(24))
        assert min(iou(a.mask, b.mask) for a, b in zip(ours, theirs, strict=True)) >= 0.99


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


def test_words_find_the_classes_that_they_find_on_the_cpu(tmp_path):
    weights = yolo_words.checkpoint(tmp_path / "world.pt", "yolov8s-worldv2.yaml")
    # With these vectors it is the last phrase that finds the most.
    text = yolo_words.vectors(tmp_path / "text.safetensors", ("person", "forklift", "worker"))
    found = []
    for device in ("cpu", "cuda"):
        detector = YoloWordsDetector(
            weights=weights, architecture=None, ontology={"man": ["person", "worker"], "lift": "forklift"}, text=text,
            conf=0.51, iou=0.7, max_det=300, image_size=320, batch=2, device=device, precision="float32",
        )  # fmt: skip
        ids = np.concatenate([boxes.category_ids for boxes in detector.detect([frame(0), frame(1), frame(2)])])
        found.append(np.bincount(ids, minlength=3))
    assert found[0][2] > 0
    assert np.allclose(found[0], found[1], rtol=0.1)
