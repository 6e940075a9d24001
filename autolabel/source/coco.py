"""A COCO annotation file: pictures with boxes, polygons and RLE masks. Decodes no mask and no picture.

What makes the file as a whole ambiguous or dangerous (not JSON, ids that repeat or point nowhere, names that
lead out of the folder) raises SourceError. What is wrong with one annotation's geometry makes its picture
`failed:bad_label`, naming the file and the annotation, and the run goes on.
"""

from __future__ import annotations

import itertools
import json
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef, Labels, Polygon, Problem, Rle
from autolabel.ops.boxes import xywh_to_xyxy
from autolabel.ops.masks import encode
from autolabel.source.locate import check_optional_path, check_path, contained, read_label_text

_MAX_BYTES = 8 << 30
_PROBE = 100
_MAX_PIXELS = 1 << 28
Json = dict[str, Any]


class _BadLabel(Exception):
    """One annotation cannot be used; the text says why."""


class CocoSource:
    """Image ids are the file's `file_name`s, in the file's order; `split` is kept where an image has one.

    The pictures are looked for in `images_dir` and its parent, or beside the file, in `images/` beside it, and
    the same one folder up (for `annotations/x.json`): the first place that has one of the first pictures
    serves for all. Ids given as strings of digits are read as integers.
    """

    def __init__(self, *, path: str, images_dir: str | None) -> None:
        self._path = check_path("source.path", path)
        self._images_dir = check_optional_path("source.images_dir", images_dir)

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(Category(id_, name) for id_, name in sorted(self._categories.items()))

    @property
    def document(self) -> str:
        return ""

    @property
    def ignored(self) -> Mapping[str, int]:
        return {}

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError, naming file and position, when the file as a whole cannot be trusted."""
        names, groups, _ = self._names, self._annotations, self._categories  # all checked before the first
        root = self._root(names.values())
        for id_, image in self._images.items():
            split = image.get("split")
            ref = ImageRef(
                names[id_],
                posixpath.join(root, names[id_]),
                split=split if isinstance(split, str) and split else None,
            )
            yield self._with_labels(ref, image, groups.get(id_, []))

    def _with_labels(self, ref: ImageRef, image: Json, annotations: list[Json]) -> ImageRef:
        try:
            labels = _labels(annotations, _declared_size(image))
        except _BadLabel as e:
            problem = Problem("bad_label", f"{self._path}: {e}")
            return replace(ref, problem=problem)
        return replace(ref, labels=labels)

    def _root(self, names: Iterable[str]) -> str:
        here = posixpath.dirname(posixpath.abspath(self._path))
        if self._images_dir is not None:
            given = posixpath.abspath(self._images_dir)
            places = [given, posixpath.dirname(given)]
        else:
            up = posixpath.dirname(here)
            places = [here, posixpath.join(here, "images"), up, posixpath.join(up, "images")]
        first = list(itertools.islice(names, _PROBE))
        for place in places:
            if any(posixpath.exists(posixpath.join(place, name)) for name in first):
                return place
        return places[0]

    @cached_property
    def _json(self) -> Json:
        text = read_label_text(self._path, _MAX_BYTES)
        try:
            top = json.loads(text, parse_constant=lambda name: self._not_a_number(text, name))
        except (json.JSONDecodeError, RecursionError) as e:
            raise SourceError(f"{self._path!r} is not JSON: {e}") from e
        if not isinstance(top, dict) or not isinstance(top.get("images"), list):
            raise SourceError(
                f"{self._path!r} is not a COCO annotation file: it needs an object with `images`, `annotations` "
                f"and `categories`, this is {_describe(top)}"
            )
        return top

    def _not_a_number(self, text: str, name: str) -> NoReturn:
        # json names no position here; the first bare word is the one it stopped at.
        match = re.search(rf"(?<=[\[,:\s]){re.escape(name)}\b", text)
        line = text.count("\n", 0, match.start()) + 1 if match else 0
        raise SourceError(f"{self._path!r} line {line}: {name} is no JSON number; write finite values")

    def _rows(self, key: str) -> list[Json]:
        rows = self._json.get(key, [])
        if not isinstance(rows, list):
            raise SourceError(f"{self._path!r}: `{key}` must be a list, got {type(rows).__name__}")
        for at, row in enumerate(rows):
            if not isinstance(row, dict):
                raise SourceError(f"{self._path!r}: {key}[{at}] must be an object, got {type(row).__name__}")
        return rows

    def _id(self, row: Json, key: str, where: str) -> int:
        value = row.get(key)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
            raise SourceError(f"{self._path!r}: {where}.{key} must be an integer, got {value!r}")
        return value

    def _by_id(self, key: str) -> dict[int, Json]:
        rows: dict[int, Json] = {}
        repeated: list[int] = []
        for at, row in enumerate(self._rows(key)):
            id_ = self._id(row, "id", f"{key}[{at}]")
            if id_ in rows:
                repeated.append(id_)
            rows[id_] = row
        if repeated:
            raise SourceError(f"{self._path!r}: ids occur twice in `{key}`: {_some(repeated)}")
        return rows

    @cached_property
    def _images(self) -> dict[int, Json]:
        return self._by_id("images")

    @cached_property
    def _names(self) -> dict[int, str]:
        names = {
            id_: contained(image.get("file_name"), f"{self._path!r}: image {id_}")
            for id_, image in self._images.items()
        }
        if len(set(names.values())) < len(names):
            seen: set[str] = set()
            twice = [name for name in names.values() if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
            raise SourceError(f"{self._path!r}: several images have the same file_name: {_some(twice)}")
        return names

    @cached_property
    def _categories(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for id_, row in self._by_id("categories").items():
            name = row.get("name")
            if not isinstance(name, str) or not name or id_ < 0:
                raise SourceError(f"{self._path!r}: category {id_} needs an id >= 0 and a name, got {row!r}")
            found[id_] = name
        return found

    @cached_property
    def _annotations(self) -> dict[int, list[Json]]:
        """By image id, in the file's order, with ids as integers."""
        groups: dict[int, list[Json]] = {}
        seen: set[int] = set()
        repeated: list[int] = []
        for at, row in enumerate(self._rows("annotations")):
            where = f"annotations[{at}]"
            image_id, category_id = self._id(row, "image_id", where), self._id(row, "category_id", where)
            id_ = self._id(row, "id", where) if "id" in row else None
            for key, value, known in (
                ("image_id", image_id, self._images),
                ("category_id", category_id, self._categories),
            ):
                if value not in known:
                    raise SourceError(f"{self._path!r}: {where} (id {id_}): {key} {value} is not in the file")
            if id_ is not None:
                repeated += [id_] if id_ in seen else []
                seen.add(id_)
            row["id"], row["category_id"] = id_, category_id  # as integers; copies would double a large file
            groups.setdefault(image_id, []).append(row)
        if repeated:
            raise SourceError(f"{self._path!r}: ids occur twice in `annotations`: {_some(repeated)}")
        return groups


