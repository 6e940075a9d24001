"""PNGs whose pixels are numbers, beside pictures: class ids, or ids of objects. Reads no XML and no polygons.

For class ids (`semantic`) an object is a class's region, or each connected part of it; for object ids
(`instance`) the class comes from a JSON beside the PNG, from the id itself (`divisor`), or there is only one.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ImageError, SettingError, SourceError
from autolabel.core.types import Category, ImageRef, Labels, Problem, Rle
from autolabel.ops.components import split_parts
from autolabel.ops.drawn import BadShape, extra_text, is_crowd
from autolabel.ops.index_png import decode_index_png
from autolabel.ops.masks import bounds_xyxy, encode
from autolabel.ops.settings import count, one_of, optional
from autolabel.ops.storage import absolute
from autolabel.source.class_names import ClassNames, read_class_names
from autolabel.source.locate import check_path, contained, read_label_bytes, read_label_text
from autolabel.source.pairs import Pair
from autolabel.source.walk import Tree, count_ignored, extension, walk

_MAX_PNG = 256 << 20
_MAX_JSON = 64 << 20
_IGNORE = 255
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class _Object:
    """`extra` is what else a JSON beside the PNG says about it, as JSON text."""

    category_id: int
    mask: Rle
    extra: str = ""
    crowd: bool = False


class PngMaskSource:
    """A picture's PNG has the same path below `masks_dir` as the picture has below `images_dir`, without
    extension, once `image_suffix` and `mask_suffix` are taken off their stems. Image ids are relative to
    `path`; a first folder below `images_dir` that is called train, val or test is the split. Both may lie in
    one folder: then a PNG that has a picture's name is its mask, and no picture.

    Category ids are the class ids of the PNGs, one higher where the classes count from 0. `background` are the
    values that stand for no object; null: 0 where no class has it, and a class called background, except where a JSON
    beside object ids says which class an object has: whatever that is called, it is an object. `ignore` is a value
    that is not labelled at all (null: 255 for class ids). A PNG that cannot be read, has a class without
    name or no picture, or may be of several pictures (the `image` of a JSON beside it tells) makes a `failed` record.
    """

    document = ""

    def __init__(
        self,
        *,
        path: str,
        images_dir: str = "images",
        masks_dir: str = "masks",
        image_suffix: str = "",
        mask_suffix: str = "",
        kind: Literal["semantic", "instance"] = "semantic",
        objects: Literal["class", "part"] = "class",
        classes: str | None = None,
        background: list[int] | None = None,
        ignore: int | None = None,
        divisor: int | None = None,
    ) -> None:
        self._path = absolute(check_path("path", path))
        self._images_dir = _below("images_dir", images_dir)
        self._masks_dir = _below("masks_dir", masks_dir)
        for key, suffix in (("image_suffix", image_suffix), ("mask_suffix", mask_suffix)):
            if not isinstance(suffix, str):
                raise SettingError(f'{key} must be text, "" for none, got {suffix!r}')
        self._suffixes = image_suffix, mask_suffix
        self._semantic = one_of("kind", kind, ("semantic", "instance")) == "semantic"
        self._by_part = one_of("objects", objects, ("class", "part")) == "part"
        self._divisor = optional(count, "divisor", divisor, 2)
        self._classes = optional(_below, "classes", classes)
        self._background = optional(_values_of, "background", background)
        optional(count, "ignore", ignore)
        self._ignore = _IGNORE if ignore is None and self._semantic else ignore
        self._ignored: Counter[str] = Counter()

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    @property
    def categories(self) -> tuple[Category, ...]:
        names = self._names
        return tuple(Category(names.category_id(value), name) for value, name in sorted(names.objects.items()))

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError when a folder is not there, or the classes cannot be read."""
        names, (images, masks) = self._names, self._trees
        prefix = f"{self._images_dir}/" if self._images_dir else ""
        self._ignored = count_ignored(images, frozenset())
        found = list(self._pairs())
        sharing: dict[str | None, list[str]] = {}
        for pair in found:
            sharing.setdefault(pair.label, []).append(pair.image or "")
        for pair in found:
            yield self._ref(pair, sharing[pair.label], prefix, names)
        yield from images.unreadable_refs(prefix)
        if masks.root != images.root:
            yield from masks.unreadable_refs(f"{self._masks_dir}/")

    @cached_property
    def _trees(self) -> tuple[Tree, Tree]:
        roots = [posixpath.join(self._path, name).rstrip("/") for name in (self._images_dir, self._masks_dir)]
        for root in roots:
            if not posixpath.isdir(root):
                raise SourceError(f"no such folder: {root!r}")
        return walk(roots[0]), walk(roots[1])

    @cached_property
    def _names(self) -> ClassNames:
        by_value = self._semantic or self._divisor is not None
        default = None if by_value or self._classes is not None else "object"
        names = read_class_names(self._path, self._classes, self._background, default)
        files = frozenset(self._trees[1].files)
        if by_value or self._background is not None or not any(_beside(name) in files for name in self._pngs):
            return names
        return replace(names, background=names.background - set(names.names))

    @cached_property
    def _pngs(self) -> list[str]:
        return [name for name in self._trees[1].files if extension(name) == ".png"]

    def _pairs(self) -> Iterator[Pair]:
        """In the order of the pictures; PNGs without a picture at the end."""
        images, masks = self._trees
        image_suffix, mask_suffix = self._suffixes
        by_stem = {stem: name for name in self._pngs if (stem := _stem(name, mask_suffix)) is not None}
        pictures = {name: stem for name in images.images() if (stem := _stem(name, image_suffix)) is not None}
        together = images.root == masks.root
        # In a folder of both, a picture is never its own mask.
        used = {
            label
            for name, stem in pictures.items()
            if (label := by_stem.get(stem)) and (label != name or not together)
        }
        lonely = set(by_stem.values()) - used if mask_suffix or not together else set[str]()
        for name, stem in pictures.items():
            if not (together and name in used | lonely):
                label = by_stem.get(stem)
                yield Pair(name, label if label in used else None)
        yield from (Pair(None, name) for name in sorted(lonely))

    def _meant(self, label: str, sharing: list[str]) -> str | None:
        """Which of the pictures that share a PNG the `image` of the JSON beside it names, from whatever folder."""
        try:
            top = json.loads(read_label_text(_beside(self._trees[1].path(label)), _MAX_JSON))
        except (SourceError, ValueError, RecursionError):
            return None
        stated = posixpath.basename(str(top.get("image"))) if isinstance(top, dict) else ""
        return next((image for image in sharing if posixpath.basename(image) == stated), None)

    def _ref(self, pair: Pair, sharing: list[str], prefix: str, names: ClassNames) -> ImageRef:
        images, masks = self._trees
        name = pair.image or pair.stem
        first, _, below = name.partition("/")
        split = _SPLITS.get(first.lower()) if below else None
        ref = ImageRef(prefix + name, images.path(name), split=split)
        if pair.image is None:
            problem = Problem("missing", f"{pair.label!r} has no picture: no {pair.stem}.* in {images.root!r}")
            return replace(ref, problem=problem)
        if pair.label is None:
            return ref
        if len(sharing) > 1:
            meant = self._meant(pair.label, sharing)
            if meant is None:
                several = ", ".join(map(repr, sharing))
                detail = f"{masks.path(pair.label)!r} may be of any of {several}; no JSON beside it says of which"
                return replace(ref, problem=Problem("bad_label", detail))
            if meant != pair.image:
                return ref
        try:
            return replace(ref, labels=self._labels(masks.path(pair.label), names))
        except ImageError as e:
            return replace(ref, problem=Problem("bad_label", f"{masks.path(pair.label)}: {e.detail}"))
        except BadShape as e:
            return replace(ref, problem=Problem("bad_label", f"{masks.path(pair.label)}: {e}"))
        except SourceError as e:
            return replace(ref, problem=Problem("bad_label", str(e)))

    def _labels(self, path: str, names: ClassNames) -> Labels:
        ids = decode_index_png(read_label_bytes(path, _MAX_PNG))
        if ids.ndim != 2:
            raise SourceError(f"{path}: a colour PNG; one number per pixel is needed")
        objects = list(self._regions(ids, path, names) if self._semantic else self._instances(ids, path, names))
        masks = tuple(one.mask for one in objects)
        n = len(objects)
        return Labels(
            np.array([bounds_xyxy(mask) for mask in masks], np.float32).reshape(-1, 4),
            np.array([one.category_id for one in objects], np.int64),
            masks,
            (None,) * n,
            tuple(one.crowd for one in objects),
            size_hw=(int(ids.shape[0]), int(ids.shape[1])),
            extras=tuple(one.extra for one in objects),
        )

    def _regions(self, ids: NDArray[Any], path: str, names: ClassNames) -> Iterator[_Object]:
        by_class: dict[int, list[int]] = {}
        for value in self._values(ids):
            by_class.setdefault(names.mapping.get(value, value), []).append(value)
        for number, values in by_class.items():
            if number in names.background or (number == _IGNORE and names.mapping):
                continue
            category, mask = names.known(number, path), encode(np.isin(ids, values))
            yield from (_Object(category, part) for part in (split_parts(mask) if self._by_part else [mask]))

    def _instances(self, ids: NDArray[Any], path: str, names: ClassNames) -> Iterator[_Object]:
        stated = _sidecar(_beside(path))
        nothing = {0} if self._background is None else self._background
        for value in self._values(ids):
            if value in nothing:
                continue
            fields = dict(stated.get(value, {}))
            number = fields.pop("category_id", None)
            if number is None:
                number = names.only if self._divisor is None else _class_of(value, self._divisor)
            if not isinstance(number, int):
                raise SourceError(f"{path}: object {value} has no class; a JSON beside the PNG can say it")
            crowd = is_crowd(fields.pop("crowd", None))
            if number in names.background:
                self._ignored["objects of a background class"] += 1
            else:
                extra = extra_text({**dict(sorted(fields.items())), "instance_id": value})
                yield _Object(names.known(number, path), encode(ids == value), extra, crowd)

    def _values(self, ids: NDArray[Any]) -> list[int]:
        return [int(value) for value in np.unique(ids) if int(value) != self._ignore]


