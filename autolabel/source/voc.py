"""Pascal VOC: one XML a picture, with boxes, and masks where the devkit has segmentation PNGs (voc_masks.py).

XML boxes are 1-based and inclusive: `xmin=1, xmax=w` is the whole width, so only the minima move. `difficult`
objects are objects like any other; that flag and every other tag without a place here stay in `extra`.
Entities, external or not, are refused by defusedxml.
"""

from __future__ import annotations

import itertools
import json
import os
import posixpath
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef, Labels, Problem, Rle
from autolabel.ops.settings import optional
from autolabel.ops.storage import absolute, in_parallel, is_file, is_folder, is_url, parent
from autolabel.ops.xml_json import Json, children_json
from autolabel.source.locate import (
    check_place,
    contained,
    read_label_bytes,
    read_label_text,
)
from autolabel.source.pairs import Pair, pairs, with_extension
from autolabel.source.voc_masks import MASK_FOLDER, VocMasks, boxes_of
from autolabel.source.walk import Tree, count_ignored, extension, walk

_MAX_XML = 8 << 20
_MAX_LIST = 256 << 20
_FLAGS = ("difficult", "truncated", "occluded")


@dataclass(frozen=True, slots=True)
class _Annotation:
    """What one XML says. `boxes` are 0-based and half-open; `extras` and `extra` are JSON text."""

    filename: str
    size_hw: tuple[int, int] | None
    names: tuple[str, ...]
    boxes: tuple[tuple[float, ...], ...]
    extras: tuple[str, ...]
    extra: str


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things lie; `prefix` goes in front of a picture's relative name to give its image id."""

    images: str
    annotations: str
    prefix: str
    devkit: str | None = None


