"""A text file that names pictures, one a line. Reads no labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef
from autolabel.ops.settings import optional
from autolabel.ops.storage import absolute, parent
from autolabel.source.locate import check_place, placed, read_label_bytes

_MAX_BYTES = 1 << 30


class ListSource:
    """Paths are relative to the list's folder; blank lines and lines that start with `#` are passed over.

    The list is the person's own, so absolute paths and `..` are allowed: a picture inside the list's folder
    is known by its relative path, one outside by its absolute path without the first `/`. Order is the
    list's; a second naming of a picture is counted in `ignored`. A named file may be missing: it then fails.

    `path` may be an address. `root` takes the place of the list's folder; where it is an address (or the list is at
    one and there is no `root`), lines may be addresses too, of this storage alone (see `placed`).
    """

    categories: tuple[Category, ...] = ()
    document = ""

    def __init__(self, *, path: str, root: str | None = None) -> None:
        self._path = check_place("path", path)
        self._root = optional(check_place, "root", root)
        self._ignored: Counter[str] = Counter()

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError when the list cannot be read or is not text."""
        data = read_label_bytes(self._path, _MAX_BYTES)
        if b"\0" in data:
            raise SourceError(f"{self._path!r} is not a text file of paths (it holds NUL bytes)")
        root = parent(absolute(self._path)) if self._root is None else absolute(self._root)
        ignored: Counter[str] = Counter()
        seen: dict[str, str] = {}
        # Not decoded as UTF-8: file names are bytes, and `find` writes them as they are.
        for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
            name = os.fsdecode(line).strip()
            if not name or name.startswith("#"):
                continue
            ref = ImageRef(*placed(name, root, f"{self._path!r} line {number}"))
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
