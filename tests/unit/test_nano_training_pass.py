"""The nano segmenter learns through the product's own forward pass: it has the library's numbers, and its gradients."""

# ruff: noqa: N803  (shape suffixes)

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scripts.nano.segmenter import (
    BOTTOM_RIGHT,
    TOP_LEFT,
    WEIGHTS,
    Decoded,
    build_segmenter,
    decode,
    encode,
    load_weights,
)

SIZE = 128
IMAGE_OF_PROMPT_N = torch.tensor([0, 1, 1, 0, 1])


@pytest.fixture(scope="module")
def model():
    built = build_segmenter(SIZE)
    load_weights(built, WEIGHTS)
    return built


def by_library(
    model, images_B3SS: Tensor, points_NT2: Tensor, labels_NT: Tensor, earlier: Tensor | None
) -> Decoded:
    """As `SAM2ImagePredictor` asks, for prompts of several images."""
    _, levels, _, sizes = model._prepare_backbone_features(model.forward_image(images_B3SS))
    levels[-1] = levels[-1] + model.no_mem_embed
    stride_4, stride_8, stride_16 = (
        level.permute(1, 2, 0).reshape(len(images_B3SS), -1, *size)[IMAGE_OF_PROMPT_N]
        for level, size in zip(levels, sizes, strict=True)
    )
    sparse, dense = model.sam_prompt_encoder(points=(points_NT2, labels_NT), boxes=None, masks=earlier)
    logits, ious, _, object_logits = model.sam_mask_decoder.predict_masks(
        image_embeddings=stride_16,
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[stride_4, stride_8],
    )
    return Decoded(logits, ious, object_logits[:, 0])


def by_product(
    model, images_B3SS: Tensor, points_NT2: Tensor, labels_NT: Tensor, earlier: Tensor | None
) -> Decoded:
    return decode(encode(model, images_B3SS), IMAGE_OF_PROMPT_N, points_NT2, labels_NT, earlier)


@pytest.mark.parametrize("with_mask", [False, True])
def test_answers_and_gradients_are_the_librarys(model, with_mask):
    dice = torch.Generator().manual_seed(0)
    n = len(IMAGE_OF_PROMPT_N)
    images = torch.randn(2, 3, SIZE, SIZE, generator=dice)
    points = torch.rand(n, 2, 2, generator=dice) * SIZE
    labels = torch.tensor([TOP_LEFT, BOTTOM_RIGHT]).expand(n, -1)
    earlier = torch.randn(n, 1, SIZE // 4, SIZE // 4, generator=dice) * 5 if with_mask else None
    wanted = torch.rand(n, 4, SIZE // 4, SIZE // 4, generator=dice)

    answers, gradients = [], []
    for ask in (by_library, by_product):
        model.zero_grad()
        found = ask(model, images, points, labels, earlier)
        answers.append([field.detach() for field in found])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(found.logits_N4hw, wanted)
        (loss + found.ious_N4.sum() + found.object_logits_N.sum()).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for expected, answer in zip(*answers, strict=True):
        torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-4)
    theirs, ours = gradients

    # The bias of a key moves all scores of a softmax alike: the library computes a gradient of rounding errors for it.
    without = {name for name in theirs if name not in ours}
    assert without
    assert all(name.endswith("token_to_image.k_proj.bias") for name in without)
    largest = max(float(gradient.norm()) for gradient in theirs.values())
    assert largest > 0.1
    for name, gradient in theirs.items():
        if name.endswith("k_proj.bias"):
            assert gradient.norm() < 1e-5 * largest
        else:
            assert (ours[name] - gradient).norm() < 1e-4 * gradient.norm() + 1e-6 * largest, name
