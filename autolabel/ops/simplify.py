"""Rings with fewer points that still give their mask back well enough. Knows no format: whoever writes the rings
says what its reader makes of them.

Douglas-Peucker drops points that lie within a tolerance of the line without them. What a tolerance costs in
pixels depends on the shape and on the reader, so none is trusted: each is tried, and measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(M, 2) x, y in pixels; the last point is joined to the first."""

_FIRST_PX = 0.5
_DOUBLINGS = 8
_HALVINGS = 4


def simplify_rings(
    rings: Sequence[Points], least_iou: float, measure: Callable[[Sequence[Points]], float]
) -> tuple[list[Points], float]:
    """The rings with the coarsest tolerance found whose `measure` (the IoU through the reader) is at least
    `least_iou`, and that IoU. The rings as they are when nothing coarser holds."""
    best, best_iou = list(rings), measure(rings)
    low, high = 0.0, _FIRST_PX
    for _ in range(_DOUBLINGS):
        tried = [_coarser(ring, high) for ring in rings]
        found = measure(tried)
        if found < least_iou:
            break
        best, best_iou, low, high = tried, found, high, 2 * high
    else:
        return best, best_iou
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried = [_coarser(ring, middle) for ring in rings]
        found = measure(tried)
        if found >= least_iou:
            best, best_iou, low = tried, found, middle
        else:
            high = middle
    return best, best_iou


def _coarser(ring: Points, tolerance_px: float) -> Points:
    """At least three points stay: a ring that would collapse is left as it is."""
    # From its own corner, for the sake of float32: pictures can be 16 000 px wide.
    origin = ring.min(axis=0)
    kept = cv2.approxPolyDP((ring - origin).astype(np.float32), tolerance_px, True)[:, 0, :]
    return kept.astype(np.float64) + origin if len(kept) >= 3 else ring
