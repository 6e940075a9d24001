"""CVAT for images 1.1: the XML as a stream of its labels and then its images, with their shapes. Knows no paths.

CVAT turns pictures upright by their EXIF tag, so the coordinates are upright ones. Entities are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

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
    turned,
    whole,
)
from autolabel.ops.row_rle import from_crop_runs
from autolabel.ops.xml_json import children_json

_IMAGE = frozenset(("id", "name", "width", "height", "subset"))
_DRAWN = frozenset(("box", "polygon", "mask", "ellipse"))
_NO_AREA = frozenset(("points", "polyline", "cuboid", "skeleton"))
_MASK = ("rle", "left", "top", "width", "height")
_BOX = ("xtl", "ytl", "xbr", "ybr")
_ELLIPSE = ("cx", "cy", "rx", "ry")
_OWN_PLACE = frozenset(("label", "points", "group_id", *_MASK, *_BOX, *_ELLIPSE))
_USUAL = {"occluded": "0", "z_order": "0", "rotation": "0.0"}


@dataclass(frozen=True, slots=True, eq=False)
class CvatLabels:
    """The labels of the task in the order of the file, each with its other fields as JSON text."""

    extras: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class CvatImage:
    """`number` is its position in the file from 0. `problem` says why its shapes cannot be used."""

    number: int
    id: int | None
    name: str
    subset: str | None
    size_hw: tuple[int, int] | None = None
    shapes: tuple[Drawn, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)
    extra: str = ""
    problem: str = ""


def read_cvat(stream: IO[bytes]) -> Iterator[CvatLabels | CvatImage]:
    """Each set of labels (one a task), each image; what was given is forgotten. Raises BadShape, with the line,
    for a file that is no such XML."""
    try:
        yield from _elements(stream)
    except DefusedXmlException as e:
        raise BadShape(f"entities are refused: {type(e).__name__}") from e
    except ParseError as e:
        raise BadShape(f"not XML: {e}") from e
    except (LookupError, UnicodeError) as e:
        raise BadShape(f"its encoding cannot be read: {e}") from e


def _elements(stream: IO[bytes]) -> Iterator[CvatLabels | CvatImage]:
    path: list[Element] = []
    images = 0
    for event, element in iterparse(stream, events=("start", "end")):
        if event == "start":
            path.append(element)
            if len(path) == 1 and element.tag != "annotations":
                raise BadShape(f"the top element is <{str(element.tag)[:40]}>, not <annotations>")
            continue
        path.pop()
        if element.tag == "track" and len(path) == 1:
            raise BadShape("this is 'CVAT for video'; export the task as 'CVAT for images 1.1'")
        if element.tag == "labels" and len(path) > 1:
            yield _labels(element)
        elif element.tag == "image" and len(path) == 1:
            yield _image(element, images)
            images += 1
            path[0].clear()


def _labels(element: Element) -> CvatLabels:
    found = {}
    for label in element.findall("label"):
        name = label.findtext("name", "").strip()
        if name:
            found[name] = extra_text(children_json(label, ("name",)))
    return CvatLabels(found)


def _image(element: Element, position: int) -> CvatImage:
    id_ = element.get("id", "")
    subset = element.get("subset")
    known = CvatImage(position, int(id_) if _is_count(id_) else None, element.get("name", ""), subset)
    try:
        return _with_shapes(known, element)
    except ValueError as e:
        return replace(known, problem=str(e))


def _with_shapes(known: CvatImage, element: Element) -> CvatImage:
    size_hw = picture_size(element.get("height"), element.get("width"))
    ignored: Counter[str] = Counter()
    shapes = []
    for n, child in enumerate((c for c in element if c.tag in _DRAWN | _NO_AREA), 1):
        with at(f"shape {n} (<{child.tag}>)"):
            shape = _shape(child, size_hw, ignored)
        if shape is not None:
            shapes.append(shape)
    extra = {
        **{key: value for key, value in element.attrib.items() if key not in _IMAGE},
        **children_json(element, _DRAWN | _NO_AREA),
    }
    return replace(known, size_hw=size_hw, shapes=tuple(shapes), ignored=ignored, extra=extra_text(extra))


def _shape(element: Element, size_hw: tuple[int, int] | None, ignored: Counter[str]) -> Drawn | None:
    label = element.get("label", "").strip()
    if not label:
        raise BadShape("a shape needs a label")
    if element.tag in _NO_AREA:
        ignored[f"{element.tag} shapes"] += 1
        return None
    more: dict[str, Any] = {"group": _group(element), "extra": _extra(element)}
    rotation = number(element.get("rotation", "0"), "rotation")
    if element.tag == "polygon":
        points = [number(v, "a coordinate") for xy in element.get("points", "").split(";") for v in xy.split(",")]
        return outlined(label, tuple(points), **more)
    if element.tag == "mask":
        return brushed(label, _mask(element, size_hw), **more)
    if element.tag == "ellipse":
        cx, cy, rx, ry = (_number(element, name) for name in _ELLIPSE)
        return outlined(label, ellipse((cx, cy), (rx, ry), rotation), **more)
    x0, y0, x1, y1 = (_number(element, name) for name in _BOX)
    if rotation:
        corners = turned((x0, y0, x1, y0, x1, y1, x0, y1), ((x0 + x1) / 2, (y0 + y1) / 2), rotation)
        more["extra"]["box"] = [x0, y0, x1, y1]
        return rectangle(label, corners, **more)
    return rectangle(label, (x0, y0, x1, y1), **more)


def _group(element: Element) -> str:
    """CVAT numbers groups from 1: 0 is not a group. Its own exports leave it out, those of others may not."""
    group = element.get("group_id", "")
    return "" if group == "0" else group


def _extra(element: Element) -> dict[str, Any]:
    """Everything but geometry; of `occluded` and `z_order` only what is not the usual 0."""
    fields: dict[str, Any] = {
        key: value for key, value in element.attrib.items() if key not in _OWN_PLACE and _USUAL.get(key) != value
    }
    if group := _group(element):
        fields["group_id"] = group
    if element.tag == "ellipse":
        fields["ellipse"] = {name: element.get(name) for name in _ELLIPSE}
    attributes = {a.get("name", ""): (a.text or "").strip() for a in element.findall("attribute")}
    if attributes.get("iscrowd") == "true":  # ours; other files have no crowds
        fields["iscrowd"] = True
        del attributes["iscrowd"]
    return {**fields, "attributes": attributes} if attributes else fields


def _mask(element: Element, size_hw: tuple[int, int] | None) -> Rle:
    if size_hw is None:
        raise BadShape("a mask needs the image's width and height")
    words = element.get("rle", "").replace(" ", "").split(",")
    if not all(_is_count(word) for word in words):
        raise BadShape("`rle` must be whole numbers with commas")
    left, top, width, height = (whole(element.get(name), name) for name in ("left", "top", "width", "height"))
    return from_crop_runs(np.array(words, np.int64), (left, top, width, height), size_hw)


def _number(element: Element, name: str) -> float:
    return number(element.get(name), name)


def _is_count(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 13
