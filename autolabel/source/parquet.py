"""Parquet files of pictures with boxes and masks, as export/parquet.py writes them and `datasets` keeps them.

Columns: `image` (struct {bytes, path}), and of the rest what there is: `image_id`, `width`, `height`, `split`,
`source_id`, `extra`, `objects`. An object has a `bbox` [x, y, w, h] in pixels, or a `segmentation` {size, counts}
(COCO run lengths), or both, and a `category_id`, or a `category`: a position in the class names of the file.

What makes the files as a whole ambiguous or dangerous (no such columns, names that lead out of the folder, two rows of
one name) raises SourceError with file and row. What is wrong with one object makes its picture `failed:bad_label`.
Needs the extra `parquet`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef, Labels, Problem, Rle
from autolabel.ops.arrow import pyarrow
from autolabel.ops.boxes import xywh_to_xyxy
from autolabel.ops.drawn import BadShape, extra_text, is_crowd
from autolabel.ops.settings import optional
from autolabel.ops.storage import absolute
from autolabel.source.locate import check_path, contained

_BATCH = 16
"""Rows that are in memory together; they may hold pictures."""
_COLUMNS = ("image", "image_id", "width", "height", "split", "source_id", "extra", "objects")
_SPLIT = re.compile(r"(train|validation|valid|val|test|dev)(?![a-z])", re.IGNORECASE)
Row = dict[str, Any]


class _BadLabel(ValueError):
    """One object cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What the files say beside their rows. `by_position` are the category ids of the class names."""

    categories: tuple[Category, ...]
    by_position: tuple[int, ...]
    document: str


class ParquetSource:
    """`path` is a file, or a folder with Parquet files at any depth, which are read in the order of their names.

    Image ids are `image_id`, or else the path in `image`. A picture is looked for under its id in `images_dir`
    (null: the folder of the files). Pictures that are in the files themselves are first written into `extract_to`,
    where one that is there already is kept; without `extract_to` such a picture is `failed:missing`, unless
    `images_dir` has it. A row's split is its own, or that of its file's name.
    """

    ignored: Mapping[str, int] = {}

    def __init__(self, *, path: str, images_dir: str | None = None, extract_to: str | None = None) -> None:
        self._path = check_path("path", path)
        self._images_dir = optional(check_path, "images_dir", images_dir)
        self._extract_to = optional(check_path, "extract_to", extract_to)
        pyarrow()  # the error comes before the work

    @property
    def categories(self) -> tuple[Category, ...]:
        return self._head.categories

    @property
    def document(self) -> str:
        return self._head.document

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError, naming file and row, when the files as a whole cannot be trusted."""
        seen: set[str] = set()
        for file in self._files:
            split = _SPLIT.search(posixpath.basename(file))
            for number, row in enumerate(_rows(file)):
                where = f"{file!r} row {number}"
                name = _name(row, where)
                if name in seen:
                    raise SourceError(f"{where}: {name!r} is the name of an earlier row, too")
                seen.add(name)
                yield self._ref(row, name, split[1].lower() if split else None, where)

    def _ref(self, row: Row, name: str, split: str | None, where: str) -> ImageRef:
        path, problem = self._picture(row, name, where)
        labels, extra = None, ""
        try:
            labels, extra = self._labels(row), _fields(_text(row, "extra"), "extra")
        except _BadLabel as e:
            problem = problem or Problem("bad_label", f"{where}: {e}")
        return ImageRef(
            name,
            path,
            labels=None if problem else labels,
            split=_text(row, "split") or split,
            problem=problem,
            source_id=_whole(row.get("source_id")),
            extra=extra,
        )

    @cached_property
    def _files(self) -> list[str]:
        path = absolute(self._path)
        if not posixpath.isdir(path):
            if not posixpath.isfile(path):
                raise SourceError(f"no such file or folder: {self._path!r}")
            return [path]
        found = sorted(str(p) for p in Path(path).rglob("*.parquet") if p.is_file())
        if not found:
            raise SourceError(f"no .parquet file in {self._path!r}")
        return found

    @cached_property
    def _head(self) -> _Head:
        heads = [_head(file) for file in self._files]
        if any(head != heads[0] for head in heads):
            raise SourceError(f"the files in {self._path!r} do not have the same classes; read them one by one")
        return heads[0]

    # Pictures ---------------------------------------------------------------------------------------------

    @cached_property
    def _root(self) -> str:
        if self._images_dir is not None:
            return absolute(self._images_dir)
        return posixpath.commonpath([posixpath.dirname(file) for file in self._files])

    def _picture(self, row: Row, name: str, where: str) -> tuple[str, Problem | None]:
        image = row.get("image") or {}
        data, path = image.get("bytes"), posixpath.join(self._root, name)
        if data is None or posixpath.exists(path):
            return path, None
        if self._extract_to is None:
            way = "say source=parquet source.extract_to=<folder>"
            return path, Problem("missing", f"{where}: the picture is in the file itself; {way}")
        stated = image.get("path") or name
        return _extracted(data, self._extract_to, contained(stated, where), where), None

    # Labels -----------------------------------------------------------------------------------------------

    def _labels(self, row: Row) -> Labels | None:
        """None when the row does not say what is in the picture."""
        objects = row.get("objects")
        if objects is None:
            return None
        size = _whole(row.get("height")), _whole(row.get("width"))
        size_hw = (size[0], size[1]) if size[0] and size[1] else None
        if isinstance(objects, dict):
            objects = _as_list(objects)
        found = [self._object(one, f"object {at}", size_hw) for at, one in enumerate(objects)]
        return Labels(
            xywh_to_xyxy(np.array([box for box, *_ in found], np.float64)),
            np.array([category for _, category, *_ in found], np.int64),
            tuple(mask for *_, mask in found),
            tuple(_whole(one.get("source_id")) for one in objects),
            tuple(_crowd(one, f"object {at}") for at, one in enumerate(objects)),
            size_hw=size_hw,
            extras=tuple(_fields(_text(one, "extra"), f"object {at}: extra") for at, one in enumerate(objects)),
        )

    def _object(
        self, one: Row, where: str, size_hw: tuple[int, int] | None
    ) -> tuple[tuple[float, ...], int, Rle | None]:
        mask = _mask(one.get("segmentation"), where, size_hw)
        box = one.get("bbox")
        if box is None and mask is None:
            raise _BadLabel(f"{where} has neither bbox nor segmentation")
        return _numbers(box or [0.0] * 4, f"{where}: bbox", 4), self._category(one, where), mask

    def _category(self, one: Row, where: str) -> int:
        found = _whole(one.get("category_id"))
        position = _whole(one.get("category"))
        if found is None and position is not None and 0 <= position < len(self._head.by_position):
            found = self._head.by_position[position]
        if found is None or found not in self._ids:
            raise _BadLabel(f"{where}: no class {one.get('category_id', one.get('category'))!r} in the file")
        return found

    @cached_property
    def _ids(self) -> frozenset[int]:
        return frozenset(c.id for c in self._head.categories)


