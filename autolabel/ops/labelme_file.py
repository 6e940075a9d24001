"""One LabelMe JSON (version 3.16 to 6) to shapes. Reads text only, no pictures.

LabelMe turns pictures upright by their EXIF tag before anything is drawn, so the coordinates are upright ones;
files of tools that do not are told by the size that they state.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autolabel.core.errors import ImageError
from autolabel.core.types import Rle
from autolabel.ops.drawn import (
    BadShape,
    Drawn,
    at,
    brushed,
    ellipse,
    extra_text,
    number,
    outlined,
    picture_size,
    rectangle,
    whole,
)
from autolabel.ops.index_png import decode_index_png
from autolabel.ops.masks import encode_crop

Json = dict[str, Any]

_TOP = frozenset(("version", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"))
_SHAPE = frozenset(("label", "points", "shape_type", "group_id", "mask"))
_NO_AREA = frozenset(("point", "points", "line", "linestrip"))
_TURNED = frozenset(("oriented_rectangle", "rotation"))
"""Boxes that were turned, by their corners: the second is X-AnyLabeling's."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelMeFile:
    """`ignored` counts shapes without an area, by their type. `extra` is JSON text."""

    image_path: str
    size_hw: tuple[int, int] | None
    shapes: tuple[Drawn, ...]
    ignored: Counter[str]
    extra: str


def is_labelme(top: object) -> bool:
    return isinstance(top, dict) and isinstance(top.get("shapes"), list)


def survey_labelme(text: str) -> tuple[str, frozenset[str]] | None:
    """The picture's name as the file states it, and the labels in it; None for JSON that is not a LabelMe file.
    Raises BadShape for what is not JSON."""
    top = _json(text)
    if not is_labelme(top):
        return None
    rows = [row for row in top["shapes"] if isinstance(row, dict) and _kind(row) not in _NO_AREA]
    labels = frozenset(label for row in rows if isinstance(label := row.get("label"), str) and label)
    path = top.get("imagePath")
    return path if isinstance(path, str) else "", labels


def parse_labelme(text: str) -> LabelMeFile:
    """Raises BadShape, naming the shape's position, for anything that is not a whole LabelMe file."""
    top = _json(text)
    if not is_labelme(top):
        raise BadShape("not a LabelMe file: it has no list `shapes`")
    size_hw = picture_size(top.get("imageHeight"), top.get("imageWidth"))
    ignored: Counter[str] = Counter()
    shapes = []
    for n, row in enumerate(top["shapes"]):
        with at(f"shapes[{n}]"):
            shape = _shape(row, size_hw, ignored)
        if shape is not None:
            shapes.append(shape)
    path = top.get("imagePath")
    fields = {key: value for key, value in top.items() if key not in _TOP and value}
    return LabelMeFile(
        path if isinstance(path, str) else "",
        size_hw,
        tuple(shapes),
        ignored,
        extra_text(fields),
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise BadShape(f"not JSON: {e}") from e


def _shape(row: object, size_hw: tuple[int, int] | None, ignored: Counter[str]) -> Drawn | None:
    if not isinstance(row, dict):
        raise BadShape("a shape must be an object")
    label, kind = row.get("label"), _kind(row)
    if not isinstance(label, str) or not label:
        raise BadShape(f"a shape needs a label, got {label!r}")
    if kind in _NO_AREA:
        ignored[f"{kind} shapes"] += 1
        return None
    points, more = _points(row.get("points")), _more(row)
    if kind == "mask":
        return brushed(label, _mask(row.get("mask"), points, size_hw), **more)
    if kind == "circle":
        more["extra"].update(shape_type="circle", points=row["points"])
        return outlined(label, _circle(points), **more)
    if kind == "rectangle" or kind in _TURNED:
        if len(points) < 4:
            raise BadShape("a rectangle needs two points")
        if kind in _TURNED:
            more["extra"].update(shape_type=kind, points=row["points"])
        return rectangle(label, points, **more)
    if kind != "polygon":
        raise BadShape(f"a shape of type {kind[:40]!r} is not known")
    return outlined(label, tuple(points), **more)


def _kind(row: Mapping[str, Any]) -> str:
    """Files before 4.0 have no type; what is not text is not a known type."""
    stated = row.get("shape_type") or "polygon"
    return stated if isinstance(stated, str) else type(stated).__name__


def _points(value: object) -> list[float]:
    if not isinstance(value, list) or not value:
        raise BadShape("`points` must be a list of [x, y]")
    if any(not isinstance(point, list) or len(point) != 2 for point in value):
        raise BadShape("`points` must be a list of [x, y]")
    return [number(v, "a coordinate") for point in value for v in point]


def _more(row: Mapping[str, Any]) -> dict[str, Any]:
    group = row.get("group_id")
    # Flags and the description come last and only when there are any; the rest is unknown to LabelMe too.
    extra = {key: value for key, value in row.items() if key not in _SHAPE and value not in (None, "", {})}
    flags = extra.get("flags")
    if isinstance(flags, dict) and flags.get("iscrowd") is True:
        extra["iscrowd"] = True
        extra["flags"] = {key: value for key, value in flags.items() if key != "iscrowd"}
    if group is None:
        return {"extra": extra}
    extra["group_id"] = group
    return {"group": str(group), "extra": extra}


def _circle(points: list[float]) -> tuple[float, ...]:
    """A centre and a point on the line."""
    if len(points) != 4:
        raise BadShape("a circle needs two points")
    radius = math.hypot(points[2] - points[0], points[3] - points[1])
    return ellipse((points[0], points[1]), (radius, radius))


def _mask(data: object, points: list[float], size_hw: tuple[int, int] | None) -> Rle:
    """A PNG of the box between two points, both inclusive; anything but 0 is inside."""
    if size_hw is None:
        raise BadShape("a mask needs imageHeight and imageWidth")
    if len(points) != 4 or not isinstance(data, str):
        raise BadShape("a mask needs two points and a base64 PNG")
    x0, y0, x1, y1 = (whole(value, "a corner of a mask") for value in points)
    try:
        crop = decode_index_png(base64.b64decode(data, validate=True), size_hw[0] * size_hw[1])
    except (binascii.Error, ImageError) as e:
        raise BadShape(f"the mask is not a readable PNG: {e}") from e
    if crop.shape != (y1 - y0 + 1, x1 - x0 + 1):
        raise BadShape(f"the mask is a PNG of {crop.shape[::-1]} px in a box of {(x1 - x0 + 1, y1 - y0 + 1)}")
    if x0 < 0 or y0 < 0 or x1 >= size_hw[1] or y1 >= size_hw[0]:
        raise BadShape(f"the mask's box ({x0}, {y0})-({x1}, {y1}) is not inside the picture")
    return encode_crop((crop != 0).astype("uint8"), x0, y0, size_hw)
