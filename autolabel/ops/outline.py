"""Area, box and pixel-corner rings of a mask straight from its run lengths; no pixel is ever drawn.

A mask is a list of column intervals [top, bottom). Each gives two horizontal edges of the outline, its top, walked
to the right, and its bottom, walked to the left: the object is always on the right hand. On the grid line between
two columns, the ends of the edges of both sides meet: equal ends of one kind go straight on, and the others are
joined in pairs from above by vertical edges. Where two pixels touch at a corner, the end above goes to the one that
is a top, which keeps the object connected over the corner and its background apart (8 and 4 neighbours, as
everywhere). So the cost is that of the intervals, and only true corners are found.

Rings are those of pycocotools' convention (polygons.py), with holes on keyholes as described there. Of a mask of one
part without holes, the ring of the other convention, through the centres of the pixels, comes from the same walk.
"""

# Places in the innermost loops are unsigned: see intervals.py.
# Numba's decorators carry no types; the public functions at the end do.
# mypy: disable-error-code="untyped-decorator, call-overload, arg-type"

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from autolabel.core.types import Int64, Rle, UInt8
from autolabel.ops.intervals import column_intervals

UInt64 = NDArray[np.uint64]

_LONGEST_SIDE = 1 << 23
"""Below, a number and those up to the next power of two fit into eight bytes with their comma."""


class Outline(NamedTuple):
    """The outline of one mask: pixels inside, tight half-open box (zeros when empty), and the rings `[x, y, ...]` of
    its parts, holes keyholed."""

    area_px: int
    bounds_xyxy: tuple[int, int, int, int]
    polygons: list[list[int]]


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
    nowhere = np.int64(1) << 60
    start, end_j = np.int64(0), np.int64(0)  # of the edges on the right hand
    for x in range(column[0], column[-1] + 2):
        i, end_i, start = start, end_j, end_j
        while end_j < len(y) and column[np.uint64(end_j >> 1)] == x:
            end_j += 2
        j = start
        if end_i - i == 2 and end_j - j == 2:
            # One interval on either side, with pixels side by side: so it is nearly everywhere.
            top_i, bottom_i, top_j, bottom_j = np.uint64(i), np.uint64(i + 1), np.uint64(j), np.uint64(j + 1)
            if max(y[top_i], y[top_j]) < min(y[bottom_i], y[bottom_j]):
                follows[top_i], follows[bottom_j] = j, i + 1
                continue
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


