"""The guided filter with a colour guide: an image that is as smooth as asked, but has the edges of another.

Source: K. He, J. Sun, X. Tang, "Guided Image Filtering", IEEE TPAMI 2013; K. He, J. Sun, "Fast Guided Filter",
arXiv:1505.00996, for the coarser grid on which the linear coefficients are found. Knows pixels, not masks.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import Float32, UInt8

_GRID_CELLS = 4
"""The coarser grid has this many cells in a radius, and so an error that no outline shows (docs/log.md)."""


def guided_filter(guide_rgb: UInt8, values: Float32, radius: int, eps: float) -> Float32:
    """`values` (H, W) with the edges of `guide_rgb` (H, W, 3): in every square of 2 `radius` + 1 pixels the result is
    about a linear function of the colour in [0, 1], the flatter the larger `eps`, a variance of colour, is.

    Takes the same time at any radius. Raises ValueError for sizes that differ and a radius below 1.
    """
    if guide_rgb.shape != (*values.shape, 3) or radius < 1:
        raise ValueError(f"guide {guide_rgb.shape} for values {values.shape}, radius {radius}")
    height, width = values.shape
    step = max(1, radius // _GRID_CELLS)
    small = max(1, round(width / step)), max(1, round(height / step))
    guide = cv2.resize(guide_rgb, small, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    coarse = cv2.resize(values, small, interpolation=cv2.INTER_AREA)
    slopes, offset = _coefficients(guide, np.asarray(coarse, np.float32), max(1, round(radius / step)), eps)
    found: Float32 = _enlarged(offset, (width, height))
    for channel in range(3):  # one at a time: a large picture's three planes need not all be there
        found += _enlarged(slopes[channel], (width, height)) * (guide_rgb[..., channel] * np.float32(1 / 255))
    return found


def _coefficients(guide: Float32, values: Float32, radius: int, eps: float) -> tuple[list[Float32], Float32]:
    """Coefficients of the linear function around each pixel, averaged over the squares that hold it (equations 10 to
    12 of the paper): the 3 x 3 covariance of the guide, plus `eps`, is inverted by its adjugate."""

    def mean(plane: Float32) -> Float32:
        return np.asarray(cv2.blur(plane, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT), np.float32)

    def covariance(a: Float32, b: Float32, mean_a: Float32, mean_b: Float32) -> Float32:
        return np.asarray(mean(a * b) - mean_a * mean_b, np.float32)

    planes = [np.ascontiguousarray(guide[..., channel]) for channel in range(3)]
    means = [mean(plane) for plane in planes]
    mean_values = mean(values)
    rr, gg, bb = (covariance(planes[i], planes[i], means[i], means[i]) + np.float32(eps) for i in range(3))
    rg, rb, gb = (covariance(planes[i], planes[j], means[i], means[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    r, g, b = (covariance(planes[i], values, means[i], mean_values) for i in range(3))
    adjugate = (
        (gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg),
        (rb * gb - rg * bb, rr * bb - rb * rb, rg * rb - rr * gb),
        (rg * gb - rb * gg, rg * rb - rr * gb, rr * gg - rg * rg),
    )
    determinant = rr * adjugate[0][0] + rg * adjugate[0][1] + rb * adjugate[0][2]
    slopes = [(row[0] * r + row[1] * g + row[2] * b) / determinant for row in adjugate]
    offset = mean_values - sum(slope * plane for slope, plane in zip(slopes, means, strict=True))
    return [mean(slope) for slope in slopes], mean(np.asarray(offset, np.float32))


def _enlarged(plane: Float32, size_wh: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, size_wh, interpolation=cv2.INTER_LINEAR), np.float32)
