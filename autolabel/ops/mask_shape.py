"""The form of a mask in numbers, straight from its run lengths: outline, parts, holes, what lies outside a box.

No pixel is drawn: the cost is that of the mask's runs, some microseconds, so that every mask of a large run can be
looked at again. Parts are 8-connected and holes 4-connected, as in components.py; the outline is that of the
pixels' edges, those on the border of the picture too. Judges nothing.

An interval k is the pixels [y[2k], y[2k + 1]) of column[k]; they are sorted by column and downwards.
"""

# Numba's decorators carry no types; the public function at the end does.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from autolabel.core.types import Int64, Rle, UInt8
from autolabel.ops.intervals import column_intervals

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MaskShape:
    """In pixels. `box_xyxy` is tight and half-open, zeros for an empty mask. `largest_part_px` and `hole_px` are
    the pixels of the largest part and of all holes, `border_px` the edges of pixels on the picture's border,
    `inside_px` the pixels whose centres lie in the box that was given."""

    area_px: int
    box_xyxy: tuple[int, int, int, int]
    outline_px: int
    parts: int
    largest_part_px: int
    holes: int
    hole_px: int
    border_px: int
    inside_px: int


@njit(nogil=True, cache=True)
def _root(parent: Int64, i: Any) -> Any:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(nogil=True, cache=True)
def _components(column: Int64, y: Int64, reach: Any) -> tuple[Any, Any]:
    """For each interval the first one of its component, and the edges that intervals of neighbouring columns have
    in common. `reach` 1 also joins what touches at a corner, 0 does not."""
    parent = np.arange(len(column))
    common, first = np.int64(0), 0
    for i in range(len(column)):
        before, top, bottom = column[i] - 1, y[2 * i], y[2 * i + 1]
        while column[first] < before or (column[first] == before and y[2 * first + 1] + reach <= top):
            first += 1
        j = first
        while column[j] == before and y[2 * j] < bottom + reach:
            common += max(min(bottom, y[2 * j + 1]) - max(top, y[2 * j]), 0)
            a, b = _root(parent, i), _root(parent, j)
            parent[max(a, b)] = min(a, b)
            j += 1
    for i in range(len(column)):
        parent[i] = _root(parent, i)
    return parent, common


@njit(nogil=True, cache=True)
def _gaps(column: Int64, y: Int64, y0: Any, y1: Any) -> tuple[Any, Any]:
    """The background of the tight box, as intervals."""
    x0, x1 = column[0], column[-1] + 1
    gap_column = np.empty(len(column) + x1 - x0, np.int64)
    gap_y = np.empty(2 * len(gap_column), np.int64)
    n, k = 0, 0
    for x in range(x0, x1):
        at = y0
        while at < y1:
            inside = k < len(column) and column[k] == x
            top = y[2 * k] if inside else y1
            if top > at:
                gap_column[n], gap_y[2 * n], gap_y[2 * n + 1] = x, at, top
                n += 1
            at = y[2 * k + 1] if inside else y1
            k += inside
    return gap_column[:n], gap_y[: 2 * n]


@njit(nogil=True, cache=True)
def _holes(column: Int64, y: Int64, y0: Any, y1: Any) -> tuple[Any, Any]:
    """How many there are, and their pixels: the background that does not reach the tight box."""
    gap_column, gap_y = _gaps(column, y, y0, y1)
    parent, _ = _components(gap_column, gap_y, 0)
    is_open = np.zeros(len(parent), np.bool_)
    for i in range(len(parent)):
        at_side = gap_column[i] == column[0] or gap_column[i] == column[-1]
        if at_side or gap_y[2 * i] == y0 or gap_y[2 * i + 1] == y1:
            is_open[parent[i]] = True
    count, px = 0, np.int64(0)
    for i in range(len(parent)):
        if not is_open[parent[i]]:
            count += parent[i] == i
            px += gap_y[2 * i + 1] - gap_y[2 * i]
    return count, px


@njit(nogil=True, cache=True)
def _pixel(edge: Any, size: Any) -> Any:
    """The first pixel whose centre is not before an edge."""
    return np.int64(np.ceil(min(max(edge, 0.0), float(size)) - 0.5))


@njit(nogil=True, cache=True)
def _shape(counts: UInt8, height: Any, width: Any, x0: Any, y0: Any, x1: Any, y1: Any) -> tuple[Any, Any]:
    """Whether the string is good, and the twelve numbers of a MaskShape."""
    found = np.zeros(12, np.int64)
    good, column, y = column_intervals(counts, height, width)
    if not good or len(column) == 0:
        return good, found
    parent, common = _components(column, y, 1)
    part = np.zeros(len(column), np.int64)
    area, border, inside, parts = np.int64(0), np.int64(0), np.int64(0), 0
    left, right, first, last = _pixel(x0, width), _pixel(x1, width), _pixel(y0, height), _pixel(y1, height)
    highest, lowest = y[0], y[1]
    for k in range(len(column)):
        top, bottom, length = y[2 * k], y[2 * k + 1], y[2 * k + 1] - y[2 * k]
        highest, lowest = min(highest, top), max(lowest, bottom)
        area += length
        part[parent[k]] += length
        parts += parent[k] == k
        border += (top == 0) + (bottom == height) + length * ((column[k] == 0) + (column[k] == width - 1))
        if left <= column[k] < right:
            inside += max(min(bottom, last) - max(top, first), 0)
    holes, hole_px = _holes(column, y, highest, lowest)
    # Each interval has two ends, each pixel two sides; what neighbours have in common is not outline.
    outline = 2 * len(column) + 2 * (area - common)
    found[:6] = area, column[0], highest, column[-1] + 1, lowest, outline
    found[6:] = parts, part.max(), holes, hole_px, border, inside
    return True, found


@njit(nogil=True, cache=True)
def _shapes(strings: UInt8, ends: Int64, sizes_hw: Int64, boxes_xyxy: Float64) -> tuple[Any, Any]:
    """The first mask whose string is bad (-1: none), and the twelve numbers of each."""
    found = np.zeros((len(ends), 12), np.int64)
    start = 0
    for i in range(len(ends)):
        height, width = sizes_hw[i]
        x0, y0, x1, y1 = boxes_xyxy[i]
        good, found[i] = _shape(strings[start : ends[i]], height, width, x0, y0, x1, y1)
        if not good:
            return i, found
        start = ends[i]
    return -1, found


def mask_shapes(rles: Sequence[Rle], boxes_xyxy: Sequence[tuple[float, float, float, float]]) -> list[MaskShape]:
    """What can be counted about masks and the boxes that asked for them (finite pixels, half-open, may overhang).

    Raises ValueError when the run lengths of one do not cover its image exactly, as those of a damaged string do.
    """
    strings = [rle.counts for rle in rles]
    ends = np.cumsum([len(string) for string in strings], dtype=np.int64)
    sizes_hw = np.array([rle.size_hw for rle in rles], np.int64).reshape(-1, 2)
    boxes = np.array(boxes_xyxy, np.float64).reshape(-1, 4)
    bad, found = _shapes(np.frombuffer(b"".join(strings), np.uint8), ends, sizes_hw, boxes)
    if bad >= 0:
        height, width = rles[bad].size_hw
        raise ValueError(f"run lengths that do not cover the {width}x{height} px of their mask")
    return [MaskShape(row[0], tuple(row[1:5]), *row[5:]) for row in found.tolist()]


def mask_shape(rle: Rle, box_xyxy: tuple[float, float, float, float]) -> MaskShape:
    """`mask_shapes` of one."""
    (shape,) = mask_shapes([rle], [box_xyxy])
    return shape
