"""Files of clicks, CSV or JSON. What is wrong with one click is its object's problem later; what is wrong with the
file as a whole raises ConfigError here.

CSV: a header with `image`, `x`, `y`, `sign` and, if a picture has several objects, `object`; a line a click.
JSON: `{"<image id>": [{"object": "<name>", "points": [[x, y], ...], "signs": [1, 0, ...]}, ...], ...}`.
Coordinates are pixels of the upright picture; a sign is 1 (inside) or 0 (outside), also `+` and `-`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autolabel.core.errors import SettingError
from autolabel.core.types import Float32, Int64

UNSIGNED = -2
"""The sign of a click that has none; no model is asked with it."""
_SIGNS = {"1": 1, "+": 1, "0": 0, "-": 0}
_COLUMNS = ("image", "x", "y", "sign")


@dataclass(frozen=True, slots=True, eq=False)
class Clicks:
    """About one object: its name in the file, points (P, 2) and signs (P,)."""

    name: str
    points_xy: Float32
    signs: Int64


def read_clicks(path: Path, text: str) -> dict[str, list[Clicks]]:
    """The objects of each image id, in the file's order."""
    rows = _json_rows(path, text) if path.suffix.lower() == ".json" else _csv_rows(path, text)
    if not rows:
        raise SettingError(f"file {str(path)!r} holds no click")
    grouped: dict[str, dict[str | int, list[tuple[float, float, int]]]] = {}
    for image, name, x, y, sign in rows:
        grouped.setdefault(image, {}).setdefault(name, []).append((x, y, sign))
    return {image: [_clicks(name, some) for name, some in groups.items()] for image, groups in grouped.items()}


Row = tuple[str, str | int, float, float, int]
"""A click: image, object, x, y, sign. An object without a name is the number of its place: no name equals it."""


def _clicks(name: str | int, rows: Sequence[tuple[float, float, int]]) -> Clicks:
    points = np.array([row[:2] for row in rows], np.float32).reshape(-1, 2)
    shown = f"#{name}" if isinstance(name, int) else name
    return Clicks(shown, points, np.array([row[2] for row in rows], np.int64))


def _csv_rows(path: Path, text: str) -> list[Row]:
    table = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise SettingError(
                f"file {str(path)!r} has no column {', '.join(missing)}; "
                "its first line must be image,object,x,y,sign"
            )
        return [
            (row["image"], row.get("object") or "", _number(row["x"]), _number(row["y"]), _sign(row["sign"]))
            for row in table
            if row["image"]
        ]
    except csv.Error as error:
        raise SettingError(f"file {str(path)!r} line {table.line_num}: {error}") from error


def _json_rows(path: Path, text: str) -> list[Row]:
    try:
        top = json.loads(text, object_pairs_hook=lambda pairs: _once(path, pairs))
    except (ValueError, RecursionError) as error:
        raise SettingError(f"file {str(path)!r} is not JSON: {error}") from error
    if not isinstance(top, dict):
        raise SettingError(f"file {str(path)!r} must be an object of image ids, got {type(top).__name__}")
    rows: list[Row] = []
    for image, objects in top.items():
        if not isinstance(objects, list):
            raise SettingError(f"file {str(path)!r}: {image!r} must hold a list of objects")
        for at, one in enumerate(objects):
            rows += _json_object(f"file {str(path)!r}: {image!r}[{at}]", image, at, one)
    return rows


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Of a repeated key JSON keeps the last value: the clicks of the others would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise SettingError(f"file {str(path)!r} has {twice!r} twice in one object; make one list of both")
    return found


def _json_object(where: str, image: str, at: int, one: Any) -> list[Row]:
    points = one.get("points") if isinstance(one, Mapping) else None
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points) or not points:
        raise SettingError(f"{where} must be an object with `points`, a list of [x, y]")
    signs = one.get("signs")
    if not isinstance(signs, list) or len(signs) != len(points):
        signs = [None] * len(points)
    called = one.get("object")
    name = at if called is None else str(called)
    return [(image, name, _number(x), _number(y), _sign(s)) for (x, y), s in zip(points, signs, strict=True)]


def _number(value: object) -> float:
    """NaN for what is not a number: that click's object is refused, not the file."""
    try:
        return float(value) if isinstance(value, str | int | float) else float("nan")
    except (ValueError, OverflowError):
        return float("nan")


def _sign(value: object) -> int:
    return UNSIGNED if isinstance(value, bool) or value is None else _SIGNS.get(str(value).strip(), UNSIGNED)
