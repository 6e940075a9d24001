"""Which label file belongs to which picture when both lie in folders: the same relative path without its
extension. Opens no file."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from autolabel.source.walk import Tree


@dataclass(frozen=True, slots=True)
class Pair:
    """Names relative to their trees. A label without a picture has no `image`, and the other way round."""

    image: str | None
    label: str | None

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.image or self.label or "")[0]


def pairs(images: Tree, labels: Tree, label_names: list[str]) -> Iterator[Pair]:
    """Every picture and every label of `label_names`, sorted by the bytes of the stem."""
    by_stem = {posixpath.splitext(name)[0]: name for name in label_names}
    found = [Pair(image, by_stem.get(posixpath.splitext(image)[0])) for image in images.images()]
    used = {pair.label for pair in found}
    orphans = [Pair(None, name) for name in label_names if name not in used]
    yield from sorted(found + orphans, key=lambda pair: os.fsencode(pair.image or pair.stem))


def with_extension(labels: Tree, suffix: str) -> list[str]:
    """Label files of one extension (lower case, with the dot)."""
    return [name for name in labels.files if posixpath.splitext(name)[1].lower() == suffix]