class VocSource:
    """Categories are the classes of labelmap.txt in its order, then all other class names of the data set,
    sorted; ids from 1.

    `path` is a devkit year (`JPEGImages/` or `images/`, `Annotations/` or `annotations/`,
    `SegmentationObject/` and `SegmentationClass/` for masks, and `ImageSets/Main/{train,val,test}.txt`, or else
    those of `ImageSets/Segmentation/`, for the splits), or a folder of XML files whose pictures are in
    `images_dir`, in `images/` beside it, or among them. A picture belongs to the XML of the same relative path
    without extension, else to the XML whose `filename` names it. Of several pictures that differ in the extension
    alone an XML has the one that its `filename` names; where that is none of them, all are `failed:bad_label`. Image
    ids are relative to `images_dir` if it is given, else to the data set's folder. An XML that cannot be read, or
    that its PNGs contradict, makes its picture `failed:bad_label`; all XML files are read before the first picture is
    given out, since the classes are known only then. PNGs are read one picture at a time; where a picture has them
    and no XML, they are its labels; where several pictures may have them, all of these are `failed:bad_label`. `path`
    and `images_dir` may be addresses.
    """

    document = ""

    def __init__(self, *, path: str, images_dir: str | None = None) -> None:
        self._path = check_place("path", path)
        self._images_dir = optional(check_place, "images_dir", images_dir)
        self._ignored: Counter[str] = Counter()

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(Category(id_, name) for name, id_ in self._category_ids.items())

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError when the folders are not there, or two XML files name one picture."""
        layout, ids = self._layout, self._category_ids
        images, labels = self._trees
        splits, strangers = _splits(layout.devkit, {pair.stem for pair in self._pairs})
        first: dict[str, str | None] = {}
        for pair in self._pairs:
            ref = self._ref(pair, images, ids, splits)
            if ref.image_id in first:
                both = f"{first[ref.image_id]!r} and {pair.label!r}"
                raise SourceError(f"{self._path!r}: {both} describe the same picture {ref.image_id!r}")
            first[ref.image_id] = pair.label
            yield ref
        yield from images.unreadable_refs(layout.prefix)
        if labels.root != images.root:
            yield from labels.unreadable_refs("Annotations/")
        xml = frozenset(with_extension(labels, ".xml")) if labels.root == images.root else frozenset[str]()
        self._ignored = count_ignored(images, xml)
        self._ignored.update({"names in ImageSets without a picture": strangers} if strangers else {})

    def _ref(self, pair: Pair, images: Tree, ids: Mapping[str, int], splits: Mapping[str, str]) -> ImageRef:
        found = None if pair.label is None else self._annotations[pair.label]
        name = pair.image or pair.stem
        image_id, path = self._layout.prefix + name, images.path(name)
        ref = ImageRef(image_id, path, split=splits.get(pair.stem), stamp=images.stamps.get(name))
        if isinstance(found, Problem):
            return replace(ref, problem=found)
        if found is not None and pair.label in self._shared and self._meant(pair.label) is None:
            several = ", ".join(map(repr, self._shared[pair.label]))
            detail = f"{pair.label!r} may be of any of {several}; its <filename> is {found.filename!r}"
            return replace(ref, problem=Problem("bad_label", detail))
        if pair.image is None:
            problem = Problem("missing", f"{pair.label!r} has no picture: no {pair.stem}.* in {images.root!r}")
            return replace(ref, problem=problem)
        try:
            labels = self._labels(pair, found, ids)
        except SourceError as e:
            return replace(ref, problem=Problem("bad_label", str(e)))
        return replace(ref, labels=labels, extra="" if found is None else found.extra)

    def _labels(self, pair: Pair, found: _Annotation | None, ids: Mapping[str, int]) -> Labels | None:
        if found is not None:
            stem = posixpath.splitext(pair.label or pair.stem)[0]
            masks = self._masks and self._masks.of_objects(stem, found.names)
            return _labels(found, ids, masks or (None,) * len(found.names))
        if self._masks is None or pair.stem in self._xml_stems:
            return None
        if pair.stem in self._alike and (png := self._masks.first(pair.stem)) is not None:
            several = ", ".join(map(repr, self._alike[pair.stem]))
            raise SourceError(f"{png!r} may be of any of {several}; no XML says of which")
        objects = self._masks.without_xml(pair.stem)
        return None if objects is None else _labels_of_masks(objects, ids)

    @cached_property
    def _layout(self) -> _Layout:
        path = absolute(self._path)
        if not is_folder(path):
            raise SourceError(f"no such folder: {self._path!r}")
        given = None if self._images_dir is None else absolute(self._images_dir)
        if (found := devkit_folders(path)) is not None:
            annotations, pictures = found
            prefix = "" if given else f"{pictures}/"
            return _Layout(
                given or posixpath.join(path, pictures), posixpath.join(path, annotations), prefix, path
            )
        beside = posixpath.join(parent(path), "images")
        if given is None and is_folder(beside):
            return _Layout(beside, path, "images/")
        return _Layout(given or path, path, "")

    @cached_property
    def _trees(self) -> tuple[Tree, Tree]:
        images, labels = self._layout.images, self._layout.annotations
        return walk(images), walk(labels) if is_folder(labels) else Tree(labels, (), ())

    @cached_property
    def _annotations(self) -> dict[str, _Annotation | Problem]:
        """By the XML's relative path."""
        labels = self._trees[1]
        names = with_extension(labels, ".xml")
        paths = map(labels.path, names)
        # Here one file after the other is as fast; at a storage each of them is waited for.
        found = in_parallel(_parse, paths) if is_url(labels.root) else map(_parse, paths)
        return dict(zip(names, found, strict=True))

    @cached_property
    def _category_ids(self) -> dict[str, int]:
        read = [a for a in self._annotations.values() if isinstance(a, _Annotation)]
        used = {name for annotation in read for name in annotation.names}
        stated = list(self._masks.class_names.values()) if self._masks and self._names_from_masks else []
        names = dict.fromkeys([*stated, *sorted(used)])
        return {name: id_ for id_, name in enumerate(names, 1)}

    @cached_property
    def _masks(self) -> VocMasks | None:
        return None if self._layout.devkit is None else VocMasks(self._layout.devkit)

    @property
    def _names_from_masks(self) -> bool:
        """Whether classes can be met that no XML names."""
        masks = self._masks
        if masks is None or masks.states_classes:
            return masks is not None
        bare = (pair.stem for pair in self._pairs if pair.label is None)
        return any(masks.first(stem) for stem in bare if stem not in self._xml_stems)

    @cached_property
    def _xml_stems(self) -> frozenset[str]:
        """PNGs of these names go with an XML; a picture without one may have the same name."""
        return frozenset(posixpath.splitext(name)[0] for name in self._annotations)

    @cached_property
    def _by_stem(self) -> tuple[Pair, ...]:
        return tuple(pairs(*self._trees, list(self._annotations)))

    @cached_property
    def _alike(self) -> dict[str, list[str]]:
        """The pictures of each stem that several have."""
        found: dict[str, list[str]] = {}
        for pair in self._by_stem:
            if pair.image is not None:
                found.setdefault(pair.stem, []).append(pair.image)
        return {stem: images for stem, images in found.items() if len(images) > 1}

    @cached_property
    def _shared(self) -> dict[str, list[str]]:
        """The pictures of each XML whose stem several have."""
        found = [(pair.label, pair.stem) for pair in self._by_stem if pair.label is not None and pair.image]
        return {label: self._alike[stem] for label, stem in found if stem in self._alike}

    def _meant(self, label: str) -> str | None:
        """Which of the pictures that share its stem an XML's `filename` names, from whatever folder."""
        found = self._annotations[label]
        name = "" if isinstance(found, Problem) else posixpath.basename(found.filename.replace("\\", "/"))
        return next((image for image in self._shared[label] if posixpath.basename(image) == name), None)

    def _decided(self, pair: Pair) -> Pair:
        meant = self._meant(pair.label) if pair.label in self._shared else None
        return pair if meant in (None, pair.image) else Pair(pair.image, None)

    @cached_property
    def _pairs(self) -> tuple[Pair, ...]:
        found = [self._decided(pair) for pair in self._by_stem]
        bare = {pair.image for pair in found if pair.label is None}
        lonely = [pair.label for pair in found if pair.image is None and pair.label]
        matched = [Pair(name, label) for label in lonely if (name := self._named(label)) in bare]
        taken = {pair.image for pair in matched} | {pair.label for pair in matched}
        joined = [p for p in found if p.image not in taken and p.label not in taken] + matched
        return tuple(sorted(joined, key=lambda p: os.fsencode(p.image or p.stem)))

    def _named(self, label: str) -> str | None:
        """The picture that an XML's `filename` states, beside the XML's own place; None if it leads outside."""
        found = self._annotations[label]
        if isinstance(found, Problem) or not found.filename:
            return None
        try:
            return posixpath.join(posixpath.dirname(label), contained(found.filename, label))
        except SourceError:
            return None


