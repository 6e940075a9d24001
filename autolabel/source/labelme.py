"""A folder of LabelMe JSON files and their pictures. What a file says is labelme_file.py's to know."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef, Problem
from autolabel.ops.drawn import BadShape, category_ids, joined, labels_of
from autolabel.ops.labelme_file import LabelMeFile, parse_labelme, survey_labelme
from autolabel.ops.settings import flag, optional
from autolabel.ops.storage import absolute
from autolabel.source.locate import check_path, contained, read_label_text
from autolabel.source.pairs import with_extension
from autolabel.source.walk import Tree, count_ignored, walk

_MAX_JSON = 256 << 20


@dataclass(frozen=True, slots=True)
class _Seen:
    """A label file at first sight. `broken`: it is not JSON, so nobody knows whether it is one of LabelMe's. `sharing`:
    the pictures that it may be of, where they are several."""

    label: str
    image_path: str = ""
    labels: frozenset[str] = frozenset()
    broken: bool = False
    sharing: tuple[str, ...] = ()


class LabelMeSource:
    """Categories are all labels of the folder, sorted, with ids from 1. Files are read twice: for the labels, and
    one by one for the shapes.

    A file belongs to the picture that its `imagePath` names, from the file's own place or its name alone, else to
    the picture of the same relative path without extension; where several have that path, all fail. The pictures
    are in `images_dir`, among the files, or in `images/` beside the folder. Image ids are relative to `images_dir`
    if it is given, else to the data set's folder. Shapes of one label and one `group_id` are one object
    (`join_groups`); rectangles are boxes without a mask; points and lines are counted and left alone. A file that
    cannot be read makes its picture `failed:bad_label`; a picture without a file has no labels.
    """

    document = ""

    def __init__(self, *, path: str, images_dir: str | None = None, join_groups: bool = True) -> None:
        self._path = check_path("path", path)
        self._images_dir = optional(check_path, "images_dir", images_dir)
        self._join = flag("join_groups", join_groups)
        self._ignored: Counter[str] = Counter()

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(Category(id_, name) for name, id_ in self._ids.items())

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError when the folders are not there, or two files name one picture."""
        labels, images, prefix = self._folders
        by_image, lonely, strangers = self._matched
        self._ignored = count_ignored(images, frozenset(seen.label for seen in [*by_image.values(), *lonely]))
        self._ignored.update({".json that is not LabelMe's": strangers} if strangers else {})
        self._ignored.pop(".json", None)
        refs = [ImageRef(prefix + name, images.path(name)) for name in images.images()]
        for ref in refs:
            seen = by_image.get(ref.image_id.removeprefix(prefix))
            yield ref if seen is None else self._labelled(ref, seen)
        for seen in lonely:
            stem = posixpath.splitext(seen.label)[0]
            detail = (
                f"{labels.path(seen.label)}: its picture {seen.image_path or stem!r} is not below {images.root!r}"
            )
            yield ImageRef(prefix + stem, images.path(stem), problem=Problem("missing", detail))
        yield from images.unreadable_refs(prefix)

    def _labelled(self, ref: ImageRef, seen: _Seen) -> ImageRef:
        path = self._folders[0].path(seen.label)
        if seen.sharing:
            several = ", ".join(map(repr, seen.sharing))
            detail = f"{path!r} may be of any of {several}; its imagePath is {seen.image_path!r}"
            return replace(ref, problem=Problem("bad_label", detail))
        try:
            found = parse_labelme(read_label_text(path, _MAX_JSON))
            shapes = joined(found.shapes, found.size_hw) if self._join else list(found.shapes)
            labels = labels_of(shapes, self._ids, found.size_hw)
        except (BadShape, SourceError) as e:
            text = str(e) if isinstance(e, SourceError) else f"{path}: {e}"
            return replace(ref, problem=Problem("bad_label", text))
        self._count(found)
        return replace(ref, labels=labels, extra=found.extra)

    def _count(self, found: LabelMeFile) -> None:
        for reason, number in found.ignored.items():
            self._ignored[reason] += number

    @cached_property
    def _folders(self) -> tuple[Tree, Tree, str]:
        """The trees of files and of pictures, and what goes in front of a picture's name there."""
        path = absolute(self._path)
        if not posixpath.isdir(path):
            raise SourceError(f"no such folder: {self._path!r}")
        labels = walk(path)
        if self._images_dir is not None:
            return labels, walk(absolute(self._images_dir)), ""
        beside = posixpath.join(posixpath.dirname(path), "images")
        if not labels.images() and posixpath.isdir(beside):
            return labels, walk(beside), "images/"
        return labels, labels, ""

    @cached_property
    def _seen(self) -> tuple[tuple[_Seen, ...], int]:
        """LabelMe's files, and how many others there are."""
        labels = self._folders[0]
        found, strangers = [], 0
        for name in with_extension(labels, ".json"):
            try:
                survey = survey_labelme(read_label_text(labels.path(name), _MAX_JSON))
            except (BadShape, SourceError):
                found.append(_Seen(name, broken=True))
                continue
            if survey is None:
                strangers += 1
            else:
                found.append(_Seen(name, *survey))
        return tuple(found), strangers

    @cached_property
    def _ids(self) -> dict[str, int]:
        return category_ids(label for seen in self._seen[0] for label in seen.labels)

    @cached_property
    def _matched(self) -> tuple[dict[str, _Seen], list[_Seen], int]:
        """The file of each picture, files of no picture, and how many JSON files are none of LabelMe's."""
        found, strangers = self._seen
        images = set(self._folders[1].images())
        stems: dict[str, list[str]] = {}
        for name in sorted(images, key=os.fsencode):
            stems.setdefault(posixpath.splitext(name)[0], []).append(name)
        by_image: dict[str, _Seen] = {}
        lonely = []
        unsure = []
        for seen in found:
            named, alike = _named(seen, images), stems.get(posixpath.splitext(seen.label)[0], [])
            image = named or next(iter(alike), None)
            if image is None and seen.broken:
                strangers += 1
            elif image is None:
                lonely.append(seen)
            elif named is None and len(alike) > 1:
                unsure.append(replace(seen, sharing=tuple(alike)))
            elif image in by_image:
                both = f"{by_image[image].label!r} and {seen.label!r}"
                raise SourceError(f"{self._path!r}: {both} describe the same picture {image!r}")
            else:
                by_image[image] = seen
        for seen in unsure:
            free = [
                image for image in seen.sharing if image not in by_image
            ]  # the others are those of files that name them
            by_image.update(dict.fromkeys(free, seen))
            lonely += [] if free else [seen]
        return by_image, lonely, strangers


def _named(seen: _Seen, images: set[str]) -> str | None:
    """The picture that a file's `imagePath` names; None if it is not there or leads outside."""
    folder = posixpath.dirname(seen.label)
    slashed = seen.image_path.replace("\\", "/")
    for name in (slashed, posixpath.basename(slashed)):
        try:
            path = contained(posixpath.join(folder, name), seen.label)
        except SourceError:
            continue
        if path in images:
            return path
    return None