def _describe(top: object) -> str:
    if isinstance(top, list):
        return "a list (COCO results have no images; give the annotation file)"
    if isinstance(top, dict):
        return "a LabelMe file" if "shapes" in top else f"an object with the keys {sorted(top)[:6]}"
    return type(top).__name__


def _some(values: Sequence[object]) -> str:
    text = ", ".join(repr(value) for value in values[:5])
    return text if len(values) <= 5 else f"{text} and {len(values) - 5} more"


def _declared_size(image: Json) -> tuple[int, int] | None:
    sides = image.get("height"), image.get("width")
    if all(isinstance(side, int | float) and 0 < side < 1e9 and side == int(side) for side in sides):
        return int(sides[0]), int(sides[1])  # type: ignore[arg-type]
    return None


def _labels(annotations: list[Json], size_hw: tuple[int, int] | None) -> Labels:
    boxes = np.zeros((len(annotations), 4), np.float64)
    shapes: list[tuple[Polygon, ...] | Rle | None] = []
    for row, annotation in enumerate(annotations):
        where = f"annotation {annotation['id']}"
        shape = _shape(annotation.get("segmentation"), size_hw, where)
        if annotation.get("bbox") is not None:
            boxes[row] = _numbers(annotation["bbox"], f"{where}: bbox", exactly=4)
        elif shape is None:
            raise _BadLabel(f"{where} has neither bbox nor segmentation")
        shapes.append(shape)
    return Labels(
        xywh_to_xyxy(boxes),
        np.array([a["category_id"] for a in annotations], np.int64),
        tuple(shapes),
        tuple(a["id"] for a in annotations),
        tuple(bool(a.get("iscrowd", 0)) for a in annotations),
        size_hw=size_hw,
    )


def _numbers(value: object, what: str, *, exactly: int | None = None) -> tuple[float, ...]:
    if not isinstance(value, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        raise _BadLabel(f"{what} must be a list of numbers")
    if exactly is not None and len(value) != exactly:
        raise _BadLabel(f"{what} must have {exactly} numbers, got {len(value)}")
    if not all(abs(v) < 1e9 for v in value):  # 1e999 is JSON, and infinite
        raise _BadLabel(f"{what} has a number out of any range")
    return tuple(float(v) for v in value)


def _shape(segmentation: object, size_hw: tuple[int, int] | None, where: str) -> tuple[Polygon, ...] | Rle | None:
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return _rle(segmentation, size_hw, where)
    if not isinstance(segmentation, list):
        raise _BadLabel(f"{where}: segmentation must be polygons or an RLE")
    rings = tuple(_numbers(ring, f"{where}: polygon") for ring in segmentation)
    for ring in rings:
        if len(ring) < 6 or len(ring) % 2:
            raise _BadLabel(f"{where}: a polygon needs an even number of 6 or more values, got {len(ring)}")
    return rings


def _rle(rle: Json, size_hw: tuple[int, int] | None, where: str) -> Rle:
    """Only the sizes are compared here; whether a string fills them is seen when the mask is used."""
    size, counts = rle.get("size"), rle.get("counts")
    h, w = _numbers(size, f"{where}: RLE size", exactly=2)
    if h != int(h) or w != int(w) or h < 1 or w < 1:
        raise _BadLabel(f"{where}: RLE size {size} is no image size")
    if size_hw is not None and (h, w) != size_hw:
        raise _BadLabel(f"{where}: RLE size {size} differs from the image's [{size_hw[0]}, {size_hw[1]}]")
    shape = int(h), int(w)
    if isinstance(counts, str) and counts.isascii():
        return Rle(shape, counts.encode("ascii"))
    runs = _numbers(counts, f"{where}: RLE counts")
    if any(run < 0 or run != int(run) for run in runs) or math.fsum(runs) != h * w or h * w > _MAX_PIXELS:
        raise _BadLabel(f"{where}: the runs of the RLE do not sum up to {shape[0]} x {shape[1]}")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, np.int64))
    return encode(inside.reshape(shape[1], shape[0]).T)
