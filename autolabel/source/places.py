"""Where the pictures are that a label file names: below which folder, or which file of a tree. Looks names up only
among what is there; a name never leads anywhere."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterable
from functools import cached_property
from urllib.parse import parse_qs, unquote, urlsplit

from autolabel.ops.storage import absolute, exists, parent
from autolabel.source.walk import Tree

_PROBE = 100


def picture_root(label_file: str, images_dir: str | None, names: Iterable[str]) -> str:
    """The folder that clean relative names are below: `images_dir` or its parent; or beside the file, in `images/`
    beside it, or the same one folder up: the first place that has one of the first names, for all of them."""
    here = parent(absolute(label_file))
    if images_dir is not None:
        given = absolute(images_dir)
        places = [given, parent(given)]
    else:
        up = parent(here)
        places = [here, posixpath.join(here, "images"), up, posixpath.join(up, "images")]
    first = list(itertools.islice(names, _PROBE))
    found = (place for place in places if any(exists(posixpath.join(place, name)) for name in first))
    return next(found, places[0])


class PicturesByAddress:
    """Finds the picture that an address ends in: the file of that name that shares most folders with it.

    `/data/local-files/?d=cam1/0.jpg`, `s3://bucket/cam1/0.jpg` and `/data/upload/3/1f0c9a7b-0.jpg` (the tool puts
    eight digits in front) all can be `cam1/0.jpg`.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def find(self, address: str) -> str | None:
        """The picture's path in the tree; None when there is none, or several that fit equally well."""
        parts = path_of(address).split("/")
        plain = re.sub(r"^[0-9a-f]{8}-", "", parts[-1])
        for name in dict.fromkeys((parts[-1], plain)):
            found = self._by_name.get(name, [])
            ranked = sorted(found, key=lambda path: _shared(path, parts), reverse=True)
            if ranked and (len(ranked) == 1 or _shared(ranked[0], parts) > _shared(ranked[1], parts)):
                return ranked[0]
            if ranked:
                return None
        return None

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self._tree.images():
            found.setdefault(posixpath.basename(path), []).append(path)
        return found


def path_of(address: str) -> str:
    """The path in an address, clean and relative, for names of pictures that are not there."""
    try:
        split = urlsplit(address)
    except ValueError:  # brackets that are no IPv6 address
        return address.replace("/", "_")
    given = parse_qs(split.query).get("d") if split.path.endswith("local-files/") else None
    path = given[0] if given else unquote(split.path) or address
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "unnamed"


def _shared(path: str, parts: list[str]) -> int:
    """How many components two paths have in common, from the end."""
    pairs = zip(reversed(path.split("/")), reversed(parts), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
