"""The text of one YOLO label file to Labels. Knows no folders.

Rows are strict: `class cx cy w h` is a box, `class x1 y1 … xn yn` with three points or more is a polygon, in
fractions of the upright picture. Anything else (a confidence at the end, commas, pixels instead of fractions)
is refused with its line, where the ultralytics loader would drop the whole picture. Boxes and polygons may stand
in one file, and each row is kept for what it is.

Two kinds of row cannot be told apart by their numbers:

    9 numbers   a polygon of four points, unless the person says that the rows are oriented boxes
    7 numbers   a triangle, or a box with two numbers more (a tracker's confidence and id). The loader reads a
                triangle; here, a file in which every row could be such a box is refused until the person says
                that it holds polygons
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from autolabel.core.types import Labels, Polygon
from autolabel.ops.boxes import cxcywh_to_xyxy

TOLERANCE = 0.01
"""How far a coordinate may lie outside [0, 1]; ultralytics allows as much. Beyond it, it is not a fraction."""

RowKind = Literal["auto", "segment", "detect", "obb"]
"""What the rows of a data set are: `auto` tells boxes and polygons apart by their length."""

ROW_KINDS: tuple[str, ...] = get_args(RowKind)

_COLUMNS: dict[RowKind, tuple[Callable[[int], bool], str]] = {
    "auto": (
        lambda count: count == 5 or _is_polygon(count),
        "a row has 5 numbers (box), or 7, 9, 11, … (polygon)",
    ),
    "segment": (lambda count: _is_polygon(count), "a polygon row has 7, 9, 11, … numbers"),
    "detect": (lambda count: count == 5, "a box row has 5 numbers"),
    "obb": (lambda count: count == 9, "an oriented box row has 9 numbers"),
}


class BadRow(ValueError):
    """The text starts with `line N:`."""


@dataclass(frozen=True, slots=True)
class _Row:
    """`values` are the numbers behind the class index."""

    line: int
    index: int
    values: Polygon


def parse_rows(text: str, num_classes: int | None, kind: RowKind = "auto") -> Labels:
    """Normalized Labels; category id = class index + 1. Raises BadRow at the first row that is not clean.

    An oriented box is the upright box around it; its corners are kept in the object's extra fields as `obb`.
    """
    rows = [
        _row(number, line, num_classes, kind) for number, line in enumerate(text.splitlines(), 1) if line.split()
    ]
    if kind == "auto" and rows and all(map(_may_be_a_longer_box, rows)):
        raise BadRow(
            f"line {rows[0].line}: 7 numbers are a triangle, or a box with two numbers more; "
            "if they are triangles, say source=yolo source.rows=segment"
        )
    is_box = [len(row.values) == 4 for row in rows]
    return Labels(
        np.array([_bounds(row.values) for row in rows], np.float32).reshape(-1, 4),
        np.array([row.index + 1 for row in rows], np.int64),
        tuple(None if box or kind == "obb" else (row.values,) for row, box in zip(rows, is_box, strict=True)),
        (None,) * len(rows),
        (False,) * len(rows),
        normalized=True,
        convention="yolo",
        extras=tuple(json.dumps({"obb": row.values}) for row in rows) if kind == "obb" else (),
    )


def _row(number: int, line: str, num_classes: int | None, kind: RowKind) -> _Row:
    tokens = line.split()
    try:
        is_right, what = _COLUMNS[kind]
        index = _class_index(tokens[0], num_classes)
        if not is_right(len(tokens)):
            raise BadRow(f"{what}, this one has {len(tokens)}")
        values = _numbers(tokens[1:])
        _check_fractions(_centred(values) if kind == "obb" else values)
    except BadRow as e:
        raise BadRow(f"line {number}: {e}") from e
    return _Row(number, index, values)


def _is_polygon(count: int) -> bool:
    return count >= 7 and count % 2 == 1


def _class_index(token: str, num_classes: int | None) -> int:
    if not (token.isascii() and token.isdigit() and len(token) < 10):
        raise BadRow(f"the class must be a whole number, got {token!r}")
    index = int(token)
    if num_classes is not None and index >= num_classes:
        raise BadRow(f"class {index}, but there are {num_classes} classes (0..{num_classes - 1})")
    return index


def _numbers(tokens: list[str]) -> Polygon:
    try:
        values = tuple(float(token) for token in tokens)
    except ValueError as e:
        raise BadRow(f"not a number: {e}") from e
    for value in values:
        if not math.isfinite(value):
            raise BadRow(f"{value} is not a fraction of the image")
    return values


def _check_fractions(values: Polygon) -> None:
    for value in values:
        if not -TOLERANCE <= value <= 1 + TOLERANCE:
            raise BadRow(f"{value} is not a fraction of the image")


def _centred(ring: Polygon) -> Polygon:
    """Centre and size of an oriented box. It may reach out of the picture: the loader asks this of its numbers."""
    x0, y0, x1, y1 = _bounds(ring)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def _may_be_a_longer_box(row: _Row) -> bool:
    """A row of 7 numbers whose first four are a box inside the picture. A triangle with a point that is there
    twice is how a single pixel or a line is written; no box looks like that but by accident."""
    if len(row.values) != 6:
        return False
    points = {row.values[:2], row.values[2:4], row.values[4:]}
    box = _bounds(row.values[:4])
    return len(points) == 3 and min(box) >= -TOLERANCE and max(box) <= 1 + TOLERANCE


def _bounds(values: Polygon) -> tuple[float, ...]:
    """The corners of a box row's box, or of the box around a ring."""
    if len(values) == 4:
        return tuple(float(v) for v in cxcywh_to_xyxy(np.array([values]))[0])
    return min(values[0::2]), min(values[1::2]), max(values[0::2]), max(values[1::2])
