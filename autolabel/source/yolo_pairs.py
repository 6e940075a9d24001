"""Which label file of a YOLO data set belongs to which picture, and which pictures are background. Opens no file."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from autolabel.core.types import Problem
from autolabel.source.pairs import with_extension
from autolabel.source.walk import Tree, count_ignored
from autolabel.source.yolo_folders import Counterparts

_NOT_LABELS = frozenset(
    {"classes.txt", "obj.names", "labels.txt", "train.txt", "val.txt", "test.txt", "readme.txt"}
)
"""In lower case. Lists of classes or of pictures, and notes; labels only where a picture has the name."""


@dataclass(frozen=True, slots=True)
class Picture:
    """`label` is a path; None when no label file exists: then `background` says that this, too, is a label. `missing`
    is for a label that has no picture."""

    image_id: str
    path: str
    label: str | None
    split: str | None = None
    problem: Problem | None = None
    stamp: tuple[int, int] | None = None
    background: bool = False


def paired(
    images: Tree, labels: Tree, files: list[str], prefix: str, split: str | None, ignored: Counter[str]
) -> Iterator[Picture]:
    """The pictures with what is theirs of the label files, and the files of `labels` that are nobody's; sorted by
    the bytes of the names. Files of `images` that are neither are counted in `ignored`."""
    own = labels_of(images, labels, files)
    lonely = _lonely(labels, frozenset(own.values()))
    found = [
        Picture(prefix + name, images.path(name), own.get(name), split, stamp=images.stamps.get(name))
        for name in images.images()
    ]
    found += _without_picture(images, labels, lonely, prefix, split)
    yield from sorted(found, key=lambda picture: os.fsencode(picture.image_id))
    for tree in {images.root: images, labels.root: labels}.values():
        for ref in tree.unreadable_refs(prefix if tree is images else "labels/"):
            yield Picture(ref.image_id, ref.path, None, split, ref.problem)
    used = {*own.values(), *map(labels.path, lonely)}
    ignored.update(count_ignored(images, frozenset(name for name in images.files if images.path(name) in used)))


def label_path(image: str) -> str:
    """The last folder called `images` becomes `labels`, as in the ultralytics loader."""
    return _with_folder(_stem(image), "images", "labels") + ".txt"


def _with_folder(path: str, old: str, new: str) -> str:
    """With another name for the last folder of this name."""
    parts = path.split("/")
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == old:
            parts[at] = new
            break
    return "/".join(parts)


def label_files(tree: Tree) -> list[str]:
    return [tree.path(name) for name in with_extension(tree, ".txt")]


def labels_of(images: Tree, labels: Tree, files: Collection[str]) -> dict[str, str]:
    """Picture to the one of the label files where the ultralytics loader looks for it, else the one at the same
    relative path in `labels`; each of them as it is spelled, else in another Unicode form: a disk or an archive may
    have changed that of pictures alone. Else the one in the folder of labels beside its own, however these two spell
    `images` and `labels`."""
    by_stem = {_stem(file): file for file in files}
    wanted = {name: (_stem(label_path(images.path(name))), labels.path(_stem(name))) for name in images.images()}
    found = {name: _first(stems, by_stem) for name, stems in wanted.items()}
    taken = set(found.values())
    free = {_composed(stem): file for stem, file in by_stem.items() if file not in taken}
    own = {name: label or _first(map(_composed, wanted[name]), free) for name, label in found.items()}
    beside = Counterparts(images.root)
    for name in (name for name, label in own.items() if label is None):
        if (label := beside.label(name)) is not None:
            own[name] = free.get(_composed(_stem(images.path(label))))
    return {name: label for name, label in own.items() if label is not None}


def _first(stems: Iterable[str], by_stem: Mapping[str, str]) -> str | None:
    return next((by_stem[stem] for stem in stems if stem in by_stem), None)


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _lonely(labels: Tree, used: Collection[str]) -> list[str]:
    names = (name for name in with_extension(labels, ".txt") if labels.path(name) not in used)
    return [name for name in names if posixpath.basename(name).lower() not in _NOT_LABELS]


def _without_picture(
    images: Tree, labels: Tree, names: Iterable[str], prefix: str, split: str | None
) -> Iterator[Picture]:
    beside = Counterparts(labels.root)
    for name in names:
        label, stem = labels.path(name), _stem(name)
        if images.root == labels.root:
            stem = beside.image(name) or _with_folder(stem, "labels", "images")
        problem = Problem("missing", f"{label!r} has no picture: no {stem}.* in {images.root!r}")
        yield Picture(prefix + stem, images.path(stem), label, split, problem)


def with_background(pictures: Collection[Picture]) -> Iterator[Picture]:
    """The pictures, those without a label file among others that have one as background. A label file without a
    picture is no other: where all are, the names differ, and nobody knows what is background."""
    labelled = {_part(picture) for picture in pictures if picture.label is not None and picture.problem is None}
    for picture in pictures:
        is_background = picture.label is None and _part(picture) in labelled
        yield replace(picture, background=True) if is_background else picture


def _part(picture: Picture) -> str:
    """What is labelled as a whole, or not at all: data sets have a test split, or a folder of it, without labels."""
    return picture.split or posixpath.dirname(picture.image_id)
