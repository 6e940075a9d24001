"""A model's input made from a picture's bytes, against torch's antialiased interpolation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from autolabel.ops.stretch import normalized

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
STEP = 1 / (255 * 0.225)  # of a pixel, in the numbers of the result


def expected(image, side):
    values = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    values = functional.interpolate(values, (side, side), mode="bilinear", align_corners=False, antialias=True)[0]
    return ((values.numpy() - MEAN[:, None, None]) / STD[:, None, None]).astype(np.float32)


def noise(h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


@pytest.mark.parametrize(
    ("h", "w", "side"),
    [(480, 640, 512), (1080, 1920, 128), (64, 64, 64), (1, 1, 64), (1, 900, 64), (63, 65, 64), (700, 3, 64)],
)
def test_it_is_torchs_interpolation(h, w, side):
    found = normalized(noise(h, w), side, MEAN, STD)
    assert found.shape == (3, side, side)
    assert found.dtype == np.float32
    assert np.abs(found - expected(noise(h, w), side)).max() < 2e-3 * STEP


@settings(max_examples=60)
@given(h=st.integers(1, 300), w=st.integers(1, 300), side=st.integers(1, 160), seed=st.integers(0, 9))
def test_it_is_torchs_interpolation_at_every_size(h, w, side, seed):
    image = noise(h, w, seed)
    assert np.abs(normalized(image, side, MEAN, STD) - expected(image, side)).max() < 2e-3 * STEP


def test_a_picture_of_the_right_size_is_not_touched():
    image = noise(96, 96)
    plain = (image.transpose(2, 0, 1) / 255 - MEAN[:, None, None]) / STD[:, None, None]
    np.testing.assert_allclose(normalized(image, 96, MEAN, STD), plain, atol=2e-6)


def test_a_picture_that_is_not_together_in_memory_is_read_right():
    image = noise(90, 140)
    assert np.array_equal(
        normalized(image[::2, ::-1], 64, MEAN, STD), normalized(image[::2, ::-1].copy(), 64, MEAN, STD)
    )
