"""A YOLO data set: `data.yaml`, or a folder of images and labels, or a bare folder of label files.

Own reader: nothing in a data.yaml is ever run (`download:` is passed over with a warning), nothing outside
the data set's folder is read, and no cache is written beside the pictures.
"""

from __future__ import annotations

import itertools
import logging
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef, Problem
from autolabel.ops.settings import one_of, optional
from autolabel.ops.storage import (
    absolute,
    exists,
    in_parallel,
    is_file,
    is_folder,
    is_url,
    names_in,
    normal,
    parent,
)
from autolabel.source.locate import check_place, contained, read_label_text
from autolabel.source.walk import Tree, extension, walk
from autolabel.source.yaml_file import class_name, parse_yaml
from autolabel.source.yolo_folders import Counterparts, images_beside, labels_below
from autolabel.source.yolo_pairs import Picture, label_files, label_path, labels_of, paired, with_background
from autolabel.source.yolo_rows import ROW_KINDS, BadRow, RowKind, parse_rows

logger = logging.getLogger(__name__)

_MAX_YAML = 16 << 20
_MAX_LABEL = 64 << 20
_MOST_CLASSES = 100_000
_SPLITS = ("train", "val", "test")


class YoloSource:
    """Category ids are class indices + 1. A picture with an empty label file has labels with no object, and so has,
    as for ultralytics, one without a label file where others of its split have one (without a data.yaml: others of its
    folder); where none has, nobody has labelled them, and they have no labels. All of them come out without objects,
    and none is an error. A label file with a bad row makes its picture `failed:bad_label`; a label file without a
    picture is `failed:missing`, under the name that the picture would have, without suffix.

    `path` is a data.yaml, or the folder that holds it (image ids relative to its `path:` folder; a label is where the
    ultralytics loader looks for it, picture by picture, or else beside its picture); a folder that has `images/` beside
    `labels/` (or `yolo/`); or a folder of label files, whose pictures are in `images_dir`, in `images/` beside
    it, or among them. `Images/` belongs to `Labels/` in whatever case, unless there are several that it may belong to
    (see yolo_folders.py). Image ids are relative to `images_dir` if it is given, else to the data set's folder.
    With `images_dir`, or beside a folder of label files, a data.yaml gives the names of the classes alone.
    `root` allows a data.yaml whose `path:` leads elsewhere: it replaces that path. `rows` says what the rows are
    where their length does not (see yolo_rows.py). `path`, `images_dir` and `root` may be addresses.
    """

    document = ""

    def __init__(
        self, *, path: str, images_dir: str | None = None, root: str | None = None, rows: RowKind = "auto"
    ) -> None:
        one_of("rows", rows, ROW_KINDS)
        self._rows = rows
        self._given = check_place("path", path)
        self._images_dir = optional(check_place, "images_dir", images_dir)
        self._root = optional(check_place, "root", root)
        self._ignored: Counter[str] = Counter()

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(Category(index + 1, name) for index, name in sorted(self._names.items()))

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError for an unreadable data set, ImageRefs with a problem for unreadable labels."""
        num_classes = max(self._names, default=-1) + 1
        yield from self._read_all(num_classes)

    def _read_all(self, num_classes: int | None) -> Iterator[ImageRef]:
        def read(picture: Picture) -> ImageRef:
            return _read(picture, num_classes, self._rows)

        # Here one file after the other is as fast; at a storage each of them is waited for.
        yield from in_parallel(read, self._pictures) if is_url(self._path) else map(read, self._pictures)

    @cached_property
    def _path(self) -> str:
        """A data.yaml says itself where its pictures are, so it counts where no `images_dir` does."""
        return (self._images_dir is None and yaml_inside(self._given)) or self._given

    @cached_property
    def _is_yaml(self) -> bool:
        return extension(self._path) in (".yaml", ".yml")

    @cached_property
    def _yaml(self) -> dict[str, Any]:
        top = _read_yaml(self._path)
        if not any(split in top for split in _SPLITS):
            raise SourceError(f"{self._path!r} is not a YOLO data.yaml: it has none of train, val and test")
        if top.get("download"):
            logger.warning("%r: its `download:` is passed over; nothing in a data.yaml is run", self._path)
        return top

    @cached_property
    def _names(self) -> dict[int, str]:
        if self._is_yaml:
            return _yaml_names(self._path, self._yaml)
        labels = self._folders[1]
        for place in (labels, posixpath.dirname(labels)):
            for name in ("classes.txt", "obj.names"):
                file = posixpath.join(place, name)
                if is_file(file) and not (place == labels and self._is_label(name)):
                    lines = [line.strip() for line in read_label_text(file, _MAX_YAML).splitlines()]
                    named = enumerate(itertools.takewhile(bool, lines))
                    return {index: class_name(file, index, line) for index, line in named}
            yamls = _yamls_inside(place)
            if len(yamls) == 1:
                logger.warning("of %r only the names of the classes are used, not its splits", yamls[0])
                return _yaml_names(yamls[0], _read_yaml(yamls[0]))
            if yamls:
                logger.warning("no class is named: of %s only one could be read", " and ".join(map(repr, yamls)))
        return self._guessed_names()

    def _is_label(self, name: str) -> bool:
        images, labels = self._trees
        return labels.path(name) in labels_of(images, labels, label_files(labels)).values()

    def _guessed_names(self) -> dict[int, str]:
        """`class_0` … up to the largest index in use; a bare label folder names no classes."""
        found = {-1}
        for ref in self._read_all(None):
            labels = ref.labels
            found |= set() if labels is None else {int(i) - 1 for i in labels.category_ids}
        if max(found) >= _MOST_CLASSES:
            raise SourceError(
                f"{self._path!r}: class {max(found)} is beyond the {_MOST_CLASSES} classes there may be"
            )
        logger.warning("%r has no classes.txt; its classes are called class_0 …", self._path)
        return {index: f"class_{index}" for index in range(max(found) + 1)}

    @cached_property
    def _pictures(self) -> tuple[Picture, ...]:
        found = self._from_yaml() if self._is_yaml else self._from_folders()
        first: dict[str, Picture] = {}
        for picture in found:
            if picture.image_id in first:
                self._ignored[f"also in split {picture.split}"] += 1
            else:
                first[picture.image_id] = picture
        return tuple(with_background(first.values()))

    # Folders ----------------------------------------------------------------------------------------------

    @cached_property
    def _folders(self) -> tuple[str, str, str]:
        """The folders of pictures and of labels, and what goes in front of a picture's relative name."""
        path = absolute(self._path)
        if not is_folder(path):
            raise SourceError(f"no such folder or data.yaml: {self._path!r}")
        labels = labels_below(path) or path
        if self._images_dir is not None:
            return absolute(self._images_dir), labels, ""
        beside = images_beside(labels)
        return (labels, labels, "") if beside is None else (beside, labels, f"{posixpath.basename(beside)}/")

    @cached_property
    def _trees(self) -> tuple[Tree, Tree]:
        images_dir, labels_dir, _ = self._folders
        return walk(images_dir), walk(labels_dir)

    def _from_folders(self) -> Iterator[Picture]:
        images, labels = self._trees
        yield from paired(images, labels, label_files(labels), self._folders[2], None, self._ignored)

    # data.yaml --------------------------------------------------------------------------------------------

    @cached_property
    def _base(self) -> str:
        """The folder all paths of a data.yaml are relative to."""
        if self._root is not None:
            return absolute(self._root)
        here = parent(absolute(self._path))
        stated = self._yaml.get("path") or "."
        if not isinstance(stated, str):
            raise SourceError(f"{self._path!r}: path: must be text, got a {type(stated).__name__}")
        joined = normal(posixpath.join(here, stated))
        if joined != here and not joined.startswith(here.rstrip("/") + "/"):
            raise SourceError(
                f"{self._path!r}: path: {stated!r} leads out of the folder of the file; "
                f"if that is where the pictures are, say source=yolo source.root=<that folder>"
            )
        # `path: coco128` inside the folder coco128 means the folder itself.
        return joined if is_folder(joined) else here

    def _from_yaml(self) -> Iterator[Picture]:
        for split in _SPLITS:
            places = self._yaml.get(split) or []
            for place in places if isinstance(places, list) else [places]:
                yield from self._from_place(self._inside(place, split), split)

    def _inside(self, place: object, split: str) -> str:
        where = f"{self._path!r}: {split}"
        if not isinstance(place, str):
            raise SourceError(f"{where} must be a path or a list of paths, got a {type(place).__name__}")
        base = self._base.rstrip("/") + "/"
        stated = place[len(base) :] if place.startswith(base) else place
        # Roboflow writes `../train/images` for what lies beside the yaml.
        if stated.startswith("../") and exists(posixpath.join(self._base, stated[3:])):
            stated = stated[3:]
        return "" if stated in (".", "./") else contained(stated, where)

    def _from_place(self, place: str, split: str) -> Iterator[Picture]:
        path = posixpath.join(self._base, place)
        if extension(place) == ".txt":
            yield from self._from_list(path, split)
            return
        if not is_folder(path):
            raise SourceError(f"{self._path!r}: {split}: no such folder: {path!r}")
        images = walk(path)
        labels_dir = self._labels_dir(place)
        labels = images
        if normal(labels_dir) != normal(path):
            labels = walk(labels_dir) if is_folder(labels_dir) else Tree(labels_dir, (), ())
        # A place may also be above the folders called `images` and `labels`.
        files = list(dict.fromkeys(label_files(images) + label_files(labels)))
        yield from paired(images, labels, files, f"{place}/" if place else "", split, self._ignored)

    def _labels_dir(self, place: str) -> str:
        """The place itself where no folder on the way to it is one of pictures that has one of labels beside it."""
        inside = posixpath.join(place, "x.jpg")
        exact = posixpath.dirname(label_path(inside))
        if exact == posixpath.dirname(inside) or not is_folder(posixpath.join(self._base, exact)):
            exact = posixpath.dirname(self._beside.label(inside) or label_path(inside))
        return posixpath.join(self._base, exact)

    def _from_list(self, path: str, split: str) -> Iterator[Picture]:
        folder = posixpath.relpath(posixpath.dirname(path), self._base)
        for number, line in enumerate(read_label_text(path, _MAX_LABEL).splitlines(), 1):
            name = line.strip()
            if not name:
                continue
            where = f"{path!r} line {number}"
            base = self._base.rstrip("/") + "/"
            if name.startswith(base):
                image_id = contained(name[len(base) :], where)
            else:
                image_id = contained(posixpath.join(folder, name), where)
                plain = contained(name, where) if not name.startswith("..") else image_id
                # Some tools write the lines relative to the data set instead.
                if not self._exists(image_id) and self._exists(plain):
                    image_id = plain
            places = (label_path(image_id), self._beside.label(image_id))
            label = next((place for place in places if place is not None and self._exists(place)), None)
            full = None if label is None else posixpath.join(self._base, label)
            yield Picture(image_id, posixpath.join(self._base, image_id), full, split)

    @cached_property
    def _beside(self) -> Counterparts:
        return Counterparts(self._base)

    def _exists(self, relative: str) -> bool:
        return exists(posixpath.join(self._base, relative))


