"""Area, box and pixel-corner rings of a mask straight from its run lengths; no pixel is ever drawn.

A mask is a list of column intervals [top, bottom). Each gives two horizontal edges of the outline, its top, walked
to the right, and its bottom, walked to the left: the object is always on the right hand. On the grid line between
two columns, the ends of the edges of both sides meet: equal ends of one kind go straight on, and the others are
joined in pairs from above by vertical edges. Where two pixels touch at a corner, the end above goes to the one that
is a top, which keeps the object connected over the corner and its background apart (8 and 4 neighbours, as
everywhere). So the cost is that of the intervals, and only true corners are found.

Rings are those of pycocotools' convention (polygons.py), with holes on keyholes as described there.
"""

# Numba's decorators carry no types; the public functions at the end do.
# mypy: disable-error-code="untyped-decorator, call-overload, arg-type"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from autolabel.core.types import Int64, Rle, UInt8


@dataclass(frozen=True, slots=True)
class Outline:
    """Of one mask: pixels inside, tight half-open box (zeros when empty), and the rings of its parts as JSON text,
    `[[x,y,...],...]`, holes keyholed."""

    area_px: int
    bounds_xyxy: tuple[int, int, int, int]
    polygons_json: bytes


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
            digit = np.int64(counts[at]) - 48
            at += 1
            value |= (digit & 31) << shift
            shift += 5
            more = digit & 32 != 0
            if not more and digit & 16:
                value -= np.int64(1) << shift
        runs[n] = value + runs[n - 2] if n > 2 else value
        n += 1
    return runs[:n]


@njit(nogil=True, cache=True)
def _intervals(runs: Int64, height: Any) -> tuple[Any, Any]:
    """The columns (n,) and ends (2n,: top, bottom, ...), column by column and downwards; touching ones are one."""
    room = 0
    for k in range(1, len(runs), 2):
        room += runs[k] // height + 2
    column = np.empty(room, np.int64)
    y = np.empty(2 * room, np.int64)
    n, start = 0, np.int64(0)
    for k in range(len(runs)):
        if k % 2 == 1:
            c, top, left = start // height, start % height, runs[k]
            while left > 0:
                length = min(left, height - top)
                if n > 0 and column[n - 1] == c and y[2 * n - 1] == top:
                    y[2 * n - 1] = top + length
                else:
                    column[n], y[2 * n], y[2 * n + 1] = c, top, top + length
                    n += 1
                left -= length
                c, top = c + 1, np.int64(0)
        start += runs[k]
    return column[:n], y[: 2 * n]


@njit(nogil=True, cache=True)
def _first_edges(column: Int64) -> Int64:
    """The first edge of each column from the leftmost to the rightmost, and an end: (columns + 1,)."""
    x0, x1 = column[0], column[-1] + 1
    first = np.full(x1 - x0 + 1, 2 * len(column), np.int64)
    for k in range(len(column) - 1, -1, -1):
        first[column[k] - x0] = 2 * k
    for c in range(x1 - x0 - 1, -1, -1):
        first[c] = min(first[c], first[c + 1])
    return first


@njit(nogil=True, cache=True)
def _links(column: Int64, y: Int64) -> Int64:
    """For each edge the one that the walk takes next. Edge 2k is the top of interval k, 2k + 1 its bottom, y (2n,)."""
    follows = np.empty(len(y), np.int64)
    first = _first_edges(column)
    lines = len(first)
    nowhere = np.int64(1) << 60
    for line in range(lines):
        i = first[line - 1] if line > 0 else np.int64(0)
        end_i = first[line] if line > 0 else np.int64(0)
        j = first[line]
        end_j = first[line + 1] if line + 1 < lines else j
        pending: Any = np.int64(-1)
        pending_left: Any = False
        while i < end_i or j < end_j:
            y_left = y[i] if i < end_i else nowhere
            y_right = y[j] if j < end_j else nowhere
            if y_left == y_right and i % 2 == j % 2:
                if i % 2 == 0:
                    follows[i] = j
                else:
                    follows[j] = i
                i += 1
                j += 1
                continue
            # Of two ends at one corner the top goes first: to the one that is pending from above.
            left = y_left < y_right or (y_left == y_right and i % 2 == 0)
            end = i if left else j
            if pending < 0:
                pending, pending_left = end, left
            else:
                # A top is left behind at its right end, a bottom at its left end.
                if (pending % 2 == 0) == pending_left:
                    follows[pending] = end
                else:
                    follows[end] = pending
                pending = np.int64(-1)
            if left:
                i += 1
            else:
                j += 1
    return follows


