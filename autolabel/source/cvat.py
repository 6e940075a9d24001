"""A task exported from CVAT as "CVAT for images 1.1". What the XML says is cvat_file.py's to know."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef, Problem
from autolabel.ops.cvat_file import CvatImage, CvatLabels, read_cvat
from autolabel.ops.drawn import BadShape, joined, labels_of
from autolabel.ops.settings import flag, optional
from autolabel.source.locate import check_path, contained
from autolabel.source.places import picture_root

FILE = "annotations.xml"


@dataclass(frozen=True, slots=True, eq=False)
class _Parsed:
    """`namings` are the clean names that the images may have, each in the order of the images."""

    images: list[CvatImage]
    namings: list[list[str]]
    categories: tuple[Category, ...]


class CvatSource:
    """Categories are the task's labels in its order, then labels that only shapes name, sorted; ids from 1.

    `path` is the XML, or the folder that holds `annotations.xml`. Image ids are the names in it; the pictures are
    in `images_dir`, beside the file, in `images/` beside it, or the same one folder up. `subset` is the split. CVAT
    exports a project's pictures into a folder per subset, for names that are unique there alone: where they lie so, or
    a name is in several subsets, image ids are `<subset>/<name>`.
    Boxes have no mask; masks, polygons and ellipses have; polygons of one label and one `group_id` are one object
    (`join_groups`); points, polylines, cuboids and skeletons are counted and left alone. A shape that cannot be
    read makes its image `failed:bad_label`.
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
        return self._parsed.categories

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError, with the line, when the file as a whole cannot be trusted."""
        parsed = self._parsed
        ids = {category.name: category.id for category in parsed.categories}
        root, names = picture_root(self._file, self._images_dir, *parsed.namings)
        self._ignored = Counter()
        for name, image in zip(names, parsed.images, strict=True):
            yield self._ref(name, image, root, ids)

    def _ref(self, name: str, image: CvatImage, root: str, ids: Mapping[str, int]) -> ImageRef:
        labels, problem = None, None
        try:
            if image.problem:
                raise BadShape(image.problem)
            shapes = joined(image.shapes, image.size_hw) if self._join else image.shapes
            labels = labels_of(shapes, ids, image.size_hw)
            self._ignored.update(image.ignored)
        except BadShape as e:
            problem = Problem("bad_label", f"{self._file}: image {image.number + 1} ({name}): {e}")
        split = image.subset if image.subset and image.subset.lower() != "default" else None
        return ImageRef(name, posixpath.join(root, name), labels, split, problem, image.id, image.extra)

    @cached_property
    def _file(self) -> str:
        if not posixpath.isdir(self._path):
            return self._path
        return posixpath.join(self._path, FILE)

    @cached_property
    def _parsed(self) -> _Parsed:
        images: list[CvatImage] = []
        names: list[str] = []
        stated: dict[str, str] = {}
        used: set[str] = set()
        for item in self._read():
            if isinstance(item, CvatLabels):
                stated.update(item.extras)
                continue
            names.append(contained(item.name, f"{self._file!r}: image {item.number + 1}"))
            images.append(item)
            used |= {shape.label for shape in item.shapes}
        if not images and not stated:
            raise SourceError(f"{self._file!r} has no <image> and no <labels>; it is not a CVAT export")
        labels = {**stated, **dict.fromkeys(sorted(used - set(stated)), "")}
        categories = tuple(Category(id_, n, extra) for id_, (n, extra) in enumerate(labels.items(), 1))
        return _Parsed(images, self._namings(images, names), categories)

    def _namings(self, images: Sequence[CvatImage], names: list[str]) -> list[list[str]]:
        """The names as they are, and those in a folder per subset, of which no two are equal. Raises SourceError."""
        namings = [names, *_in_subsets(images, names)]
        unique = [naming for naming in namings if len(set(naming)) == len(naming)]
        if unique:
            return unique
        first = {name: n for n, name in reversed(list(enumerate(namings[-1], 1)))}
        number, name = next((n, name) for n, name in enumerate(namings[-1], 1) if n != first[name])
        raise SourceError(f"{self._file!r}: image {number}: the name {name!r} was there before")

    def _read(self) -> Iterator[CvatLabels | CvatImage]:
        if not posixpath.isfile(self._file):
            raise SourceError(f"no such file: {self._file!r}")
        try:
            with Path(self._file).open("rb") as stream:
                yield from read_cvat(stream)
        except OSError as e:
            raise SourceError(f"{self._file!r} cannot be read: {e.strerror}") from e
        except BadShape as e:
            raise SourceError(f"{self._file!r}: {e}") from e


def _in_subsets(images: Sequence[CvatImage], names: Sequence[str]) -> Iterator[list[str]]:
    """The names in a folder per subset, if each image has a subset and it can be a folder."""
    if all(image.subset for image in images):
        with suppress(SourceError):
            yield [contained(f"{image.subset}/{name}", "") for image, name in zip(images, names, strict=True)]
