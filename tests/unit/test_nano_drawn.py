"""The scenes that no camera took."""

import numpy as np
import pytest

from scripts.nano.drawn import MAX_MASKS, cells, draw, facade, shapes


def noise(rng, out_hw):
    return rng.integers(0, 256, (*out_hw, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", [cells, facade, shapes, draw])
@pytest.mark.parametrize("seed", range(5))
def test_masks_are_of_the_pictures_size_and_never_on_top_of_one_another(kind, seed):
    image, masks = kind(np.random.default_rng(seed), 96, noise)
    assert image.shape == (96, 96, 3)
    assert image.dtype == masks.dtype == np.uint8
    assert masks.shape[1:] == (96, 96)
    assert len(masks) <= MAX_MASKS
    # Each is covered by those drawn later; along an edge both may have a part of a pixel.
    assert (masks > 128).sum(axis=0).max(initial=0) <= 1


@pytest.mark.parametrize("kind", [cells, facade, shapes])
def test_the_same_seed_draws_the_same_scene(kind):
    first, again = (kind(np.random.default_rng(7), 64, noise) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_an_object_differs_from_what_is_around_it():
    image, masks = cells(np.random.default_rng(3), 128, noise)
    nearer = [
        np.abs(image[mask > 200].mean(axis=0) - image[masks.max(axis=0) == 0].mean(axis=0)).mean()
        for mask in masks
    ]
    assert np.median(nearer) > 5
