"""Row-major run lengths, as annotation tools store masks. Numbers only; bits and XML are others' business.

Runs alternate, background first; the first is 0 when the first pixel is inside.
"""

from __future__ import annotations

import numpy as np

from autolabel.core.types import Int64, Rle, UInt8
from autolabel.ops.masks import decode_crop, encode_crop


def image_runs(rle: Rle) -> Int64:
    """Over the whole image; the costs are those of the object's box."""
    crop, x0, y0 = decode_crop(rle)
    return _runs(crop, x0, y0, rle.size_hw)


def crop_runs(crop: UInt8) -> Int64:
    """Over an (h, w) array of 0 and 1."""
    return _runs(crop, 0, 0, (crop.shape[0], crop.shape[1]))


def from_crop_runs(runs: Int64, box_xywh: tuple[int, int, int, int], size_hw: tuple[int, int]) -> Rle:
    """The mask of an image of `size_hw` whose box (whole pixels) the runs fill.

    Raises ValueError when they do not fill it exactly, or it is not inside the image; nothing is allocated then.
    """
    x, y, w, h = box_xywh
    if min(x, y) < 0 or not 0 < w <= size_hw[1] - x or not 0 < h <= size_hw[0] - y:
        raise ValueError(f"the box {w}x{h} at ({x}, {y}) is not inside the {size_hw[1]}x{size_hw[0]} image")
    if (runs < 0).any() or (runs > w * h).any() or int(runs.sum()) != w * h:
        raise ValueError(f"the runs do not fill the box of {w}x{h} px exactly")
    inside = (np.arange(len(runs)) % 2).astype(np.uint8)
    return encode_crop(np.repeat(inside, runs).reshape(h, w), x, y, size_hw)


def _runs(crop: UInt8, x0: int, y0: int, size_hw: tuple[int, int]) -> Int64:
    height, width = size_hw
    # Each row's changes, with background on both sides: start, end, start, end, …
    rows, columns = np.nonzero(np.diff(np.pad(crop, ((0, 0), (1, 1))), axis=1))
    changes = (rows.astype(np.int64) + y0) * width + columns + x0
    # A run that ends where the next row's begins goes on.
    joined = np.flatnonzero(changes[1:] == changes[:-1])
    changes = np.delete(changes, np.concatenate([joined, joined + 1]))
    runs = np.diff(changes, prepend=0, append=height * width)
    return runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs
