"""Logits to run lengths: the bytes of the reference, on every kind of mask."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.ops.masks import encode
from autolabel.ops.rle import interpolate, logits_to_rle

FUSED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def values(logits, size_hw):
    return F.interpolate(torch.from_numpy(logits)[None, None], size_hw, mode="bilinear", align_corners=False)[0, 0]


def reference(logits, size_hw):
    return encode((values(logits, size_hw) > 0).numpy())


def disc(h, w, y, x, radius):
    rows, columns = np.mgrid[0:h, 0:w]
    return (radius - np.hypot(rows - y, columns - x)).astype(np.float32)


def smooth(random, h, w):
    small = random.normal(size=(max(2, h // 8), max(2, w // 8))).astype(np.float32)
    return values(small, (h, w)).numpy().copy()


def kinds(random, h, w):
    noise = random.normal(size=(h, w)).astype(np.float32)
    single = np.full((h, w), -1, np.float32)
    single[random.integers(h), random.integers(w)] = 3
    return {
        "smooth": smooth(random, h, w),
        "noise": noise,
        "bfloat16": torch.from_numpy(noise).bfloat16().float().numpy(),
        "integers": np.round(noise * 3).astype(np.float32),
        "ties": (random.choice([-1.1, 1.1], (h, w)) * random.choice([1, 2, 3], (h, w))).astype(np.float32),
        "one pixel": single,
        "so small that mixes become 0": (np.sign(noise + 1) * 10.0 ** random.uniform(-46, -43, (h, w))).astype(
            np.float32
        ),
        "nothing": np.full((h, w), -2, np.float32),
        "zero": np.zeros((h, w), np.float32),
        "all": np.full((h, w), 2, np.float32),
    }


@settings(max_examples=150)
@given(
    st.integers(1, 80), st.integers(1, 80), st.integers(66, 400), st.integers(66, 400), st.integers(0, 2**32 - 1)
)
def test_bytes_equal_the_reference_for_every_kind_and_size(h, w, height, width, seed):
    for name, logits in kinds(np.random.default_rng(seed), h, w).items():
        assert logits_to_rle(logits, (height, width), fused=FUSED) == reference(logits, (height, width)), name


@pytest.mark.parametrize(
    "low_hw", [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (1, 64), (64, 1), (2, 64), (64, 2)]
)
@pytest.mark.parametrize("size_hw", [(66, 66), (480, 640), (1, 128), (128, 1), (301, 97)])
def test_bytes_equal_the_reference_for_maps_of_one_or_two_rows_or_columns(low_hw, size_hw):
    for name, logits in kinds(np.random.default_rng(2), *low_hw).items():
        assert logits_to_rle(logits, size_hw, fused=FUSED) == reference(logits, size_hw), name


@pytest.mark.parametrize(
    "size_hw", [(480, 640), (427, 640), (1080, 1920), (3000, 4000), (1, 128), (128, 1), (5, 2000)]
)
def test_bytes_equal_the_reference_at_the_sizes_of_pictures(size_hw):
    for name, logits in kinds(np.random.default_rng(1), 256, 256).items():
        if size_hw[0] * size_hw[1] < 5_000_000 or name in ("smooth", "ties"):
            assert logits_to_rle(logits, size_hw, fused=FUSED) == reference(logits, size_hw), name


@pytest.mark.parametrize(
    "center", [(0, 0), (0, 32), (32, 0), (63, 63), (63, 32), (32, 63), (0, 63), (63, 0), (32, 32)]
)
@pytest.mark.parametrize("size_hw", [(97, 131), (64, 65), (300, 200), (40, 100)])
def test_a_disc_cut_by_a_border_or_corner_is_exact(center, size_hw):
    logits = disc(64, 64, *center, 14)
    assert logits_to_rle(logits, size_hw, fused=FUSED) == reference(logits, size_hw)


def test_the_interpolation_is_torchs_bit_for_bit():
    logits = np.random.default_rng(3).normal(size=(40, 56)).astype(np.float32)
    np.testing.assert_array_equal(interpolate(logits, (201, 177), fused=FUSED), values(logits, (201, 177)).numpy())


def test_the_two_arithmetics_differ_so_the_check_can_tell_them_apart():
    logits = np.random.default_rng(3).normal(size=(40, 56)).astype(np.float32)
    fused, plain = (interpolate(logits, (201, 177), fused=f) for f in (True, False))
    assert (fused != plain).any()


@pytest.mark.parametrize("logits", [np.zeros((4, 4)), np.zeros((1, 4, 4), np.float32)])
def test_other_arrays_are_refused(logits):
    with pytest.raises(ValueError, match="float32"):
        logits_to_rle(logits, (100, 100), fused=FUSED)


def test_sizes_of_the_other_kernel_are_refused():
    with pytest.raises(ValueError, match="H \\+ W"):
        logits_to_rle(np.zeros((4, 4), np.float32), (64, 64), fused=FUSED)
