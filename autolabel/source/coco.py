"""A COCO annotation file: pictures with boxes, polygons and RLE masks. Decodes no mask and no picture.

Nothing is lost on the way: ids, numbers as they are written (1 stays 1, not 1.0), and every field that has no
place in our types, as the text of a JSON object in the order of the file.

What makes the file as a whole ambiguous or dangerous (not JSON, ids that repeat or point nowhere, names that
lead out of the folder) raises SourceError. What is wrong with one annotation's geometry makes its picture
`failed:bad_label`, naming the file and the annotation, and the run goes on.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef, Labels, Polygon, Problem, Rle
from autolabel.ops.boxes import xywh_to_xyxy
from autolabel.ops.drawn import BadShape, extra_text, is_crowd, shown
from autolabel.ops.masks import from_changes
from autolabel.ops.settings import optional
from autolabel.ops.storage import is_folder, names_in
from autolabel.source.locate import check_place, contained, read_label_text
from autolabel.source.places import picture_root

_MAX_BYTES = 8 << 30
_MAX_PIXELS = 1 << 28
_NAMES = re.compile(r"(instances.*|_?annotations.*|coco)\.json", re.IGNORECASE)
Json = dict[str, Any]

# What has a place of its own; `area` is computed from the mask wherever it is needed.
_TOP_FIELDS = frozenset(("images", "annotations", "categories"))
_IMAGE_FIELDS = frozenset(("id", "file_name", "width", "height"))
_CATEGORY_FIELDS = frozenset(("id", "name"))
_ANNOTATION_FIELDS = frozenset(("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"))


class _BadLabel(Exception):
    """One annotation cannot be used; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class _Head:
    """What the file says beside its pictures."""

    categories: tuple[Category, ...]
    document: str


