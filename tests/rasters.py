"""Labelled pictures on disk for the tests of the formats that hold pixels, and noise to fill them with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from autolabel.core.types import ImageInfo, ImageRecord
from autolabel.ops.images import decode_rgb
from tests.records import instance, picture, record

RED = (220, 20, 20)


def photo(root: Path, image_id: str, masks: Sequence[np.ndarray] = (), **changes: Any) -> ImageRecord:
    """A labelled picture in `photos`; classes take turns, scores fall."""
    size = masks[0].shape if masks else changes.pop("size_hw", (120, 160))
    path = picture(root / "photos" / image_id, size, seed=len(image_id))
    objects = [
        instance(mask, i, category_id=(3, 7)[i % 2], detector_score=0.9 / (i + 1)) for i, mask in enumerate(masks)
    ]
    return record(image_id, objects, path, size_hw=size, **changes)


def turned(root: Path, orientation: int, suffix: str = ".jpg") -> ImageRecord:
    """A picture with an EXIF orientation, whose object is all that is red when it is looked at upright."""
    path = root / "photos" / f"turned{orientation}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.full((48, 80, 3), 128, np.uint8)
    stored[8:24, 8:56] = RED
    stored[24:40, 8:24] = RED
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(
        path, exif=exif, **({"quality": 95, "subsampling": 0} if suffix == ".jpg" else {})
    )
    upright, info = decode_rgb(path.read_bytes(), max_pixels=10**6)
    one = instance(is_red(upright))
    return record(path.name, [one], path, info=ImageInfo(info.width, info.height, orientation, info.sha256))


def is_red(image_rgb: np.ndarray) -> np.ndarray:
    """(H, W) of 0 and 1."""
    return ((image_rgb[..., 0] > 170) & (image_rgb[..., 1] < 80)).astype(np.uint8)


def noise(most: int = 4) -> st.SearchStrategy[list[np.ndarray]]:
    """Masks of one size, of few pixels and many, not empty."""

    def masks(draw: tuple[int, int, int, int, float]) -> list[np.ndarray]:
        seed, n, h, w, share = draw
        random = np.random.default_rng(seed)
        found = [(random.random((h, w)) < share).astype(np.uint8) for _ in range(n)]
        for mask in found:
            mask[random.integers(h), random.integers(w)] = 1
        return found

    sides = st.integers(10, 24)
    shares = st.sampled_from([0.02, 0.2, 0.5, 0.9, 1.0])
    return st.tuples(st.integers(0, 2**32), st.integers(1, most), sides, sides, shares).map(masks)


def owners(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What is left of each mask when the first ones own the shared pixels (scores fall)."""
    taken = np.zeros(masks[0].shape, bool)
    found = []
    for mask in masks:
        found.append((mask > 0) & ~taken)
        taken |= mask > 0
    return found
