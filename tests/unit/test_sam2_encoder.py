"""The image encoder, against the library's own, over the shapes that published and other models have."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from autolabel.segment import sam2_encoder
from autolabel.segment.sam2 import load_model, read_architecture
from autolabel.segment.sam2_encoder import ImageEncoder, attention_by_products

pytestmark = pytest.mark.usefixtures("one_thread", "inference")


def built(architecture: str, image_size: int, **neck):
    config = OmegaConf.create(read_architecture(architecture))
    config.model.image_size = image_size
    config.model.image_encoder.neck.update(neck)
    model, _ = load_model(OmegaConf.to_yaml(config), "random:3")
    return model.eval()


def library(model, images):
    """As `SAM2ImagePredictor.set_image_batch` prepares them."""
    _, features, _, sizes = model._prepare_backbone_features(model.forward_image(images))
    if model.directly_add_no_mem_embed:
        features[-1] = features[-1] + model.no_mem_embed
    return [
        feature.permute(1, 2, 0).reshape(len(images), -1, *size)
        for feature, size in zip(features, sizes, strict=True)
    ]


def largest_error(model, encoder: ImageEncoder, count: int) -> float:
    side = model.image_size
    images = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    embedding, fine = encoder(images)
    expected = library(model, images)
    assert [level.shape for level in (*fine, embedding)] == [level.shape for level in expected]
    return max(
        float((ours - theirs).abs().max() / theirs.abs().mean())
        for ours, theirs in zip((*fine, embedding), expected, strict=True)
    )


# At 256 px the windows of 14 and 7 places do not divide the levels, so they are padded.
@pytest.mark.parametrize(
    "architecture",
    [
        "nano",
        "sam2/sam2_hiera_t.yaml",
        "sam2.1/sam2.1_hiera_t.yaml",
        pytest.param("sam2.1/sam2.1_hiera_s.yaml", marks=pytest.mark.slow),
        pytest.param("sam2.1/sam2.1_hiera_b+.yaml", marks=pytest.mark.slow),
        pytest.param("sam2.1/sam2.1_hiera_l.yaml", marks=pytest.mark.slow),
    ],
)
def test_features_are_the_librarys(architecture):
    model = built(architecture, 256)
    encoder = ImageEncoder(model)
    assert not encoder._by_library
    assert max(largest_error(model, encoder, count) for count in (1, 2)) < 1e-5


@pytest.mark.parametrize(
    ("architecture", "strip_bytes", "first_rows"),
    [
        ("nano", 1, 8),
        ("nano", 3 << 19, 48),  # of 64, so the last strip is another one
        ("sam2.1/sam2.1_hiera_t.yaml", 1, 8),
        ("sam2.1/sam2.1_hiera_t.yaml", 1 << 21, 16),
    ],
)
def test_large_blocks_strip_by_strip_give_the_same_features(monkeypatch, architecture, strip_bytes, first_rows):
    model = built(architecture, 256)
    images = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    whole, fine = ImageEncoder(model)(images)
    heights = []
    monkeypatch.setattr(sam2_encoder, "_AT_ONCE_BYTES", 0)
    monkeypatch.setattr(sam2_encoder, "_STRIP_BYTES", strip_bytes)
    widened = sam2_encoder._widened
    monkeypatch.setattr(
        sam2_encoder, "_widened", lambda block, strip: heights.append(strip.shape[:2]) or widened(block, strip)
    )
    again, fine_again = ImageEncoder(model)(images)
    assert heights[0] == (1, first_rows)
    assert len(heights) > 2 * len(model.image_encoder.trunk.blocks)
    for one, other in zip((whole, *fine), (again, *fine_again), strict=True):
        assert float((one - other).abs().max() / one.abs().mean()) < 1e-5


def test_a_compiled_graph_has_few_strips(monkeypatch):
    """SAM 2.1 tiny at its own size: only what malloc would take new pages for is in pieces."""
    block = built("sam2.1/sam2.1_hiera_t.yaml", 256).image_encoder.trunk.blocks[0]
    values = torch.empty(1, 256, 256, 96)
    with torch.inference_mode():
        eager = sam2_encoder._rows_a_strip(block, values)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        compiled = sam2_encoder._rows_a_strip(block, values)
        with torch.autocast("cpu", torch.bfloat16):
            halves = sam2_encoder._rows_a_strip(block, values)
    assert (eager, compiled, halves) == (8, 64, 128)
    for rows, item_bytes in ((compiled, 4), (halves, 2)):
        assert rows * 256 * 384 * item_bytes <= sam2_encoder._COMPILED_STRIP_BYTES


@pytest.mark.parametrize("levels", [[0, 1, 2, 3], [0, 2, 3], [1, 2, 3], [0, 1], [3]])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_every_way_down_through_the_levels_gives_the_librarys_features(levels, mode):
    model = built("nano", 128, fpn_top_down_levels=levels, fpn_interp_model=mode)
    encoder = ImageEncoder(model)
    assert not encoder._by_library
    assert largest_error(model, encoder, 2) < 1e-5


@pytest.mark.parametrize("neck", [{"fuse_type": "avg"}, {"kernel_size": 3, "padding": 1}])
def test_an_unusual_neck_is_left_to_the_library(neck):
    model = built("nano", 128, **neck)
    encoder = ImageEncoder(model)
    assert encoder._by_library
    assert largest_error(model, encoder, 2) == 0.0


@pytest.mark.parametrize(("rows", "places"), [(1100, 1100), (16, 64), (512, 600)])
def test_attention_by_products_is_torchs(rows, places):
    dice = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(3, 2, n, 24, generator=dice) for n in (rows, places, places))
    torch.testing.assert_close(
        attention_by_products(queries, keys, values),
        torch.nn.functional.scaled_dot_product_attention(queries, keys, values),
    )


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("architecture", ["nano", "sam2.1/sam2.1_hiera_t.yaml"])
def test_bfloat16_is_nearer_to_float32_than_the_librarys(monkeypatch, architecture, quick):
    monkeypatch.setattr(sam2_encoder, "runs_bf16", lambda kind: quick)
    model = built(architecture, 128)
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    exact = library(model, images)
    with torch.autocast("cpu", torch.bfloat16):
        embedding, fine = ImageEncoder(model)(images)
        theirs = library(model, images)
    for ours, other, truth in zip((*fine, embedding), theirs, exact, strict=True):
        assert (ours - truth).abs().mean() < 0.95 * (other - truth).abs().mean()


@pytest.mark.parametrize("architecture", ["nano", "sam2.1/sam2.1_hiera_t.yaml"])
def test_weights_held_in_bfloat16_give_the_features_of_those_that_autocast_makes(architecture):
    model = built(architecture, 128)
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    encoder = ImageEncoder(model)
    with torch.autocast("cpu", torch.bfloat16):
        expected, expected_fine = encoder(images)
        encoder.hold_bfloat16()
        found, found_fine = encoder(images)
    assert all(torch.equal(a, b) for a, b in zip((found, *found_fine), (expected, *expected_fine), strict=True))
    held = {name for name, weight in model.image_encoder.named_parameters() if weight.dtype == torch.bfloat16}
    left = {name for name, weight in model.image_encoder.trunk.named_parameters() if weight.dtype == torch.float32}
    assert "trunk.patch_embed.proj.bias" in held
    assert all("norm" in name or "pos_embed" in name for name in left)


def test_an_unusual_model_keeps_its_weights():
    model = built("nano", 128, fuse_type="avg")
    ImageEncoder(model).hold_bfloat16()
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "dtype", "by_products"),
    [
        (True, False, torch.bfloat16, True),
        (True, True, torch.bfloat16, False),
        (False, False, torch.bfloat16, False),
        (True, False, torch.float32, False),
    ],
)
def test_attention_is_by_products_where_fused_attention_has_no_units(
    avx512_bf16, amx, dtype, by_products, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert sam2_encoder._quick_products(torch.zeros(1, dtype=dtype)) is by_products