class CocoSource:
    """Image ids are the file's `file_name`s, in the file's order; `split` is kept where an image has one. `path` may be
    the folder of the file, if its name is a usual one (see `coco_files`).

    The pictures are looked for in `images_dir` (names may begin with its own name), or beside the file, in `images/`
    beside it, and the same one folder up (for `annotations/x.json`): the first place that has one of the first
    pictures serves for all. Ids given as strings of digits are read as integers. `path` and `images_dir` may be
    addresses.

    A file of several gigabytes is held once: what `images()` has given out is forgotten, and a second call
    reads the file again.
    """

    ignored: Mapping[str, int] = {}

    def __init__(self, *, path: str, images_dir: str | None = None) -> None:
        self._given = check_place("path", path)
        self._images_dir = optional(check_place, "images_dir", images_dir)
        self._parsed: Json | None = None

    @property
    def categories(self) -> tuple[Category, ...]:
        return self._head.categories

    @property
    def document(self) -> str:
        return self._head.document

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError, naming file and position, when the file as a whole cannot be trusted."""
        known = {category.id for category in self._head.categories}
        top, self._parsed = self._parsed or self._read(), None
        images = self._by_id(top, "images")
        names = self._names(images)
        groups = self._grouped(top, images, known)  # all is checked before the first picture is given out
        top.clear()
        root, _ = picture_root(self._path, self._images_dir, names.values())
        for id_ in list(images):
            yield self._ref(id_, names[id_], root, images.pop(id_), groups.pop(id_, []))

    def _ref(self, id_: int, name: str, root: str, image: Json, annotations: list[Json]) -> ImageRef:
        split = image.get("split")
        named = isinstance(split, str) and split != "" and _is_unicode(split)
        ref = ImageRef(
            name,
            posixpath.join(root, name),
            split=split if named else None,
            source_id=id_,
            extra=self._extra(image, _IMAGE_FIELDS | {"split"} if named else _IMAGE_FIELDS, f"image {id_}"),
        )
        return self._with_labels(ref, image, annotations)

    def _with_labels(self, ref: ImageRef, image: Json, annotations: list[Json]) -> ImageRef:
        try:
            labels = _labels(annotations, _declared_size(image))
        except _BadLabel as e:
            problem = Problem("bad_label", f"{self._path}: {e}")
            return replace(ref, problem=problem)
        return replace(ref, labels=labels)

    @cached_property
    def _head(self) -> _Head:
        self._parsed = top = self._read()
        document = {key: value for key, value in top.items() if key not in _TOP_FIELDS}
        return _Head(self._categories(top), self._extra(document, frozenset(), "the file"))

    @cached_property
    def _path(self) -> str:
        """The JSON. Raises SourceError for a folder where nobody can tell which file that is."""
        if not is_folder(self._given):
            return self._given
        found = coco_files(self._given)
        if len(found) != 1:
            seen = (
                f"has {_some(found)}"
                if found
                else "has no instances*.json, annotations*.json, _annotations*.json or coco.json, nor has annotations/ in it"
            )
            raise SourceError(f"{self._given!r} {seen}; give the COCO file itself as the path")
        return posixpath.join(self._given, found[0])

    def _read(self) -> Json:
        text = read_label_text(self._path, _MAX_BYTES)
        last: list[str] = []  # the keys of the object that was read last: in the end the file's own

        def noted(pairs: list[tuple[str, Any]]) -> Json:
            last[:] = [key for key, _ in pairs]
            return dict(pairs)

        # Noting the keys of every object takes time; hardly a file has these words twice.
        hook = noted if any(text.count(f'"{key}"') > 1 for key in _TOP_FIELDS) else None
        try:
            top = json.loads(
                text, parse_constant=lambda name: self._not_a_number(text, name), object_pairs_hook=hook
            )
        except (ValueError, RecursionError) as e:  # ValueError alone: an integer of thousands of digits
            raise SourceError(f"{self._path!r} is not JSON: {e}") from e
        if not isinstance(top, dict) or not isinstance(top.get("images"), list):
            raise SourceError(
                f"{self._path!r} is not a COCO annotation file: it needs an object with `images`, `annotations` "
                f"and `categories`, this is {_describe(top)}"
            )
        if twice := [key for key, many in Counter(last).items() if many > 1]:
            raise SourceError(
                f"{self._path!r}: the file has {_some(twice)} several times, and only the last would count; join them into one"
            )
        return top

    def _not_a_number(self, text: str, name: str) -> NoReturn:
        # json names no position here; the first bare word is the one it stopped at.
        match = re.search(rf"(?<=[\[,:\s]){re.escape(name)}\b", text)
        line = text.count("\n", 0, match.start()) + 1 if match else 0
        raise SourceError(f"{self._path!r} line {line}: {name} is not a JSON number; write finite values")

    def _extra(self, row: Json, known: frozenset[str], where: str) -> str:
        try:
            return _extra(row, known)
        except _BadLabel as e:
            raise SourceError(f"{self._path!r}: {where}: {e}") from e

    def _rows(self, top: Json, key: str) -> list[Json]:
        rows = top.get(key, [])
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
            raise SourceError(f"{self._path!r}: {where}.{key} must be an integer, got {shown(value)}")
        return value

    def _by_id(self, top: Json, key: str) -> dict[int, Json]:
        rows: dict[int, Json] = {}
        repeated: list[int] = []
        for at, row in enumerate(self._rows(top, key)):
            id_ = self._id(row, "id", f"{key}[{at}]")
            if id_ in rows:
                repeated.append(id_)
            rows[id_] = row
        if repeated:
            raise SourceError(f"{self._path!r}: ids occur twice in `{key}`: {_some(repeated)}")
        return rows

    def _names(self, images: Mapping[int, Json]) -> dict[int, str]:
        names = {}
        for id_, image in images.items():
            name, where = image.get("file_name"), f"{self._path!r}: image {id_}"
            if not isinstance(name, str):
                raise SourceError(f"{where}: a file name is missing, got {shown(name)}")
            names[id_] = contained(name, where)
        if len(set(names.values())) < len(names):
            seen: set[str] = set()
            twice = [name for name in names.values() if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
            raise SourceError(f"{self._path!r}: several images have the same file_name: {_some(twice)}")
        return names

    def _categories(self, top: Json) -> tuple[Category, ...]:
        found: dict[int, Category] = {}
        for id_, row in self._by_id(top, "categories").items():
            name = row.get("name")
            if not isinstance(name, str) or not name or id_ < 0:
                raise SourceError(f"{self._path!r}: category {id_} needs an id >= 0 and a name, got {shown(name)}")
            if not _is_unicode(name):
                raise SourceError(f"{self._path!r}: category {id_}: {name!r} is half a character, not a name")
            found[id_] = Category(id_, name, self._extra(row, _CATEGORY_FIELDS, f"category {id_}"))
        return tuple(found[id_] for id_ in sorted(found))

    def _grouped(self, top: Json, images: Mapping[int, Json], categories: set[int]) -> dict[int, list[Json]]:
        """The annotations by image id, in the file's order, with ids as integers."""
        groups: dict[int, list[Json]] = {}
        seen: set[int] = set()
        repeated: list[int] = []
        for at, row in enumerate(self._rows(top, "annotations")):
            where = f"annotations[{at}]"
            if "segments_info" in row and "category_id" not in row:
                raise SourceError(
                    f"{self._path!r}: {where}: this is COCO panoptic, whose masks are PNGs; not read"
                )
            image_id, category_id = self._id(row, "image_id", where), self._id(row, "category_id", where)
            id_ = self._id(row, "id", where) if "id" in row else None
            for key, value, known in (("image_id", image_id, images), ("category_id", category_id, categories)):
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


