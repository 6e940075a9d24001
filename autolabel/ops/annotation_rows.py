"""The rows of COCO's `annotations` for many objects at once: most of a data set's text is this, so it is put together
in compiled code, where the outlines are walked. Knows no records and no files.
"""

# Numba's decorators carry no types.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from autolabel.core.types import Columns, Int64, UInt8
from autolabel.ops.outline import UInt64, annotate, digits, literal, literal_words, number_words, strung

T = TypeVar("T")

_PIECES, _LENGTHS = literal_words(
    b'{"id":', b',"image_id":', b',"category_id":', b',"iscrowd":0,', b',"score":', b',"predicted_iou":', b"},\n"
)  # fmt: skip
_MILLION = 1_000_000
_ROOM = 300
"""Bytes around the geometry of a row, with numbers of up to twenty digits."""


class AnnotationRows:
    """Objects of images that are waiting to be written."""

    def __init__(self) -> None:
        self._images: list[tuple[int, ...]] = []
        self._columns: list[Columns] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, image_id: int, first_id: int, size_hw: tuple[int, int], columns: Columns) -> None:
        """The objects of an image of that size; their ids count on from `first_id`."""
        self._images.append((image_id, first_id, len(columns), *size_hw))
        self._columns.append(columns)
        self._length += len(columns)

    def taken(self) -> bytes:
        """The rows of all that was added, one a line with commas between them; nothing is waiting any more.

        Raises ValueError when the run lengths of a mask do not cover its image exactly.
        """
        images, found = np.array(self._images, np.int64), self._columns
        self._images, self._columns, self._length = [], [], 0
        categories = np.array(_all(columns.category_ids for columns in found), np.int64)
        scores = np.array(_all(columns.detector_scores for columns in found), np.float64)
        ious = np.array(_all(columns.predicted_ious for columns in found), np.float64)  # None is NaN
        counts, ends = strung(_all(columns.counts for columns in found))
        longest_side = int(images[:, 3:].max())
        bad, text = _rows(images, categories, scores, ious, counts, ends, *number_words(longest_side))
        if bad >= 0:
            height, width = images[bad, 3:]
            raise ValueError(f"run lengths that do not cover the {width}x{height} px of their mask")
        return bytes(text[: -len(b",\n")].tobytes())


def _all(columns: Iterable[Sequence[T]]) -> list[T]:
    return list(chain.from_iterable(columns))


@njit(nogil=True, cache=True)
def _millionths(value: Any) -> Any:
    """A number from 0 to 1 in millionths, rounded as Python's `round(value, 6)` does."""
    product = value * 1e6
    rounded = np.rint(product)
    beyond = product - rounded
    if abs(beyond) == 0.5:
        # Half way, or so it seems: what the product lost in rounding decides (Dekker 1971).
        high = value * 134217729.0
        high -= high - value
        lost = (high * 1e6 - product) + (value - high) * 1e6
        if beyond * lost > 0:
            rounded += 2 * beyond
    return np.int64(rounded)


@njit(nogil=True, cache=True)
def _fraction(text: UInt8, at: Any, millionths: Any) -> Any:
    """A number from 0 to 1 written as Python does; where the next character goes."""
    if 0 < millionths < 100:
        tens = millionths // 10
        at = digits(text, at, tens if tens else millionths)
        if tens and millionths % 10:
            text[at] = 46
            at = digits(text, at + 1, millionths % 10)
        text[at], text[at + 1], text[at + 2] = 101, 45, 48
        return digits(text, at + 3, 5 if tens else 6)
    at = digits(text, at, millionths // _MILLION)
    text[at] = 46
    rest, place = millionths % _MILLION, _MILLION // 10
    while True:
        at += 1
        text[at] = 48 + rest // place
        rest %= place
        place //= 10
        if rest == 0:
            return at + 1


@njit(nogil=True, cache=True)
def _rows(
    images: Int64,
    categories: Int64,
    scores: NDArray[np.float64],
    ious: NDArray[np.float64],
    counts: UInt8,
    ends: Int64,
    words: UInt64,
    widths: UInt8,
) -> tuple[Any, Any]:
    """The first image with a damaged mask or -1, and the rows."""
    text = np.empty(4096 + 12 * len(counts) + _ROOM * len(ends), np.uint8)  # enough for most
    at, start, k = np.int64(0), np.int64(0), 0
    for i in range(len(images)):
        image_id, first_id, count, height, width = images[i]
        for id_ in range(first_id, first_id + count):
            at = digits(text, literal(text, at, _PIECES, _LENGTHS, 0), id_)
            at = digits(text, literal(text, at, _PIECES, _LENGTHS, 1), image_id)
            at = digits(text, literal(text, at, _PIECES, _LENGTHS, 2), categories[k])
            at = literal(text, at, _PIECES, _LENGTHS, 3)
            good, text, at = annotate(text, at, 2 * _ROOM, counts[start : ends[k]], height, width, words, widths)
            if not good:
                return i, text[:0]
            for piece, value in ((4, scores[k]), (5, ious[k])):
                if not np.isnan(value):
                    at = _fraction(text, literal(text, at, _PIECES, _LENGTHS, piece), _millionths(value))
            at = literal(text, at, _PIECES, _LENGTHS, 6)
            start = ends[k]
            k += 1
    return -1, text[:at]
