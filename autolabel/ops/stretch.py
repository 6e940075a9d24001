"""A picture at a model's input size, as `torch.nn.functional.interpolate(mode="bilinear", antialias=True)` makes
it, read from the picture's bytes: no float copy of the whole picture is ever made (144 MB at 12 megapixels).

Weights are those of ATen/native/cpu/UpSampleKernel.cpp (`compute_indices_weights_aa`, triangle filter); rows are mixed
before columns, so that all but the last step runs along rows. Torch mixes columns first: the last digits differ.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import numpy as np
from numba import njit

from autolabel.core.types import Float32, Int64, UInt8


def normalized(image_rgb: UInt8, side: int, mean: Float32, std: Float32) -> Float32:
    """(3, `side`, `side`): the picture (H, W, 3) stretched, in fractions of 255, less `mean` (3,), over `std` (3,)."""
    return _normalized(np.ascontiguousarray(image_rgb), side, mean.astype(np.float32), std.astype(np.float32))


@njit(nogil=True, cache=True)
def _taps(n: int, size: int) -> tuple[Int64, Int64, Float32]:
    """For each of `size` outputs the first of its inputs among `n`, their number, and the weights (size, most)."""
    scale = n / size
    wide = max(scale, 1.0)
    first = np.empty(size, np.int64)
    count = np.empty(size, np.int64)
    weights = np.zeros((size, int(np.ceil(wide)) * 2 + 1), np.float32)
    for i in range(size):
        centre = scale * (i + 0.5)
        first[i] = max(int(centre - wide + 0.5), 0)
        count[i] = min(int(centre + wide + 0.5), n) - first[i]
        total = 0.0
        for k in range(count[i]):
            total += max(1.0 - abs((first[i] + k - centre + 0.5) / wide), 0.0)
        for k in range(count[i]):
            weights[i, k] = max(1.0 - abs((first[i] + k - centre + 0.5) / wide), 0.0) / total
    return first, count, weights


@njit(nogil=True, cache=True)
def _normalized(image: UInt8, side: int, mean: Float32, std: Float32) -> Float32:
    h, w, _ = image.shape
    rows = image.reshape(h, w * 3)
    top, high, row_weights = _taps(h, side)
    left, wide, column_weights = _taps(w, side)
    gain = np.float32(1) / (np.float32(255) * std)
    shift = mean / std
    out = np.empty((3, side, side), np.float32)
    line = np.empty(w * 3, np.float32)
    for y in range(side):
        line[:] = 0
        for k in range(high[y]):
            weight, row = row_weights[y, k], rows[top[y] + k]
            for x in range(w * 3):
                line[x] += weight * np.float32(row[x])
        for x in range(side):
            red, green, blue = np.float32(0), np.float32(0), np.float32(0)
            at = left[x] * 3
            for k in range(wide[x]):
                weight = column_weights[x, k]
                red += weight * line[at]
                green += weight * line[at + 1]
                blue += weight * line[at + 2]
                at += 3
            out[0, y, x] = red * gain[0] - shift[0]
            out[1, y, x] = green * gain[1] - shift[1]
            out[2, y, x] = blue * gain[2] - shift[2]
    return out
