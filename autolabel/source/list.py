"""A text file that names pictures, one a line. Reads no labels."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef
from autolabel.source.locate import check_path, read_label_bytes

_MAX_BYTES = 1 << 30


class ListSource:
    """Paths are relative to the list's folder; blank lines and lines that start with `#` are passed over.

    The list is the person's own, so absolute paths and `..` are allowed: a picture inside the list's folder
    is known by its relative path, one outside by its absolute path without the first `/`. Order is the
    list's; a second naming of a picture is counted in `ignored`. A named file may be missing: it then fails.
    """

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
        """Raises SourceError when the list cannot be read or is not text."""
        data = read_label_bytes(self._path, _MAX_BYTES)
        if b"\0" in data:
            raise SourceError(f"{self._path!r} is not a text file of paths (it holds NUL bytes)")
        root = posixpath.dirname(posixpath.abspath(self._path))
        ignored: Counter[str] = Counter()
        seen: dict[str, str] = {}
        # Not decoded as UTF-8: file names are bytes, and `find` writes them as they are.
        for line in data.removeprefix(b"\xef\xbb\xbf").splitlines():
            name = os.fsdecode(line).strip()
            if not name or name.startswith("#"):
                continue
            ref = _ref(root, name)
            before = seen.get(ref.image_id)
            if before == ref.path:
                ignored["named twice"] += 1
                continue
            if before is not None:
                raise SourceError(
                    f"{self._path!r}: {before!r} and {ref.path!r} would both be called {ref.image_id!r}; "
                    "move the list to a folder above both"
                )
            seen[ref.image_id] = ref.path
            yield ref
        self._ignored = ignored


def _ref(root: str, name: str) -> ImageRef:
    path = posixpath.normpath(posixpath.join(root, name))
    inside = path.startswith(root.rstrip("/") + "/")
    return ImageRef(posixpath.relpath(path, root) if inside else path.lstrip("/"), path)