@njit(nogil=True, cache=True, inline="always")
def _put(text: UInt8, at: Any, number: Any) -> Any:
    """The decimal digits of a number >= 0; where the next character goes."""
    rest = np.uint32(number)  # unsigned division by a constant is a multiplication
    width = 1 if rest < 10 else 2 if rest < 100 else 3 if rest < 1000 else 4 if rest < 10000 else _width(rest)
    for place in range(at + width - 1, at - 1, -1):
        tens = np.uint32(rest // np.uint32(10))
        text[place] = np.uint8(48 + rest - tens * np.uint32(10))
        rest = tens
    return at + width


@njit(nogil=True, cache=True)
def _width(number: Any) -> int:
    width = 1
    while number >= 10:
        number //= 10
        width += 1
    return width


@njit(nogil=True, cache=True)
def _holes(follows: Int64) -> Int64:
    """The first edge of every walk around a hole. A walk's first edge lies in its leftmost column, where it is a
    top on the outside of a part and a bottom around a hole."""
    seen = np.zeros(len(follows), np.uint8)
    found = np.empty(len(follows) // 2, np.int64)
    n = 0
    for start in range(len(follows)):
        if seen[start]:
            continue
        if start % 2 == 1:
            found[n] = start
            n += 1
        edge = start
        while not seen[edge]:
            seen[edge] = 1
            edge = follows[edge]
    return found[:n]


@njit(nogil=True, cache=True)
def _keyholes(holes: Int64, column: Int64, y: Int64, follows: Int64) -> tuple[Int64, Int64]:
    """Where the holes hang: the first hole of each edge whose vertical way on a bridge ends at, and the next hole
    after each, upwards as the way goes; -1 where there is none.

    From its leftmost corner the bridge runs straight left over the object to where the background begins.
    """
    first = _first_edges(column)
    head = np.full(len(y), -1, np.int64)
    after = np.full(len(holes), -1, np.int64)
    for hole in range(len(holes)):
        at = y[holes[hole]]
        line = column[holes[hole] // 2] - column[0]
        inside = True
        while inside and line > 0:
            inside = False
            for top in range(first[line - 1], first[line], 2):
                if y[top] <= at < y[top + 1]:
                    inside = True
                    break
            if inside:
                line -= 1
        # The one upward way along this line past that height: from a bottom right of it or a top left of it.
        low = first[line - 1] if line > 0 else np.int64(0)
        for edge in range(low, first[line + 1]):
            leaves_here = (edge % 2 == 1) == (edge >= first[line])
            if leaves_here and y[follows[edge]] <= at < y[edge]:
                before, following = np.int64(-1), head[edge]
                while following >= 0 and y[holes[following]] > at:
                    before, following = following, after[following]
                after[hole] = following
                if before < 0:
                    head[edge] = hole
                else:
                    after[before] = hole
                break
    return head, after


@njit(nogil=True, cache=True, inline="always")
def _corner(text: UInt8, at: Any, x: Any, y: Any) -> Any:
    at = _put(text, at, x)
    text[at] = 44
    at = _put(text, at + 1, y)
    text[at] = 44
    return at + 1


@njit(nogil=True, cache=True)
def _rings_json(column: Int64, y: Int64, follows: Int64, digits: int) -> UInt8:
    """`[[x,y,...],...]`: a ring a part, with its holes walked in place, each over its bridge and back. No
    recursion: holes can hang in long chains."""
    holes = _holes(follows)
    head, after = _keyholes(holes, column, y, follows)
    text = np.empty((2 * len(y) + 4 * len(holes)) * (2 * digits + 2) + 2 * len(y) + 2, np.uint8)
    seen = np.zeros(len(y), np.uint8)
    waiting = np.empty((len(holes) + 1, 3), np.int64)
    fresh = np.int64(-2)
    text[0] = 91
    at = 1
    for root in range(0, len(y), 2):
        if seen[root]:
            continue
        text[at] = 91
        at += 1
        depth, start, edge, hole = 0, np.int64(root), np.int64(root), fresh
        while True:
            seen[edge] = 1
            following = follows[edge]
            if y[following] != y[edge]:
                x = column[edge // 2] + (1 if edge % 2 == 0 else 0)
                if hole == fresh:
                    at = _corner(text, at, x, y[edge])
                    hole = head[edge]
                else:
                    at = _corner(text, at, x, y[holes[hole]])
                    hole = after[hole]
                if hole >= 0:
                    at = _corner(text, at, x, y[holes[hole]])
                    waiting[depth, 0], waiting[depth, 1], waiting[depth, 2] = start, edge, hole
                    depth += 1
                    start = edge = holes[hole]
                    hole = fresh
                    continue
                at = _corner(text, at, x, y[following])
            edge, hole = following, fresh
            if edge == start:
                if depth == 0:
                    break
                depth -= 1
                # The hole's last edge and the bridge back are one line.
                start, edge, hole = waiting[depth, 0], waiting[depth, 1], waiting[depth, 2]
        text[at - 1] = 93
        text[at] = 44
        at += 1
    text[at - 1] = 93
    return text[:at]


@njit(nogil=True, cache=True)
def _outline(counts: UInt8, height: Any, width: Any, digits: Any) -> tuple[Any, Any, Any, Any, Any, Any, Any]:
    """`good`, area, x0, y0, x1, y1, text."""
    none = np.empty(0, np.uint8)
    runs = _parse(counts)
    total, area = np.int64(0), np.int64(0)
    for k in range(len(runs)):
        if runs[k] < 0:
            return False, 0, 0, 0, 0, 0, none
        total += runs[k]
        if k % 2 == 1:
            area += runs[k]
    if total != height * width:
        return False, 0, 0, 0, 0, 0, none
    if area == 0:
        return True, 0, 0, 0, 0, 0, none
    column, y = _intervals(runs, height)
    y0, y1 = y[0], y[1]
    for k in range(0, len(y), 2):
        y0, y1 = min(y0, y[k]), max(y1, y[k + 1])
    text = _rings_json(column, y, _links(column, y), digits)
    return True, area, column[0], y0, column[-1] + 1, y1, text


def outline(rle: Rle) -> Outline:
    """Raises ValueError when the run lengths do not cover the image exactly, as those of a damaged string do."""
    height, width = rle.size_hw
    counts = np.frombuffer(rle.counts, np.uint8)
    good, area, x0, y0, x1, y1, text = _outline(counts, height, width, len(str(max(height, width))))
    if not good:
        raise ValueError(f"run lengths that do not cover the {width}x{height} px of their mask")
    return Outline(area, (x0, y0, x1, y1), text.tobytes() if area else b"[]")