def _parse(path: str) -> _Annotation | Problem:
    try:
        top = fromstring(read_label_bytes(path, _MAX_XML))
        return _annotation(top)
    except SourceError as e:
        return Problem("bad_label", str(e))
    except DefusedXmlException as e:
        return Problem("bad_label", f"{path}: entities are refused: {type(e).__name__}")
    except (ParseError, ValueError, LookupError) as e:
        return Problem("bad_label", f"{path}: {e}")


def _annotation(top: Element) -> _Annotation:
    if top.tag != "annotation":
        raise ValueError(f"the top element is <{top.tag[:40]}>, not <annotation>")
    objects = top.findall("object")
    names = tuple(_text(o, "name", at) for at, o in enumerate(objects, 1))
    boxes = tuple(_box(o, at) for at, o in enumerate(objects, 1))
    extras = tuple(_extra(children_json(o, ("name", "bndbox"))) for o in objects)
    extra = _extra(children_json(top, ("filename", "size", "object", "segmented")))
    return _Annotation(top.findtext("filename", "").strip(), _size(top), names, boxes, extras, extra)


def _extra(fields: dict[str, Json]) -> str:
    """Flags as the numbers they are; the text of everything else."""
    flags = {tag: int(value) for tag, value in fields.items() if tag in _FLAGS and value in ("0", "1")}
    return json.dumps({**fields, **flags}, ensure_ascii=True, sort_keys=True) if fields else ""


