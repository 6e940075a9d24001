"""Low-resolution logits straight to compressed COCO run lengths; the full-size mask is never made.

Gives the bytes of `pycocotools.mask.encode(F.interpolate(logits, (H, W), mode="bilinear") > 0)` on a CPU, at a
fraction of the cost: cells of the low-resolution grid whose corners have one sign hold no boundary, so only the
others are looked at pixel by pixel. Why that is exact: bilinear weights are >= 0 and rounding is monotone, so a
mix of two positive (or two non-positive) float32 keeps the sign, unless it is too small for a float32 and becomes 0:
cells with a value between 0 and `_TINY` are looked at, too.

The arithmetic is that of torch's separable CPU kernel: source position `s = round32(scale * (k + 0.5)) - 0.5`,
horizontal mix first, then vertical, each `fma(p, u, round32(q * v))` where the CPU has AVX2 (`fused`), else
`round32(round32(p * u) + round32(q * v))`. The caller finds out which by comparing `interpolate` with torch's.
The kernel is another one for H + W <= 128 and for three channels; those are not reproduced here.

Letters: h, w low-resolution rows and columns; H, W those of the picture.
"""

# Numba's decorators carry no types; the public functions at the end do.
# mypy: disable-error-code="untyped-decorator, call-overload, arg-type"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from autolabel.core.types import Float32, Int64, Rle, UInt8

SMALLEST_H_PLUS_W = 129
"""Below, torch takes a kernel with another order of operations."""


