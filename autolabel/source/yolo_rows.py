"""The text of one YOLO label file to Labels. Knows no folders.

Rows are strict: `class cx cy w h` is a box, `class x1 y1 … xn yn` with three points or more is a polygon, in
fractions of the upright picture. Anything else (a confidence at the end, commas, pixels instead of fractions)
is refused with its line, where the ultralytics loader would drop the whole picture, or read box and two
extra numbers as a triangle. Boxes and polygons may stand in one file.
"""

from __future__ import annotations

import math

import numpy as np

from autolabel.core.types import Labels, Polygon
from autolabel.ops.boxes import cxcywh_to_xyxy

TOLERANCE = 0.01
"""How far a coordinate may lie outside [0, 1]; ultralytics allows as much. Beyond it, it is not a fraction."""


class BadRow(ValueError):
    """The text starts with `line N:`."""


def parse_rows(text: str, num_classes: int | None) -> Labels:
    """Normalized Labels; category id = class index + 1. Raises BadRow at the first row that is not clean."""
    boxes: list[tuple[float, ...]] = []
    shapes: list[tuple[Polygon, ...] | None] = []
    classes: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        tokens = line.split()
        if not tokens:
            continue
        try:
            index, values = _class_index(tokens[0], num_classes), _fractions(tokens[1:])
        except BadRow as e:
            raise BadRow(f"line {number}: {e}") from e
        is_box = len(values) == 4
        classes.append(index + 1)
        boxes.append(_box(values) if is_box else _bounds(values))
        shapes.append(None if is_box else (values,))
    return Labels(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes, np.int64),
        tuple(shapes),
        (None,) * len(classes),
        (False,) * len(classes),
        normalized=True,
        convention="yolo",
    )


def _class_index(token: str, num_classes: int | None) -> int:
    if not (token.isascii() and token.isdigit() and len(token) < 10):
        raise BadRow(f"the class must be a whole number, got {token!r}")
    index = int(token)
    if num_classes is not None and index >= num_classes:
        raise BadRow(f"class {index}, but there are {num_classes} classes (0..{num_classes - 1})")
    return index


def _fractions(tokens: list[str]) -> Polygon:
    if len(tokens) != 4 and (len(tokens) < 6 or len(tokens) % 2):
        raise BadRow(f"a row has 5 numbers (box), or 7, 9, 11, … (polygon), this one has {len(tokens) + 1}")
    try:
        values = tuple(float(token) for token in tokens)
    except ValueError as e:
        raise BadRow(f"not a number: {e}") from e
    for value in values:
        if not math.isfinite(value) or not -TOLERANCE <= value <= 1 + TOLERANCE:
            raise BadRow(f"{value} is not a fraction of the image")
    return values


def _box(values: Polygon) -> tuple[float, ...]:
    return tuple(float(v) for v in cxcywh_to_xyxy(np.array([values]))[0])


def _bounds(ring: Polygon) -> tuple[float, ...]:
    return min(ring[0::2]), min(ring[1::2]), max(ring[0::2]), max(ring[1::2])
