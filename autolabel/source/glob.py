"""Pictures whose path matches a pattern: `photos/**/cam?_*.jpg`. Reads no labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef
from autolabel.ops.storage import absolute, is_folder
from autolabel.source.locate import check_place
from autolabel.source.walk import pictures_below

_MAGIC = re.compile(r"[*?\[]")


def has_pattern(path: str) -> bool:
    return _MAGIC.search(path) is not None


class GlobSource:
    """`*` and `?` stay inside one name, `**` crosses folders, `[ab]` and `[!ab]` are sets. Image ids are
    relative to the last folder in front of the first pattern character. Hidden files never match. `path` may be an
    address."""

    categories: tuple[Category, ...] = ()
    document = ""

    def __init__(self, *, path: str) -> None:
        self._path = check_place("path", path)
        self._ignored: Counter[str] = Counter()

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError when the folder in front of the pattern is missing."""
        root, pattern = _split(self._path)
        place = absolute(root)
        if not is_folder(place):
            raise SourceError(f"no such folder: {root!r} (in front of the pattern {pattern!r})")
        matches, ignored = _translate(pattern), Counter[str]()
        yield from pictures_below(place, lambda name: matches.fullmatch(name) is not None, ignored)
        self._ignored = ignored


def _split(path: str) -> tuple[str, str]:
    """The fixed folder in front, and the pattern below it."""
    match = _MAGIC.search(path)
    cut = path.rfind("/", 0, match.start() if match else len(path)) + 1
    return path[:cut] or ".", path[cut:]


def _translate(pattern: str) -> re.Pattern[str]:
    out, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", r"\\")
            out += "(?!/)[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]"
            at = end + 1
        else:
            out, at = out + {"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at])), at + 1
    return re.compile(out, re.DOTALL)
