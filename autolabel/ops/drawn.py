"""What people draw in annotation tools, whichever tool it was: rectangles, outlines, brushed masks, in groups.
Knows no file format; the modules that do (labelme_file.py, cvat_file.py, studio_file.py) make these values.

Coordinates are continuous pixels of a picture whose size the file states: pixel (x, y) covers [x, x+1] x [y, y+1].
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autolabel.core.types import Labels, Polygon, Rle
from autolabel.ops.masks import bounds_xyxy, from_polygons, union

MAX_SIDE = 1 << 20
_MAX_PIXELS = 1 << 28
_MAX_NESTING = 50
_LARGEST = 1e9
_LONGEST_PX = 1 << 23
"""The longest outline: what fills it takes memory for every pixel of its length, inside the picture or not."""
_ROUNDNESS_PX = 0.05
"""How far the outline of an ellipse may lie inside the true one."""

_CROWD: dict[object, bool] = {None: False, 0: False, 1: True, "0": False, "1": True}
"""false and 0.0 are equal to 0."""

Area = tuple[Polygon, ...] | Rle


class BadShape(ValueError):
    """A shape cannot be read; the text says which and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One shape. `area` is None for a bare rectangle. Shapes of one label and one `group` (not "") are parts of
    one object. `extra` holds what has no place here."""

    label: str
    box_xyxy: tuple[float, float, float, float]
    area: Area | None = None
    group: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def rectangle(label: str, corners: Sequence[float], **more: Any) -> Drawn:
    """A bare box from any two opposite corners, or around any number of points."""
    return Drawn(label, _around(corners), None, **more)


def outlined(label: str, polygon: Polygon, **more: Any) -> Drawn:
    """Raises BadShape when there is no area to outline (fewer than three points), or no end of it."""
    if len(polygon) < 6 or len(polygon) % 2:
        raise BadShape(f"an outline needs three points or more, got {len(polygon)} numbers")
    points = np.array(polygon, np.float64).reshape(-1, 2)
    if np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() > _LONGEST_PX:
        raise BadShape(f"an outline longer than {_LONGEST_PX} px")
    return Drawn(label, _around(polygon), (polygon,), **more)


def brushed(label: str, mask: Rle, **more: Any) -> Drawn:
    """Raises BadShape for a mask without a pixel."""
    bounds = bounds_xyxy(mask)
    if bounds is None:
        raise BadShape("the mask has no pixel")
    x0, y0, x1, y1 = bounds
    return Drawn(label, (float(x0), float(y0), float(x1), float(y1)), mask, **more)


def ellipse(centre_xy: tuple[float, float], radii_xy: tuple[float, float], degrees: float = 0.0) -> Polygon:
    """An outline with as many points as it takes to be true to a twentieth of a pixel; clockwise degrees."""
    if min(radii_xy) <= 0:
        raise BadShape(f"the radii must be above 0, got {radii_xy[0]:g} and {radii_xy[1]:g}")
    step = math.acos(max(0.0, 1 - _ROUNDNESS_PX / max(radii_xy)))
    angles = np.linspace(0, 2 * math.pi, max(8, math.ceil(math.pi / step)), endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(radii_xy)
    turned_xy = turned(points.ravel().tolist(), (0.0, 0.0), degrees)
    return tuple(float(v) for v in (np.array(turned_xy).reshape(-1, 2) + np.array(centre_xy)).ravel())


def turned(points: Sequence[float], centre_xy: tuple[float, float], degrees: float) -> Polygon:
    """Points `x0, y0, x1, y1, …` turned clockwise, as seen, around `centre_xy`."""
    if not degrees:
        return tuple(points)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centred = np.array(points, np.float64).reshape(-1, 2) - np.array(centre_xy)
    return tuple(float(v) for v in (centred @ np.array([[c, s], [-s, c]]) + np.array(centre_xy)).ravel())


def number(value: object, what: str) -> float:
    """A finite number, or the text of one. Raises BadShape."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not abs(found) < _LARGEST:
        raise BadShape(f"{what} must be a finite number, got {str(value)[:40]!r}")
    return found


def whole(value: object, what: str) -> int:
    found = number(value, what)
    if found != int(found):
        raise BadShape(f"{what} must be a whole number, got {str(value)[:40]!r}")
    return int(found)


