"""What is left of a mask without the pixels of others. Works on the objects' crops; who owns what is the caller's."""

from __future__ import annotations

from collections.abc import Iterable

from autolabel.core.types import Rle
from autolabel.ops.masks import decode_crop, encode_crop


def without(mask: Rle, others: Iterable[Rle]) -> Rle:
    """The pixels of the mask that are in none of the others; the same object when that is all of them."""
    crop, x0, y0 = decode_crop(mask)
    rest = crop.copy()
    for other in others:
        pixels, other_x0, other_y0 = decode_crop(other)
        left, top = max(x0, other_x0), max(y0, other_y0)
        right = min(x0 + crop.shape[1], other_x0 + pixels.shape[1])
        bottom = min(y0 + crop.shape[0], other_y0 + pixels.shape[0])
        if left < right and top < bottom:
            shared = pixels[top - other_y0 : bottom - other_y0, left - other_x0 : right - other_x0]
            rest[top - y0 : bottom - y0, left - x0 : right - x0] &= 1 - shared
    return mask if rest.sum() == crop.sum() else encode_crop(rest, x0, y0, mask.size_hw)
