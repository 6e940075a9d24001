"""Turned rectangles around masks: the smallest, in continuous coordinates where pixel (x, y) covers
[x, x+1] x [y, y+1]. A rectangle holds every pixel square of its mask, so a single pixel has one of area 1.

The smallest rectangle around a convex hull has a side along one of the hull's edges (Freeman and Shapira, 1975),
so all of those are looked at. In float64, unlike `cv2.minAreaRect`, which may cut corners by a hundredth of a pixel.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import Rle
from autolabel.ops.masks import decode_crop

Float64 = NDArray[np.float64]


def hull_xy(rle: Rle) -> Float64:
    """(M, 2) corners of the convex hull of a mask's pixel squares. Raises ValueError for an empty mask."""
    crop, x0, y0 = decode_crop(rle)
    if not crop.size:
        raise ValueError("an empty mask has no hull")
    rows = np.flatnonzero(crop.any(axis=1))
    left = crop[rows].argmax(axis=1)
    right = crop.shape[1] - crop[rows, ::-1].argmax(axis=1)
    x, y = np.concatenate([left, left, right, right]), np.concatenate([rows, rows + 1, rows, rows + 1])
    hull = cv2.convexHull(np.stack([x, y], axis=1).astype(np.int32))
    return hull[:, 0, :].astype(np.float64) + np.array([x0, y0])


def rectangles_around(hull: Float64) -> list[Float64]:
    """Rectangles around a hull with a side along one of its edges, or upright; (4, 2) corners each, the smallest
    first, and the upright one first of equals.

    The corners run round the rectangle as `ultralytics.utils.ops.xywhr2xyxyxyxy` has them: the first is at the
    far end of the long side and of the short, whose angle is in [-45, 135) degrees.
    """
    edges = np.roll(hull, -1, axis=0) - hull
    angles = np.unique(np.concatenate([[0.0], np.arctan2(edges[:, 1], edges[:, 0]) % (math.pi / 2)]))
    axes = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    along, across = hull @ axes.T, hull @ np.stack([-axes[:, 1], axes[:, 0]])
    low = np.stack([along.min(axis=0), across.min(axis=0)], axis=1)
    high = np.stack([along.max(axis=0), across.max(axis=0)], axis=1)
    areas = np.prod(high - low, axis=1)
    # Stable, and blind to what rounding makes of equal areas.
    order = np.argsort(np.round(areas / areas.min(), 9), kind="stable")
    return [_corners(float(angles[i]), low[i], high[i]) for i in order.tolist()]


def rectangle_area(corners_xy: Float64) -> float:
    """The area of a rectangle given by its (4, 2) corners in order."""
    sides = corners_xy[1:3] - corners_xy[:2]
    return float(np.linalg.norm(sides[0]) * np.linalg.norm(sides[1]))


def _corners(angle: float, low: Float64, high: Float64) -> Float64:
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centre, (width, height) = (low + high) / 2 @ turn, high - low
    if width < height:
        angle, width, height = angle + math.pi / 2, height, width
    if angle >= 3 * math.pi / 4:
        angle -= math.pi
    long = np.array([math.cos(angle), math.sin(angle)]) * width / 2
    short = np.array([-math.sin(angle), math.cos(angle)]) * height / 2
    return centre + np.stack([long + short, long - short, -long - short, -long + short])