def picture_size(height: object, width: object) -> tuple[int, int] | None:
    """The stated size, None where none is stated. Raises BadShape for one that no picture has."""
    if height is None or width is None:
        return None
    size = whole(height, "the picture's height"), whole(width, "the picture's width")
    if not all(0 < side <= MAX_SIDE for side in size) or size[0] * size[1] > _MAX_PIXELS:
        raise BadShape(f"a picture of {size[1]}x{size[0]} px is not possible")
    return size


def joined(shapes: Sequence[Drawn], size_hw: tuple[int, int] | None) -> list[Drawn]:
    """The parts of each object as one, where the first of them stood. Bare rectangles join nothing."""
    found: dict[object, list[Drawn]] = {}
    for n, shape in enumerate(shapes):
        single = not shape.group or shape.area is None
        found.setdefault(n if single else (shape.label, shape.group), []).append(shape)
    return [parts[0] if len(parts) == 1 else _one(parts, size_hw) for parts in found.values()]


def labels_of(
    shapes: Sequence[Drawn], ids: Mapping[str, int], size_hw: tuple[int, int] | None, crowd: str = "iscrowd"
) -> Labels:
    """The Labels, the shapes being objects. A true `extra[crowd]` makes an object a crowd."""
    return Labels(
        np.array([shape.box_xyxy for shape in shapes], np.float32).reshape(-1, 4),
        np.array([ids[shape.label] for shape in shapes], np.int64),
        tuple(shape.area for shape in shapes),
        (None,) * len(shapes),
        tuple(shape.extra.get(crowd) is True for shape in shapes),
        size_hw=size_hw,
        extras=tuple(extra_text({k: v for k, v in shape.extra.items() if k != crowd}) for shape in shapes),
    )


def mask_of(shape: Drawn, size_hw: tuple[int, int]) -> Rle | None:
    """The pixels of a shape; None for a bare rectangle."""
    if shape.area is None or isinstance(shape.area, Rle):
        return shape.area
    try:
        return from_polygons(shape.area, size_hw)
    except ValueError as e:
        raise BadShape(str(e)) from e


def extra_text(fields: Mapping[str, Any]) -> str:
    """JSON text of unknown fields, "" when there are none. Raises BadShape for what could not be read again."""
    if not fields:
        return ""
    if _deeper(fields, _MAX_NESTING):
        raise BadShape(f"an unknown field is nested deeper than {_MAX_NESTING}")
    try:
        return json.dumps(fields, allow_nan=False, separators=(",", ":"))
    except ValueError as e:
        raise BadShape("an unknown field has a number that is out of range") from e


def is_crowd(value: object) -> bool:
    """What COCO's `iscrowd` says. Raises BadShape for anything but a clear yes or no: most formats leave a crowd
    out."""
    if isinstance(value, dict | list) or value not in _CROWD:
        raise BadShape(f"iscrowd must be 0 or 1, got {shown(value)}")
    return _CROWD[value]


def shown(value: object) -> str:
    """For a message; what can be nested without end is only named."""
    return type(value).__name__ if isinstance(value, dict | list) else repr(value)[:80]


@contextmanager
def at(where: str) -> Iterator[None]:
    """A ValueError inside becomes a BadShape that begins with `where`."""
    try:
        yield
    except ValueError as e:
        raise BadShape(f"{where}: {e}") from e


def category_ids(labels: Iterable[str]) -> dict[str, int]:
    """Ids from 1, by the names' order."""
    return {name: id_ for id_, name in enumerate(sorted(set(labels)), 1)}


def _one(parts: Sequence[Drawn], size_hw: tuple[int, int] | None) -> Drawn:
    first, areas = parts[0], [part.area for part in parts if part.area is not None]
    area: Area | None
    if any(isinstance(one, Rle) for one in areas):
        if size_hw is None:
            raise BadShape(f"group {first.group}: masks and outlines cannot be joined without a picture size")
        area = union(mask for part in parts if (mask := mask_of(part, size_hw)) is not None)
    else:
        area = tuple(ring for one in areas if not isinstance(one, Rle) for ring in one)
    others = [part.extra for part in parts[1:]]
    different = any(other != first.extra for other in others)
    extra = {**first.extra, "parts": others} if different else first.extra
    return replace(first, box_xyxy=_around([v for part in parts for v in part.box_xyxy]), area=area, extra=extra)


def _around(points: Sequence[float]) -> tuple[float, float, float, float]:
    return min(points[0::2]), min(points[1::2]), max(points[0::2]), max(points[1::2])


def _deeper(value: object, levels: int) -> bool:
    if not isinstance(value, Mapping | list):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(_deeper(v, levels - 1) for v in inner)