def _text(element: Element, tag: str, number: int) -> str:
    text = element.findtext(tag, "").strip()
    if not text:
        raise ValueError(f"object {number} has no <{tag}>")
    return text


def _box(element: Element, number: int) -> tuple[float, ...]:
    bounds = element.find("bndbox")
    if bounds is None:
        raise ValueError(f"object {number} has no <bndbox>")
    try:
        x0, y0, x1, y1 = (float(_text(bounds, tag, number)) for tag in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError as e:
        raise ValueError(f"object {number}: bad <bndbox>: {e}") from e
    return x0 - 1, y0 - 1, x1, y1


def _size(top: Element) -> tuple[int, int] | None:
    """None when the file states none; many tools write 0."""
    try:
        h, w = (int(float(top.findtext(f"size/{tag}", "0"))) for tag in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (h, w) if h > 0 and w > 0 else None


def _labels(found: _Annotation, ids: Mapping[str, int], masks: tuple[Rle | None, ...]) -> Labels:
    n = len(found.names)
    sizes = {mask.size_hw for mask in masks if mask is not None}
    if found.size_hw is not None and sizes - {found.size_hw}:
        stated, real = (f"{w}x{h}" for h, w in (found.size_hw, sizes.pop()))
        raise SourceError(f"{found.filename}: the XML says {stated} px, its segmentation PNG has {real}")
    return Labels(
        np.array(found.boxes, np.float32).reshape(-1, 4),
        np.array([ids[name] for name in found.names], np.int64),
        masks,
        (None,) * n,
        (False,) * n,
        size_hw=found.size_hw or next(iter(sizes), None),
        extras=found.extras,
    )


def _labels_of_masks(objects: tuple[tuple[str, Rle], ...], ids: Mapping[str, int]) -> Labels:
    masks, n = tuple(mask for _, mask in objects), len(objects)
    return Labels(
        boxes_of(masks),
        np.array([ids[name] for name, _ in objects], np.int64),
        masks,
        (None,) * n,
        (False,) * n,
        size_hw=masks[0].size_hw if masks else None,
    )


def _splits(devkit: str | None, stems: Collection[str]) -> tuple[dict[str, str], int]:
    """Picture stem to split, and how many other names the lists have."""
    found: dict[str, str] = {}
    strangers: set[str] = set()
    for folder, split in itertools.product(("Main", "Segmentation"), ("train", "val", "test")):
        path = posixpath.join(devkit or "", "ImageSets", folder, f"{split}.txt")
        if devkit and is_file(path):
            for line in filter(None, map(str.strip, read_label_text(path, _MAX_LIST).splitlines())):
                stem = next((name for name in _readings(line) if name in stems), None)
                if stem is None:
                    strangers.add(line)
                else:
                    found.setdefault(stem, split)
    return found, len(strangers)


def _readings(line: str) -> Iterator[str]:
    """What a line of ImageSets may name: names can have spaces, and some lists have a flag, or more, behind them."""
    yield line
    name, *flag = line.rsplit(None, 1)
    if flag in (["-1"], ["0"], ["1"]):
        yield name
    yield line.split(None, 1)[0]


def devkit_folders(path: str) -> tuple[str, str] | None:
    """Names of the folders of XML files (which is not there where segmentation PNGs are all the labels) and of
    pictures in a data set folder; None if it has no such pair."""
    found = [
        (labels, pictures)
        for labels in ("Annotations", "annotations", MASK_FOLDER)
        for pictures in ("JPEGImages", "images", "Images")
        if all(is_folder(posixpath.join(path, name)) for name in (labels, pictures))
    ]
    if not found:
        return None
    labels, pictures = found[0]
    return "Annotations" if labels == MASK_FOLDER else labels, pictures


def is_voc_file(path: str) -> bool:
    """Whether a file looks like a VOC annotation, from its first bytes."""
    if extension(path) != ".xml":
        return False
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return b"<annotation" in file.read(1024)
    except OSError:
        return False