def yaml_files(names: Iterable[str]) -> list[str]:
    """Those that a data.yaml may have."""
    return [name for name in names if re.fullmatch(r"data(set)?\.ya?ml", name, re.IGNORECASE)]


def yaml_inside(path: str) -> str | None:
    """The data.yaml in a folder. Raises SourceError where there are several, or the folder cannot be listed."""
    found = _yamls_inside(path)
    if len(found) > 1:
        names = " and ".join(map(posixpath.basename, found))
        raise SourceError(f"{path!r} has {names}; give the one that describes the data set as the path")
    return found[0] if found else None


def _yamls_inside(path: str) -> list[str]:
    try:
        return [posixpath.join(path, name) for name in yaml_files(names_in(path))] if is_folder(path) else []
    except OSError as e:
        raise SourceError(f"cannot list the folder {path!r}: {e.strerror}") from e


def _read_yaml(path: str) -> dict[str, Any]:
    top = parse_yaml(path, read_label_text(path, _MAX_YAML))
    if not isinstance(top, dict):
        raise SourceError(f"{path!r} is not a YOLO data.yaml: it has none of train, val and test")
    if "kpt_shape" in top:
        raise SourceError(f"{path!r} describes keypoints (kpt_shape); only boxes and polygons are read")
    return top


def _yaml_names(path: str, top: dict[str, Any]) -> dict[int, str]:
    names = top.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None and isinstance(top.get("nc"), int):
        names = {index: f"class_{index}" for index in range(min(top["nc"], _MOST_CLASSES))}
    if not isinstance(names, dict) or not names:
        got = "nothing" if not names else f"a {type(names).__name__}"
        raise SourceError(f"{path!r}: `names` must list the classes, got {got}")
    try:
        named = {_index(key): class_name(path, key, name) for key, name in names.items()}
    except ValueError as e:
        raise SourceError(f"{path!r}: the keys of `names` must be class indices from 0: {e}") from e
    # A gap in the numbers is a class without a name, not one without objects.
    return {index: named.get(index, f"class_{index}") for index in range(max(named) + 1)}


def _index(key: object) -> int:
    index = int(str(key))
    if not 0 <= index < _MOST_CLASSES:
        raise ValueError(f"{index} is not in [0, {_MOST_CLASSES})")
    return index


def _read(picture: Picture, num_classes: int | None, rows: RowKind) -> ImageRef:
    ref = ImageRef(
        picture.image_id, picture.path, split=picture.split, problem=picture.problem, stamp=picture.stamp
    )
    if picture.problem is not None or (picture.label is None and not picture.background):
        return ref
    try:
        text = "" if picture.label is None else read_label_text(picture.label, _MAX_LABEL)
        labels = parse_rows(text, num_classes, rows)
    except BadRow as e:
        problem = Problem("bad_label", f"{picture.label}:{str(e).removeprefix('line ')}")
    except SourceError as e:
        problem = Problem("bad_label", str(e))
    else:
        return replace(ref, labels=labels)
    return replace(ref, problem=problem)
