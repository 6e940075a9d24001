"""Parts of a picture, and masks on their way between a part and the whole. No full-size mask is made.

A window is a half-open box in whole pixels, inside the picture.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from autolabel.core.types import Int64, Rle, UInt8
from autolabel.ops.masks import decode_crop, encode, run_lengths
from autolabel.ops.rle import runs_to_rle

Window = tuple[int, int, int, int]


def paste(rle: Rle, window: Window, size_hw: tuple[int, int]) -> Rle:
    """The mask of a window as a mask of the picture; nothing is inside elsewhere."""
    x0, y0, _, _ = window
    height, width = size_hw
    h = rle.size_hw[0]
    if rle.size_hw == size_hw:
        return rle
    ends = np.cumsum(run_lengths(rle))
    stops = ends[1::2]  # of the runs inside, in column-major order
    starts = ends[0::2][: len(stops)]
    starts, stops = split_at_columns(starts[stops > starts], stops[stops > starts], h)
    columns = starts // h
    moved = (columns + x0) * height + y0 - columns * h
    changes = np.stack([starts + moved, stops + moved], axis=1).reshape(-1)
    # A run that ends where the next one begins goes on.
    joined = np.flatnonzero(changes[1:] == changes[:-1])
    changes = np.delete(changes, np.concatenate([joined, joined + 1]))
    runs = np.diff(changes, prepend=0, append=height * width)
    return runs_to_rle(runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs, size_hw)


def split_at_columns(starts: Int64, stops: Int64, height: int) -> tuple[Int64, Int64]:
    """Runs (half-open, column-major, none empty) cut where a column of `height` pixels ends."""
    first, last = starts // height, (stops - 1) // height
    pieces = last - first + 1
    run = np.repeat(np.arange(len(starts)), pieces)
    column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.maximum(starts[run], column * height), np.minimum(stops[run], (column + 1) * height)


def cut(rle: Rle, window: Window) -> Rle:
    """The part of a mask that lies in a window."""
    return encode(window_pixels(rle, window))


def window_pixels(rle: Rle, window: Window) -> UInt8:
    """The same as an array of 0 and 1, (H, W) of the window; the whole mask is never made."""
    left, top, right, bottom = window
    found = np.zeros((bottom - top, right - left), np.uint8)
    crop, x0, y0 = decode_crop(rle)
    x1, y1 = min(x0 + crop.shape[1], right), min(y0 + crop.shape[0], bottom)
    x, y = max(x0, left), max(y0, top)
    if x < x1 and y < y1:
        found[y - top : y1 - top, x - left : x1 - left] = crop[y - y0 : y1 - y0, x - x0 : x1 - x0]
    return found


def crop_windows(size_hw: tuple[int, int], layers: int, overlap: float) -> list[tuple[int, Window]]:
    """The picture as layer 0, then layer i as 2**i by 2**i overlapping windows, column by column.

    As `sam2.utils.amg.generate_crop_boxes`: in layer 1 windows share `overlap` times the short side, in layer i
    half as much as in the one before.
    """
    height, width = size_hw
    found: list[tuple[int, Window]] = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        n = 2**layer
        shared = int(overlap * min(size_hw) * (2 / n))
        w, h = (math.ceil((shared * (n - 1) + side) / n) for side in (width, height))
        xs, ys = ([int((side - shared) * i) for i in range(n)] for side in (w, h))
        found += [(layer, (x, y, min(x + w, width), min(y + h, height))) for x, y in product(xs, ys)]
    return found
