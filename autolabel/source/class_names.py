"""What the numbers of a class-id PNG are called: from a data.yaml, a JSON map or a list of lines."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field

from autolabel.core.errors import SourceError
from autolabel.source.locate import read_label_text
from autolabel.source.yaml_file import class_name, parse_yaml

_MAX_BYTES = 16 << 20
_FILES = ("data.yaml", "classes.json", "classes.yaml", "classes.txt")
_BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class ClassNames:
    """`names` is by class id. `mapping` says which class id a number in the file stands for, where the two
    differ (255: not labelled). `background` are class ids that stand for no object."""

    names: Mapping[int, str]
    background: frozenset[int]
    mapping: Mapping[int, int] = field(default_factory=dict)

    @property
    def objects(self) -> dict[int, str]:
        """The classes that objects can have."""
        return {number: name for number, name in self.names.items() if number not in self.background}

    @property
    def only(self) -> int | None:
        """The class of every object, where there is just one."""
        return next(iter(self.objects)) if len(self.objects) == 1 else None

    def category_id(self, number: int) -> int:
        """Category ids start at 1: where a class has the number 0, all are one higher."""
        return number + (0 in self.objects)

    def known(self, number: int, path: str) -> int:
        """The category id of a class. Raises SourceError for a class without name."""
        if number not in self.objects:
            raise SourceError(f"{path}: class {number} has no name among {sorted(self.objects)[:20]}")
        return self.category_id(number)


def read_class_names(
    folder: str, file: str | None, background: frozenset[int] | None, default: str | None = None
) -> ClassNames:
    """From `file`, relative to `folder`, else from the first of data.yaml, classes.json, classes.yaml and
    classes.txt there; with `default`, one class of that name when there is none.

    A YAML has `names` (list or map) and perhaps a `label_mapping`, as ultralytics writes them, or is a map itself; a
    JSON is a map of number to name, a list, or holds such under `names`, or COCO `categories`; line n of a text file,
    from 0, is class n. Raises SourceError.
    """
    candidates = [name for name in _FILES if posixpath.isfile(posixpath.join(folder, name))]
    found = file if file is not None else next(iter(candidates), None)
    if found is None and default is not None:
        return ClassNames({1: default}, frozenset((0,)) if background is None else background)
    if found is None:
        raise SourceError(
            f"{folder!r} names no classes; write {' or '.join(_FILES)}, or say source=png_masks source.classes=<file>"
        )
    path = posixpath.join(folder, found)
    text = read_label_text(path, _MAX_BYTES)
    top = _parsed(path, text)
    names = _names(path, top)
    mapping = _mapping(path, top.get("label_mapping") if isinstance(top, dict) else None)
    if isinstance(top, dict) and top.get("masks_dir") and len(names) == 1 and not mapping:
        names = {1: next(iter(names.values()))}  # ultralytics: with one class, 0 is background and 1 the class
    if background is None:
        named = {number for number, name in names.items() if name.strip().lower() == _BACKGROUND}
        background = frozenset(named | ({0} - set(names)))
    return ClassNames(names, background, mapping)


def _parsed(path: str, text: str) -> object:
    suffix = posixpath.splitext(path)[1].lower()
    try:
        if suffix == ".json":
            return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SourceError(f"{path!r} cannot be read: {' '.join(str(e).split())}") from e
    if suffix in (".yaml", ".yml"):
        return parse_yaml(path, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _names(path: str, top: object) -> dict[int, str]:
    if isinstance(top, dict) and "names" in top:
        top = top["names"]
    elif isinstance(top, dict) and isinstance(top.get("categories"), list):
        top = {row.get("id"): row.get("name") for row in top["categories"] if isinstance(row, dict)}
    if isinstance(top, list):
        top = dict(enumerate(top))
    if not isinstance(top, dict) or not top:
        raise SourceError(f"{path!r}: a map of class number to name, or a list of names, is needed")
    try:
        names = {int(str(number)): class_name(path, number, name) for number, name in top.items()}
    except ValueError as e:
        raise SourceError(f"{path!r}: class numbers must be whole: {e}") from e
    if min(names) < 0:
        raise SourceError(f"{path!r}: class number {min(names)} is negative")
    return names


def _mapping(path: str, top: object) -> dict[int, int]:
    """ultralytics' `label_mapping`: number in the file to class number; 255 or a word: not labelled."""
    if top is None:
        return {}
    if not isinstance(top, dict):
        raise SourceError(f"{path!r}: label_mapping must be a map, got {type(top).__name__}")
    try:
        return {int(k): 255 if v is None or v == "ignore_label" else int(v) for k, v in top.items()}
    except (TypeError, ValueError) as e:
        raise SourceError(f"{path!r}: label_mapping must map numbers to numbers: {e}") from e