def _class_of(value: int, divisor: int) -> int:
    """As in Cityscapes: what is too small to hold a number within its class is a class itself."""
    return value // divisor if value >= divisor else value


def _values_of(key: str, values: object) -> frozenset[int]:
    if not isinstance(values, list) or any(isinstance(v, bool) or not isinstance(v, int) for v in values):
        raise SettingError(f"{key} must be made of whole numbers, got {values!r}")
    return frozenset(values)


def _below(key: str, value: object) -> str:
    """A folder below `path`: its clean relative path, "" for `path` itself."""
    text = check_path(key, value)
    try:
        return "" if text in (".", "./") else contained(text, key)
    except SourceError as e:
        raise SettingError(str(e)) from e


def _stem(name: str, suffix: str) -> str | None:
    """The relative path without extension and without `suffix`; None where it does not end so."""
    stem = posixpath.splitext(name)[0]
    return stem.removesuffix(suffix) if stem.endswith(suffix) else None


def _beside(png: str) -> str:
    return f"{posixpath.splitext(png)[0]}.json"


def _sidecar(path: str) -> dict[int, dict[str, Any]]:
    """Object id to its fields, from a JSON with `objects`; empty when there is none."""
    if not posixpath.isfile(path):
        return {}
    try:
        top = json.loads(read_label_text(path, _MAX_JSON))
        return {int(row["id"]): {k: v for k, v in row.items() if k != "id"} for row in top["objects"]}
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise SourceError(f"{path}: not a JSON with `objects` that have an `id`: {e!r}") from e