@intrinsic
def _fma32(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding; Numba has no spelling for it."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), codegen


@njit(nogil=True, cache=True, inline="always")
def _mix(p: Any, u: Any, q: Any, v: Any, fused: bool) -> Any:
    right = np.float32(q * v)
    if fused:
        return _fma32(p, u, right)
    return np.float32(np.float32(p * u) + right)


@njit(nogil=True, cache=True)
def _axis(n: int, size: int) -> tuple[Int64, Float32, Float32]:
    """For each of `size` outputs: the left one of its two taps among `n`, and the weights of both."""
    source = np.empty(size, np.int64)
    left = np.empty(size, np.float32)
    right = np.empty(size, np.float32)
    scale = np.float32(n) / np.float32(size)
    half = np.float32(0.5)
    for k in range(size):
        position = np.float32(np.float32(scale * np.float32(np.float32(k) + half)) - half)
        if position < np.float32(0):
            position = np.float32(0)
        tap = min(np.int64(position), n - 1)
        weight = min(max(np.float32(position - np.float32(tap)), np.float32(0)), np.float32(1))
        source[k] = tap
        right[k] = weight
        left[k] = np.float32(1) - weight
    return source, left, right


@njit(nogil=True, cache=True)
def _interpolate(
    logits: Float32, height: int, width: int, fused: bool, left: int, top: int, right: int, bottom: int
) -> Float32:
    """The columns of a window, (right - left, bottom - top)."""
    h, w = logits.shape
    ys, y_top, y_bottom = _axis(h, height)
    xs, x_left, x_right = _axis(w, width)
    out = np.empty((right - left, bottom - top), np.float32)
    column = np.empty(h, np.float32)
    first = ys[top]
    last = min(ys[bottom - 1] + 1, h - 1)
    for x in range(left, right):
        a = xs[x]
        b = min(a + 1, w - 1)
        for r in range(first, last + 1):
            column[r] = _mix(logits[r, a], x_left[x], logits[r, b], x_right[x], fused)
        for y in range(top, bottom):
            i = ys[y]
            j = min(i + 1, h - 1)
            out[x - left, y - top] = _mix(column[i], y_top[y], column[j], y_bottom[y], fused)
    return out


_NONE, _MIXED, _ALL = 0, 1, 4
_TINY = np.float32(2.0**-64)
"""Weights are 0 or over 2^-32, so nothing from this on becomes 0 by two of them."""


@njit(nogil=True, cache=True)
def _signs(logits: Float32) -> tuple[UInt8, int, int, UInt8]:
    """0 where a value is not positive, 1 where it is, 8 where its mixes may not be (h, w); first and last row with a
    positive one (h, -1 when there is none), and which columns have one."""
    h, w = logits.shape
    first, last = h, -1
    signs = np.empty((h, w), np.uint8)
    columns = np.zeros(w, np.uint8)
    for r in range(h):
        # Without a branch inside, or it is not made into vector instructions: twice the time then.
        for c in range(w):
            signs[r, c] = 8 * (logits[r, c] > 0) - 7 * (logits[r, c] >= _TINY)
        live = np.uint8(0)
        for c in range(w):
            columns[c] |= signs[r, c]
            live |= signs[r, c]
        if live:
            first = min(first, r)
            last = r
    return signs, first, last, columns


@njit(nogil=True, cache=True)
def _stretches(
    signs: UInt8, a: int, b: int, low: int, high: int, cell_start: Int64, cells: Int64, kinds: UInt8
) -> int:
    """Downwards between the columns a and b: where cells (from `low` to `high`) begin whose corners are `_ALL` positive
    or `_NONE`, and each other one, `_MIXED`. Their number; rows and kinds are written to `cells` and `kinds`.
    Neighbours share two corners, so the sign changes in mixed cells alone."""
    h = signs.shape[0]
    count = 0
    above = signs[low, a] + signs[low, b]
    for c in range(low, high + 1):
        d = min(c + 1, h - 1)
        below = signs[d, a] + signs[d, b]
        corners = above + below
        above = below
        if cell_start[c] == cell_start[c + 1]:
            continue
        kind = corners if corners in (_NONE, _ALL) else _MIXED
        if kind != _MIXED and count > 0 and kinds[count - 1] == kind:
            continue
        cells[count] = c
        kinds[count] = kind
        count += 1
    return count


@njit(nogil=True, cache=True)
def _runs(logits: Float32, height: int, width: int, fused: bool) -> Int64:
    """Column-major run lengths, starting with background."""
    h, w = logits.shape
    signs, first_row, last_row, columns = _signs(logits)
    runs = np.empty(4 * (height + 2) + 64, np.int64)
    count = 0
    start = 0
    inside = False
    if last_row < 0:
        runs[0] = height * width
        return runs[:1].copy()
    xs, x_left, x_right = _axis(w, width)
    ys, y_top, y_bottom = _axis(h, height)
    # cell_start[c]: the first output row whose upper tap is c or lower.
    cell_start = np.full(h + 1, height, np.int64)
    for y in range(height - 1, -1, -1):
        cell_start[ys[y]] = y
    for c in range(h - 1, -1, -1):
        cell_start[c] = min(cell_start[c], cell_start[c + 1])
    low = max(first_row - 1, 0)
    high = last_row
    top = cell_start[low]
    bottom = cell_start[high + 1]
    cells = np.empty(h, np.int64)
    kinds = np.empty(h, np.uint8)
    stretches = 0
    column = -1  # that the stretches are of
    for x in range(width):
        a = xs[x]
        b = min(a + 1, w - 1)
        base = x * height
        live = columns[a] or columns[b]
        # A run that is open at the bottom of the last column ends where this column starts, unless its first
        # pixel is looked at below.
        if inside and (not live or top > 0):
            runs[count] = base - start
            count += 1
            start = base
            inside = False
        if not live:
            continue
        if count + height + 4 > len(runs):
            grown = np.empty(2 * len(runs) + height + 4, np.int64)
            grown[:count] = runs[:count]
            runs = grown
        if a != column:
            stretches = _stretches(signs, a, b, low, high, cell_start, cells, kinds)
            column = a
        for k in range(stretches):
            c = cells[k]
            y = cell_start[c]
            positive = kinds[k] == _ALL
            if kinds[k] == _MIXED:
                d = min(c + 1, h - 1)
                p = _mix(logits[c, a], x_left[x], logits[c, b], x_right[x], fused)
                q = _mix(logits[d, a], x_left[x], logits[d, b], x_right[x], fused)
                positive = p >= _TINY
                if not ((positive and q >= _TINY) or (p <= 0 and q <= 0)):
                    # No branch: a processor guesses wrong at every outline.
                    for z in range(y, cell_start[c + 1]):
                        turned = (_mix(p, y_top[z], q, y_bottom[z], fused) > 0) != inside
                        runs[count] = base + z - start
                        count += turned
                        start = base + z if turned else start
                        inside ^= turned
                    continue
            if positive != inside:
                runs[count] = base + y - start
                count += 1
                start = base + y
                inside = not inside
        if inside and bottom < height:
            runs[count] = base + bottom - start
            count += 1
            start = base + bottom
            inside = False
    runs[count] = height * width - start
    return runs[: count + 1].copy()


@njit(nogil=True, cache=True)
def _crop_runs(columns: UInt8, x0: int, y0: int, height: int, width: int) -> Int64:
    """Column-major run lengths, starting with background, of a picture that is empty but for a crop, given by its
    columns."""
    w, h = columns.shape
    runs = np.empty(4 * (h + 2) + 64, np.int64)
    count = 0
    start = 0
    inside = False
    for c in range(w):
        base = (x0 + c) * height + y0
        if count + h + 4 > len(runs):
            grown = np.empty(2 * len(runs) + h + 4, np.int64)
            grown[:count] = runs[:count]
            runs = grown
        for r in range(h):
            if (columns[c, r] != 0) != inside:
                runs[count] = base + r - start
                count += 1
                start = base + r
                inside = not inside
        # A run goes on in the next column where the crop is as high as the picture.
        end = base + h
        if inside and end < height * width and (h < height or c == w - 1):
            runs[count] = end - start
            count += 1
            start = end
            inside = False
    runs[count] = height * width - start
    return runs[: count + 1].copy()


@njit(nogil=True, cache=True)
def _compress(runs: Int64) -> UInt8:
    """COCO's string: differences to the run two before, five bits a character, least significant first."""
    out = np.empty(len(runs) * 13, np.uint8)
    n = 0
    for k in range(len(runs)):
        rest = runs[k] - runs[k - 2] if k > 2 else runs[k]
        more = True
        while more:
            group = rest & 31
            rest >>= 5
            more = rest != -1 if group & 16 else rest != 0
            if more:
                group |= 32
            out[n] = group + 48
            n += 1
    return out[:n].copy()


def interpolate(logits_hw: Float32, size_hw: tuple[int, int], *, fused: bool) -> Float32:
    """Bilinear values (H, W) as torch's CPU kernel gives them; for finding out which arithmetic this CPU's has."""
    height, width = size_hw
    return interpolate_window(logits_hw, size_hw, (0, 0, width, height), fused=fused)


def interpolate_window(
    logits_hw: Float32, size_hw: tuple[int, int], window: tuple[int, int, int, int], *, fused: bool
) -> Float32:
    """Those of a window `x0, y0, x1, y1` inside the picture alone, (y1 - y0, x1 - x0), column-major in memory. Logits
    are float32, and no side of the window is 0."""
    return np.asarray(_interpolate(np.ascontiguousarray(logits_hw), *size_hw, fused, *window)).T


def logits_to_rle(logits_hw: Float32, size_hw: tuple[int, int], *, fused: bool) -> Rle:
    """The mask `interpolated logits > 0` of a picture of `size_hw`. Logits (h, w) are float32 and finite.

    Raises ValueError where torch uses another kernel (H + W <= 128) and for logits that are not float32.
    """
    return runs_to_rle(_checked_runs(logits_hw, size_hw, fused), size_hw)


def logits_area_px(logits_hw: Float32, size_hw: tuple[int, int], *, fused: bool) -> int:
    """How many pixels that mask has; nothing is compressed for it."""
    return int(_checked_runs(logits_hw, size_hw, fused)[1::2].sum())


def crop_to_rle(crop: UInt8, x0: int, y0: int, size_hw: tuple[int, int]) -> Rle:
    """The mask of a picture of `size_hw` that is a crop (h, w) at `x0, y0`, which lies inside, and empty elsewhere; any
    nonzero value is inside. Costs what the crop costs, not what the picture costs."""
    return runs_to_rle(_crop_runs(np.ascontiguousarray(crop.T), x0, y0, *size_hw), size_hw)


def runs_to_rle(runs: Int64, size_hw: tuple[int, int]) -> Rle:
    """Column-major run lengths, background first, as a mask; they must fill it exactly."""
    return Rle(size_hw, _compress(np.ascontiguousarray(runs)).tobytes())


def _checked_runs(logits_hw: Float32, size_hw: tuple[int, int], fused: bool) -> Int64:
    height, width = size_hw
    if height + width < SMALLEST_H_PLUS_W:
        raise ValueError(f"H + W must be at least {SMALLEST_H_PLUS_W}, got {size_hw}")
    if logits_hw.dtype != np.float32 or logits_hw.ndim != 2:
        raise ValueError(f"logits must be float32 (h, w), got {logits_hw.dtype} {logits_hw.shape}")
    return np.asarray(_runs(np.ascontiguousarray(logits_hw), height, width, fused))
