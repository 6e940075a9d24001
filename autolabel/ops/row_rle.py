"""Row-major run lengths, as annotation tools store masks. Numbers only; bits and XML are others' business.

Runs alternate, background first; the first is 0 when the first pixel is inside.
"""

# Numba's decorators carry no types.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import numpy as np
from numba import njit

from autolabel.core.types import Int64, Rle, UInt8
from autolabel.ops.masks import decode_crop, from_changes

_MOST_CHANGES = 20_000_000
"""Most changes of a mask down its columns: twelve megapixels of noise have six million, and a file may lie."""


def image_runs(rle: Rle) -> Int64:
    """Over the whole image; the costs are those of the object's box."""
    crop, x0, y0 = decode_crop(rle)
    return _runs(crop, x0, y0, rle.size_hw)


def crop_runs(crop: UInt8) -> Int64:
    """Over an (h, w) array of 0 and 1."""
    return _runs(crop, 0, 0, (crop.shape[0], crop.shape[1]))


def from_crop_runs(runs: Int64, box_xywh: tuple[int, int, int, int], size_hw: tuple[int, int]) -> Rle:
    """The mask of an image of `size_hw` whose box (whole pixels) the runs fill.

    Costs what the outline costs, not what the box costs. Raises ValueError when they do not fill it exactly, it is not
    inside the image, or the outline can only be damage; nothing is allocated then.
    """
    x, y, w, h = box_xywh
    if min(x, y) < 0 or not 0 < w <= size_hw[1] - x or not 0 < h <= size_hw[0] - y:
        raise ValueError(f"the box {w}x{h} at ({x}, {y}) is not inside the {size_hw[1]}x{size_hw[0]} image")
    if (runs < 0).any() or (runs > w * h).any() or int(runs.sum()) != w * h:
        raise ValueError(f"the runs do not fill the box of {w}x{h} px exactly")
    return from_crop_changes(np.cumsum(runs)[: len(runs) // 2 * 2], box_xywh, size_hw)


def from_crop_changes(changes: Int64, box_xywh: tuple[int, int, int, int], size_hw: tuple[int, int]) -> Rle:
    """Like `from_crop_runs`, from where each run of pixels inside the mask begins and ends in the box, row by row."""
    x, y, w, _ = box_xywh
    # A pixel differs from the one above it where a row and the one before it, laid over each other, differ.
    differ = np.sort(np.concatenate([changes, changes + w]))
    many = int((differ[1::2] - differ[::2]).sum())
    if many > _MOST_CHANGES:
        raise ValueError(f"the mask's outline crosses its columns {many} times, at most {_MOST_CHANGES} are read")
    return from_changes(_down_columns(differ, many, w, x, y, size_hw[0]), size_hw)


@njit(nogil=True, cache=True)
def _down_columns(differ: Int64, many: int, w: int, x: int, y: int, height: int) -> Int64:
    """The `many` places, row by row of a box `w` wide at `x, y`, from every even entry of `differ` up to the next, as
    places of an image counted down its columns, ascending."""
    at = np.zeros(w + 1, np.int64)
    for k in range(0, len(differ), 2):
        for place in range(differ[k], differ[k + 1]):
            at[place % w + 1] += 1
    for column in range(w):
        at[column + 1] += at[column]
    found = np.empty(many, np.int64)
    for k in range(0, len(differ), 2):
        for place in range(differ[k], differ[k + 1]):
            column = place % w
            found[at[column]] = (x + column) * height + y + place // w
            at[column] += 1
    return found


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
