"""A folder of pictures, with all folders below it; or one picture. Reads no labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef
from autolabel.source.locate import check_path
from autolabel.source.walk import count_ignored, walk


class FolderSource:
    """Image ids are relative to `path`, in the order of their bytes. A path to one file is that one picture,
    whatever its extension, in its parent folder."""

    def __init__(self, *, path: str) -> None:
        self._path = check_path("source.path", path)
        self._ignored: Counter[str] = Counter()

    @property
    def categories(self) -> tuple[Category, ...]:
        return ()

    @property
    def document(self) -> str:
        return ""

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError when the folder itself is missing or cannot be listed."""
        path = Path(self._path)
        if not path.exists():
            raise SourceError(f"no such folder or picture: {self._path!r}")
        if not path.is_dir():
            yield ImageRef(path.name, self._path)
            return
        tree = walk(self._path)
        refs = [ImageRef(name, tree.path(name)) for name in tree.images()]
        yield from sorted([*refs, *tree.unreadable_refs()], key=lambda ref: os.fsencode(ref.image_id))
        self._ignored = count_ignored(tree, frozenset())
