"""A folder of pictures, with all folders below it; or one picture. Reads no labels."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef
from autolabel.ops.storage import absolute, exists, is_folder
from autolabel.source.locate import check_place
from autolabel.source.walk import pictures_below


class FolderSource:
    """Image ids are relative to `path`, in the order of their bytes. A path to one file is that one picture,
    whatever its extension, in its parent folder. `path` may be an address."""

    categories: tuple[Category, ...] = ()
    document = ""

    def __init__(self, *, path: str) -> None:
        self._path = check_place("path", path)
        self._ignored: Counter[str] = Counter()

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError when the folder itself is missing or cannot be listed."""
        path = absolute(self._path)
        if not is_folder(path):
            if not exists(path):
                raise SourceError(f"no such folder or picture: {self._path!r}")
            yield ImageRef(posixpath.basename(path), path)
            return
        ignored: Counter[str] = Counter()
        yield from pictures_below(path, lambda name: True, ignored)
        self._ignored = ignored
