"""What can be known of the GPU path without a GPU: devices and types of every tensor, and that a compiler takes it
whole."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from autolabel.ops.device import Chunks
from autolabel.segment import sam2_buckets, sam2_encoder
from autolabel.segment.sam2_buckets import CHOICES, BucketSegmenter
from autolabel.segment.sam2_encoder import ImageEncoder
from tests.unit.test_sam2_encoder import built

SIDE, IMAGES, PROMPTS = 128, 2, 4

pytestmark = pytest.mark.usefixtures("inference")


def buckets(model, choice="single") -> BucketSegmenter:
    return BucketSegmenter(
        model,
        to_input=None,
        encode=ImageEncoder(model),
        within=contextlib.nullcontext,
        images=Chunks(IMAGES),
        prompts=Chunks(PROMPTS),
        choice=choice,
        compile_mode="none",
        fused=None,
    )


def asked(device: str) -> tuple[torch.Tensor, ...]:
    """Of each of PROMPTS boxes the picture, the corners and their labels."""
    corners = torch.rand(PROMPTS, 2, 2, device=device) * SIDE
    return (
        torch.zeros(PROMPTS, dtype=torch.int64, device=device),
        corners,
        torch.tensor([[2, 3]] * PROMPTS, device=device),
    )


@pytest.fixture(scope="module")
def model():
    return built("nano", SIDE)


@pytest.mark.parametrize(("choice", "half"), [*((choice, False) for choice in CHOICES), ("single", True)])
def test_a_compiler_takes_encoder_and_decoder_whole(model, monkeypatch, choice, half):
    """A graph that breaks cannot be one CUDA graph, and a CPU waits at every break."""
    monkeypatch.setattr(
        sam2_encoder, "_quick_products", lambda values: False
    )  # a GPU is never asked, a CPU's graph breaks
    some, pictures = buckets(model, choice), torch.rand(IMAGES, 3, SIDE, SIDE)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        whole = torch.compile(some._encode, backend="eager", fullgraph=True)
        embedding, high_res = whole(pictures)
        torch.testing.assert_close(embedding, some._encode(pictures)[0])
        side, prompts = some._decoder.image_side(embedding, high_res), asked("cpu")
        whole = torch.compile(some._maps_of, backend="eager", fullgraph=True)
        torch.testing.assert_close(whole(side, *prompts), some._maps_of(side, *prompts))


@contextlib.contextmanager
def autocast_on_cuda(precision: str):
    """torch.autocast refuses where there is no CUDA; this is what it sets."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", precision == "bfloat16")
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


def as_if_on_cuda(model, fake: FakeTensorMode):
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = fake.from_tensor(parameter).to("cuda")
                module._parameters[name] = torch.nn.Parameter(there, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake.from_tensor(buffer).to("cuda")
    return model


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["nano", "sam2.1/sam2.1_hiera_t.yaml"])
def test_all_tensors_are_on_the_device_and_of_types_that_fit(monkeypatch, architecture, precision):
    monkeypatch.setattr(sam2_buckets, "Copies", lambda device: None)  # streams are nothing that can be imitated
    loaded = built(architecture, SIDE)
    with FakeTensorMode() as fake, autocast_on_cuda(precision):
        some = buckets(as_if_on_cuda(loaded, fake))
        pictures = torch.empty(IMAGES, 3, SIDE, SIDE, device="cuda")
        embedding, high_res = some._encode(pictures)
        maps, scores = some._maps_of(some._decoder.image_side(embedding, high_res), *asked("cuda"))
        one = some._decoder.image_side(embedding[:1], tuple(level[:1] for level in high_res))
        _, corners, labels = asked("cuda")
        earlier = torch.empty(PROMPTS, 1, SIDE // 4, SIDE // 4, device="cuda")
        sparse, dense = some._decoder.embed((corners, labels), earlier)
        masked = some._decoder(some._decoder.with_masks(one, embedding[:1], dense), None, sparse)
    assert {one.device.type for one in (embedding, *high_res, maps, scores, masked.logits)} == {"cuda"}
    assert {maps.dtype, scores.dtype} == {torch.float32}
    # What only products read is held as they read it; what is added to has all its digits.
    assert (one.placed.dtype, one.keys.dtype) == (getattr(torch, precision), torch.float32)
    assert {masked.iou.dtype, masked.logits.dtype, sparse.dtype, dense.dtype} == {torch.float32}
    assert (maps.shape, scores.shape) == ((PROMPTS, SIDE // 4, SIDE // 4), (PROMPTS, 3))
    assert masked.logits.shape == (PROMPTS, 4, SIDE // 4, SIDE // 4)