def _rows(file: str) -> Iterator[Row]:
    pa = pyarrow()
    try:
        with pa.parquet.ParquetFile(file) as opened:
            columns = [name for name in _COLUMNS if name in opened.schema_arrow.names]
            if "image" not in columns:
                raise SourceError(
                    f"{file!r} has no column `image`, only {opened.schema_arrow.names[:8]}; "
                    "a list of paths is source=parquet_list source.column=<its name>"
                )
            for batch in opened.iter_batches(batch_size=_BATCH, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as e:
        raise SourceError(f"{file!r} is not Parquet, or damaged: {' '.join(str(e).split())}") from e


def _head(file: str) -> _Head:
    pa = pyarrow()
    try:
        metadata = pa.parquet.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError) as e:
        raise SourceError(f"{file!r} is not Parquet, or damaged: {' '.join(str(e).split())}") from e
    try:
        if b"autolabel" in metadata:
            return _own_head(json.loads(metadata[b"autolabel"]))
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        names = _class_names(features["objects"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as e:
        raise SourceError(f"{file!r} does not say what its classes are called ({type(e).__name__}: {e})") from e
    return _Head(tuple(Category(n + 1, name) for n, name in enumerate(names)), tuple(range(1, len(names) + 1)), "")


def _own_head(stated: Row) -> _Head:
    rows = stated["categories"]
    categories = tuple(
        Category(int(row["id"]), str(row["name"]), _fields(str(row["extra"]), f"class {row['id']}"))
        for row in rows
    )
    if any(c.id < 0 for c in categories):
        raise ValueError("a category id is negative")
    return _Head(categories, tuple(c.id for c in categories), _fields(str(stated["document"]), "document"))


def _class_names(objects: Any) -> list[str]:
    """The class names of the ClassLabel `category`, in any of the forms that `datasets` has for a list of objects."""
    if isinstance(objects, list):
        objects = objects[0]
    objects = objects.get("feature", objects)
    label = objects["category"]
    return [str(name) for name in label.get("feature", label)["names"]]


def _name(row: Row, where: str) -> str:
    stated = row.get("image_id")
    return contained((row.get("image") or {}).get("path") if stated is None else stated, where)


def _extracted(data: bytes, folder: str, name: str, where: str) -> str:
    """The picture as a file; whole or not at all, and nobody's file is written over."""
    path = Path(absolute(folder), name)
    try:
        if path.exists():
            if path.read_bytes() != data:
                raise SourceError(
                    f"{where}: {str(path)!r} is there and is another picture; extract to another folder"
                )
            return str(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.{os.getpid()}")
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as e:
        raise SourceError(f"{where}: {str(path)!r} cannot be written: {e.strerror}") from e
    return str(path)


def _as_list(columns: Row) -> list[Row]:
    """Older `datasets` keep a list of objects as an object of lists."""
    try:
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    except (TypeError, ValueError) as e:
        raise _BadLabel(f"the columns of `objects` do not have one length: {e}") from e


def _mask(segmentation: Any, where: str, size_hw: tuple[int, int] | None) -> Rle | None:
    """Only the sizes are compared here; whether a string fills them is seen when the mask is used."""
    if segmentation is None:
        return None
    if not isinstance(segmentation, dict):
        raise _BadLabel(f"{where}: segmentation must be {{size, counts}}")
    height, width = _numbers(segmentation.get("size"), f"{where}: RLE size", 2)
    counts = segmentation.get("counts")
    if size_hw is not None and (height, width) != size_hw:
        raise _BadLabel(f"{where}: RLE size {[height, width]} differs from the picture's {list(size_hw)}")
    if isinstance(counts, str) and counts.isascii():
        counts = counts.encode("ascii")
    if not isinstance(counts, bytes):
        raise _BadLabel(f"{where}: RLE counts must be a compressed COCO string")
    return Rle((int(height), int(width)), counts)


def _numbers(values: Any, what: str, count: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != count:
        raise _BadLabel(f"{what} must have {count} numbers, got {values!r}")
    if not all(isinstance(v, int | float) and math.isfinite(v) and abs(v) < 1e9 for v in values):
        raise _BadLabel(f"{what} has a number that is not finite or out of range: {values!r}")
    return tuple(values)


def _crowd(one: Row, where: str) -> bool:
    try:
        return is_crowd(one.get("iscrowd"))
    except BadShape as e:
        raise _BadLabel(f"{where}: {e}") from e


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def _fields(text: str, what: str) -> str:
    """Unknown fields as they stand, once they are known to be a JSON object that can be written again."""
    try:
        found = json.loads(text) if text else {}
        if not isinstance(found, dict):
            raise BadShape("no JSON object")
        extra_text(found)
    except (ValueError, RecursionError) as e:
        raise _BadLabel(f"{what}: {e}") from e
    return text


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""