def _is_unicode(text: str) -> bool:
    """JSON can carry lone surrogates (`"\\ud800"`), UTF-8 files cannot."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


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


def _extra(row: Json, known: frozenset[str]) -> str:
    """The fields of `row` that are not in `known`, in its order; "" when there are none."""
    try:
        return extra_text({key: value for key, value in row.items() if key not in known})
    except BadShape as e:
        raise _BadLabel(str(e)) from e


def coco_files(folder: str) -> list[str]:
    """Names below a folder that COCO's files have: in it, else in its annotations/. Raises SourceError."""
    for inside in ("", "annotations"):
        place = posixpath.join(folder, inside) if inside else folder
        try:
            names = names_in(place) if is_folder(place) else []
        except OSError as e:
            raise SourceError(f"cannot list the folder {place!r}: {e.strerror}") from e
        if found := [posixpath.join(inside, name) for name in names if _NAMES.fullmatch(name)]:
            return found
    return []


def _labels(annotations: list[Json], size_hw: tuple[int, int] | None) -> Labels:
    boxes = np.zeros((len(annotations), 4), np.float64)
    shapes: list[tuple[Polygon, ...] | Rle | None] = []
    crowd: list[bool] = []
    extras: list[str] = []
    for row, annotation in enumerate(annotations):
        where = f"annotation {annotation['id']}"
        shape = _shape(annotation.get("segmentation"), size_hw, where)
        if annotation.get("bbox") is not None:
            boxes[row] = _numbers(annotation["bbox"], f"{where}: bbox", exactly=4)
        elif shape is None:
            raise _BadLabel(f"{where} has neither bbox nor segmentation")
        shapes.append(shape)
        try:
            crowd.append(is_crowd(annotation.get("iscrowd")))
            extras.append(_extra(annotation, _ANNOTATION_FIELDS))
        except (BadShape, _BadLabel) as e:
            raise _BadLabel(f"{where}: {e}") from e
    return Labels(
        xywh_to_xyxy(boxes),
        np.array([a["category_id"] for a in annotations], np.int64),
        tuple(shapes),
        tuple(a["id"] for a in annotations),
        tuple(crowd),
        size_hw=size_hw,
        extras=tuple(extras),
    )


def _numbers(value: object, what: str, *, exactly: int | None = None) -> tuple[float, ...]:
    if not isinstance(value, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        raise _BadLabel(f"{what} must be a list of numbers")
    if exactly is not None and len(value) != exactly:
        raise _BadLabel(f"{what} must have {exactly} numbers, got {len(value)}")
    if not all(abs(v) < 1e9 for v in value):  # 1e999 is JSON, and infinite
        raise _BadLabel(f"{what} has a number that is out of range")
    return tuple(value)  # whole numbers stay whole, so that they are written as they came


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
        raise _BadLabel(f"{where}: RLE size {size} is not an image size")
    if size_hw is not None and (h, w) != size_hw:
        raise _BadLabel(f"{where}: RLE size {size} differs from the image's [{size_hw[0]}, {size_hw[1]}]")
    shape = int(h), int(w)
    if isinstance(counts, str) and counts.isascii():
        return Rle(shape, counts.encode("ascii"))
    runs = _numbers(counts, f"{where}: RLE counts")
    if any(run < 0 or run != int(run) for run in runs) or math.fsum(runs) != h * w or h * w > _MAX_PIXELS:
        raise _BadLabel(f"{where}: the runs of the RLE do not sum up to {shape[0]} x {shape[1]}")
    return from_changes(np.cumsum(np.array(runs, np.int64))[:-1], shape)