@intrinsic
def _store(typingctx: Any, text: Any, at: Any, word: Any) -> Any:
    """The eight bytes of `word` from `text[at]` on, in one step; Numba would write them one by one."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        builder.store(arguments[2], builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(text, types.int64, types.uint64), codegen


def number_words(largest: int) -> tuple[UInt64, UInt8]:
    """The numbers up to `largest` and some more as text, each with a comma: eight bytes and how many of them count.
    Raises ValueError for one that does not fit."""
    if largest >= _LONGEST_SIDE:
        raise ValueError(f"a mask with a side of {largest} px is larger than any picture's")
    return _number_words(1 << largest.bit_length())


@lru_cache(maxsize=8)
def _number_words(count: int) -> tuple[UInt64, UInt8]:
    texts = np.arange(count).astype("S8")
    digits = np.char.str_len(texts)
    texts.view(np.uint8).reshape(count, 8)[np.arange(count), digits] = 44
    return texts.view(np.uint64), (digits + 1).astype(np.uint8)


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
def _corner(text: UInt8, at: Any, x: Any, y: Any, words: UInt64, widths: UInt8) -> Any:
    """`x,y,` written at `at`; where the next character goes. Up to seven bytes behind it are overwritten."""
    _store(text, at, words[x])
    at += np.int64(widths[x])
    _store(text, at, words[y])
    return at + np.int64(widths[y])


@njit(nogil=True, cache=True)
def _plain_rings(
    text: UInt8, at: Any, column: Int64, y: Int64, follows: Int64, words: UInt64, widths: UInt8
) -> Any:
    """`[[x,y,...],...]` for parts without holes; -1 when there is a hole. Edges walked are `~` their follower."""
    text[at] = 91
    at += 1
    for root in range(len(y)):
        edge, following = np.int64(root), follows[root]
        if following < 0:
            continue
        if root % 2 == 1:  # see `_holes`
            return -1
        text[at] = 91
        at += 1
        top = y[edge]
        top_word, top_width = words[np.uint64(top)], np.int64(widths[np.uint64(top)])
        while following >= 0:
            follows[np.uint64(edge)] = ~following
            x, bottom = column[np.uint64(edge >> 1)] + 1 - (edge & 1), y[np.uint64(following)]
            word, width = words[np.uint64(x)], np.int64(widths[np.uint64(x)])
            bottom_word, bottom_width = words[np.uint64(bottom)], np.int64(widths[np.uint64(bottom)])
            _store(text, at, word)
            _store(text, at + width, top_word)
            _store(text, at + width + top_width, word)
            _store(text, at + 2 * width + top_width, bottom_word)
            # Whether the outline turns here cannot be foretold: writing in vain costs less than a wrong guess.
            at += 2 * width + top_width + bottom_width if bottom != top else 0
            top, top_word, top_width = bottom, bottom_word, bottom_width
            edge, following = following, follows[np.uint64(following)]
        text[at - 1] = 93
        text[at] = 44
        at += 1
    text[at - 1] = 93
    return at


@njit(nogil=True, cache=True)
def _rings(text: UInt8, at: Any, column: Int64, y: Int64, follows: Int64, words: UInt64, widths: UInt8) -> Any:
    """`[[x,y,...],...]`: a ring a part, with its holes walked in place, each over its bridge and back. No
    recursion: holes can hang in long chains."""
    holes = _holes(follows)
    head, after = _keyholes(holes, column, y, follows)
    seen = np.zeros(len(y), np.uint8)
    waiting = np.empty((len(holes) + 1, 3), np.int64)
    fresh = np.int64(-2)
    text[at] = 91
    at += 1
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
                x = column[edge // 2] + (1 - edge % 2)
                if hole == fresh:
                    at = _corner(text, at, x, y[edge], words, widths)
                    hole = head[edge]
                else:
                    at = _corner(text, at, x, y[holes[hole]], words, widths)
                    hole = after[hole]
                if hole >= 0:
                    at = _corner(text, at, x, y[holes[hole]], words, widths)
                    waiting[depth, 0], waiting[depth, 1], waiting[depth, 2] = start, edge, hole
                    depth += 1
                    start = edge = holes[hole]
                    hole = fresh
                    continue
                at = _corner(text, at, x, y[following], words, widths)
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
    return at


@njit(nogil=True, cache=True)
def digits(text: UInt8, at: Any, value: Any) -> Any:
    """A number of at least 0 written at `at`; where the next character goes."""
    end = at + 1
    rest = value // 10
    while rest > 0:
        end += 1
        rest //= 10
    for place in range(end - 1, at - 1, -1):
        text[place] = 48 + value % 10
        value //= 10
    return end


def literal_words(*pieces: bytes) -> tuple[UInt64, Int64]:
    """Pieces of up to 24 bytes as three words each (N, 3), and how long they are; for `literal`."""
    words = np.array(pieces, "S24").view(np.uint64).reshape(-1, 3)
    return words, np.array([len(piece) for piece in pieces], np.int64)


@njit(nogil=True, cache=True, inline="always")
def literal(text: UInt8, at: Any, words: UInt64, lengths: Int64, piece: Any) -> Any:
    """That piece of `literal_words` written at `at`; where the next character goes. Up to 24 bytes are overwritten."""
    for k in range(3):
        _store(text, at + 8 * k, words[piece, k])
    return at + lengths[piece]


_PIECES, _PIECE_LENGTHS = literal_words(b'"bbox":[', b".0,", b'.0],"area":', b',"segmentation":')
_GEOMETRY_ROOM = 200
"""What stands around the rings: the pieces, five numbers of up to twenty digits, and what is overwritten."""


@njit(nogil=True, cache=True)
def _geometry(text: UInt8, at: Any, column: Int64, y: Int64) -> Any:
    """`"bbox":[x.0,y.0,w.0,h.0],"area":n,"segmentation":`."""
    x0, y0, x1, y1, area = np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    if len(column) > 0:
        x0, y0, x1, y1 = column[0], y[0], column[-1] + 1, y[1]
    for k in range(0, len(y), 2):
        y0, y1 = min(y0, y[k]), max(y1, y[k + 1])
        area += y[k + 1] - y[k]
    for piece, value in ((0, x0), (1, y0), (1, x1 - x0), (1, y1 - y0), (2, area)):
        at = digits(text, literal(text, at, _PIECES, _PIECE_LENGTHS, piece), value)
    return literal(text, at, _PIECES, _PIECE_LENGTHS, 3)


@njit(nogil=True, cache=True)
def annotate(
    text: UInt8, at: Any, more: Any, counts: UInt8, height: Any, width: Any, words: UInt64, widths: UInt8
) -> tuple[Any, Any, Any]:
    """What COCO says of a mask, see `annotation_text`, written at `at`: whether its string is sound, the text, which
    is another array where it had to grow, and where the next character goes. There is room for `more` characters
    then."""
    good, column, y = column_intervals(counts, height, width)
    # Two corners for each vertical way, and four for each hole; every hole has two edges or more.
    room = 8 * (len(y) + 1) * np.int64(widths[-1]) + 16 + _GEOMETRY_ROOM + more
    if at + room > len(text):
        grown = np.empty(2 * (at + room), np.uint8)
        grown[:at] = text[:at]
        text = grown
    at = _geometry(text, at, column, y)
    if len(column) == 0:
        text[at], text[at + 1] = 91, 93
        return good, text, at + 2
    follows = _links(column, y)
    end = _plain_rings(text, at, column, y, follows, words, widths)
    if end < 0:
        for edge in range(len(follows)):
            follows[edge] = max(follows[edge], ~follows[edge])
        end = _rings(text, at, column, y, follows, words, widths)
    return good, text, end


@njit(nogil=True, cache=True)
def _annotation(counts: UInt8, height: Any, width: Any, words: UInt64, widths: UInt8) -> tuple[Any, Any]:
    good, text, at = annotate(np.empty(0, np.uint8), 0, 0, counts, height, width, words, widths)
    return good, text[:at]


def annotation_text(mask: Rle) -> bytes:
    """What COCO says of a mask, `"bbox":[x,y,w,h],"area":n,"segmentation":[[x,y,...],...]` with holes keyholed.
    Zeros for an empty mask.

    Raises ValueError when the run lengths do not cover the image exactly, as those of a damaged string do.
    """
    height, width = mask.size_hw
    counts = np.frombuffer(mask.counts, np.uint8)
    good, text = _annotation(counts, height, width, *number_words(max(height, width)))
    if not good:
        raise ValueError(f"run lengths that do not cover the {width}x{height} px of their mask")
    return bytes(text.tobytes())


def outline(rle: Rle) -> Outline:
    """The outline of one mask. Raises ValueError when its run lengths do not cover the image exactly."""
    found = json.loads(b"{%b}" % annotation_text(rle))
    x, y, w, h = map(int, found["bbox"])
    return Outline(found["area"], (x, y, x + w, y + h), found["segmentation"])


# --- through the centres of pixels -----------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _pixels(column: Int64, y: Int64, follows: Int64) -> tuple[Any, Any]:
    """The border pixels of a mask of one part without holes, clockwise from the leftmost of its top row, without
    some of those in the middle of vertical runs; nothing for other masks.

    Each edge of the outline belongs to the pixel on its right hand; that pixel's neighbours on the walk are those
    that 8-connected border following finds.
    """
    first = np.int64(0)
    for k in range(0, len(y), 2):
        if y[k] < y[first]:
            first = np.int64(k)
    xs, ys = np.empty(3 * len(y), np.int64), np.empty(3 * len(y), np.int64)
    n, walked, edge = 0, 0, first
    while True:
        following = follows[edge]
        top = edge % 2 == 0
        x = column[edge // 2]
        xs[n], ys[n] = x, y[edge] - (0 if top else 1)
        n += 1
        if y[following] > y[edge]:  # downwards: the pixels are left of the line
            xs[n : n + 2] = x if top else x - 1
            ys[n], ys[n + 1] = y[edge], y[following] - 1
            n += 2
        elif y[following] < y[edge]:
            xs[n : n + 2] = x + 1 if top else x
            ys[n], ys[n + 1] = y[edge] - 1, y[following]
            n += 2
        walked += 1
        edge = following
        if edge == first:
            break
    if walked < len(y):
        return xs[:0], ys[:0]
    return xs[:n], ys[:n]


@njit(nogil=True, cache=True)
def _turning(xs: Int64, ys: Int64) -> Int64:
    """The points where a closed walk turns, in the opposite direction; its first point comes last."""
    n = 0
    for k in range(len(xs)):
        if n == 0 or xs[k] != xs[n - 1] or ys[k] != ys[n - 1]:
            xs[n], ys[n] = xs[k], ys[k]
            n += 1
    while n > 1 and xs[n - 1] == xs[0] and ys[n - 1] == ys[0]:
        n -= 1
    kept = np.empty((n, 2), np.int64)
    m = 0
    for k in range(1, n + 1):
        at, before, after = n - k, (n - k + 1) % n, (n - k - 1) % n
        same_x = np.sign(xs[after] - xs[at]) == np.sign(xs[at] - xs[before])
        same_y = np.sign(ys[after] - ys[at]) == np.sign(ys[at] - ys[before])
        if n < 3 or not (same_x and same_y):
            kept[m, 0], kept[m, 1] = xs[at], ys[at]
            m += 1
    return kept[:m]


@njit(nogil=True, cache=True)
def _centre_texts(
    counts: UInt8, ends: Int64, height: Any, width: Any, x_words: UInt64, y_words: UInt64
) -> tuple[Any, Any]:
    """Where the text of each mask ends, and all texts; of none for a mask that is damaged or not of one part alone."""
    text_ends = np.zeros(len(ends), np.int64)
    text = np.empty(4096, np.uint8)
    start, at = np.int64(0), np.int64(0)
    for i in range(len(ends)):
        good, column, y = column_intervals(counts[start : ends[i]], height, width)
        start = ends[i]
        if good and len(column) > 0:
            xs, ys = _pixels(column, y, _links(column, y))
            if len(xs) > 0:
                ring = _turning(xs, ys)
                room = 18 * max(3, len(ring)) + 8
                if at + room > len(text):
                    grown = np.empty(2 * (at + room), np.uint8)
                    grown[:at] = text[:at]
                    text = grown
                for k in range(max(3, len(ring))):  # a pixel or a line has fewer points: its points again
                    point = k % len(ring)
                    _store(text, at, x_words[ring[point, 0]])
                    _store(text, at + 9, y_words[ring[point, 1]])
                    text[at + 8] = text[at + 17] = 32
                    at += 18
        text_ends[i] = at
    return text_ends, text[:at]


def centre_texts(masks: Sequence[Rle], x_words: UInt64, y_words: UInt64) -> list[str | None]:
    """The points where the border turns, as text `x y x y ...`, of masks of one size, each of one part without holes.

    A column's or row's number is written as that word of its list, eight characters each. The points are those that
    cv2.findContours finds, in its order, but the first one last; at least three, if need be by repeating them.
    None for other masks, and for damaged ones.
    """
    if not masks:
        return []
    (height, width), counts, ends = _joined(masks)
    text_ends, text = _centre_texts(counts, ends, height, width, x_words, y_words)
    found: list[str | None] = []
    texts, start = text.tobytes().decode("ascii"), 0
    for end in text_ends.tolist():
        found.append(texts[start : end - 1] if end > start else None)
        start = end
    return found


def _joined(masks: Sequence[Rle]) -> tuple[tuple[int, int], UInt8, Int64]:
    """The size of all masks, their strings one after another, and where each ends."""
    height, width = size_hw = masks[0].size_hw
    if any(mask.size_hw != size_hw for mask in masks):
        raise ValueError(f"masks of several sizes, one of them {width}x{height}")
    return size_hw, *strung([mask.counts for mask in masks])


def strung(pieces: Sequence[bytes]) -> tuple[UInt8, Int64]:
    """One after another, and where each ends."""
    return np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(list(map(len, pieces)), dtype=np.int64)
