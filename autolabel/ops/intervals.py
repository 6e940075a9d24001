"""A mask's run lengths as intervals of its columns, for compiled code that looks at masks without decoding them.

An interval is the pixels [top, bottom) of one column. Knows nothing of what the intervals are for.

Places in the innermost loops are unsigned (`np.uint64(i)`): of a signed one Numba asks each time whether it counts
from the end.
"""

# Numba's decorators carry no types.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from autolabel.core.types import Int64, UInt8

_LONGEST_SIDE = 1 << 31


@njit(nogil=True, cache=True)
def _parse(counts: UInt8) -> Int64:
    """The run lengths; empty when the string ends within a number."""
    runs = np.empty(len(counts), np.int64)
    n, at = 0, 0
    while at < len(counts):
        value, shift, more = np.int64(0), np.int64(0), True
        while more:
            if at == len(counts) or shift > 55:
                return runs[:0]
            digit = np.int64(counts[np.uint64(at)]) - 48
            at += 1
            value |= (digit & 31) << shift
            shift += 5
            more = digit & 32 != 0
            if not more and digit & 16:
                value -= np.int64(1) << shift
        runs[n] = value + runs[np.uint64(n - 2)] if n > 2 else value
        n += 1
    return runs[:n]


@njit(nogil=True, cache=True)
def _intervals(runs: Int64, height: Any, area: Any) -> tuple[Any, Any]:
    """The columns (n,) and ends (2n,: top, bottom, ...), column by column and downwards; touching ones are one."""
    room = area // height + len(runs) + 1
    column = np.empty(room, np.int64)
    y = np.empty(2 * room, np.int64)
    n, c, top = 0, np.int64(0), np.int64(0)
    for k in range(len(runs)):
        if k % 2 == 0:
            top += runs[k]
            if top >= height:  # a division is what this loop would spend its time on
                columns = np.int64(1) if top < 2 * height else top // height
                c += columns
                top -= columns * height
            continue
        left = runs[k]
        while left > 0:
            length = min(left, height - top)
            if n > 0 and column[np.uint64(n - 1)] == c and y[np.uint64(2 * n - 1)] == top:
                y[2 * n - 1] = top + length
            else:
                column[np.uint64(n)], y[np.uint64(2 * n)], y[np.uint64(2 * n + 1)] = c, top, top + length
                n += 1
            left -= length
            top += length
            if top == height:
                c, top = c + 1, np.int64(0)
    return column[:n], y[: 2 * n]


@njit(nogil=True, cache=True)
def column_intervals(counts: UInt8, height: Any, width: Any) -> tuple[Any, Any, Any]:
    """From COCO's string: whether its runs cover the image exactly, the columns (n,) and the ends
    (2n,: top, bottom, ...), column by column and downwards; touching ones are one."""
    runs = _parse(counts)
    total, area, limit = np.int64(0), np.int64(0), np.int64(height) * np.int64(width)
    good = max(height, width) < _LONGEST_SIDE
    for k in range(len(runs)):
        good = good and 0 <= runs[k] <= limit - total  # so no sum can overflow, whatever the string says
        if good:
            total += runs[k]
            area += runs[k] if k % 2 == 1 else 0
    if not good or total != limit:
        return False, runs[:0], runs[:0]
    if area == 0:
        return True, runs[:0], runs[:0]
    column, y = _intervals(runs, height, area)
    return True, column, y
