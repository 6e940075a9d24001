"""Where the pictures are that a label file names: below which folder, or which file of a tree. Looks names up only
among what is there; a name never leads anywhere."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Collection, Sequence
from functools import cached_property
from urllib.parse import parse_qs, unquote, urlsplit

from autolabel.core.errors import SourceError
from autolabel.ops.storage import absolute, exists, parent
from autolabel.source.walk import Tree

_PROBE = 100
_UPLOAD = re.compile(r"(?:^|/)upload/[0-9]+/[^/]+$")
_UPLOAD_DIGITS = re.compile(r"^[0-9a-f]{8}-")
_NOT_STORED = re.compile(r"[^-\w.]")  # Django's get_valid_filename


def picture_root(
    label_file: str, images_dir: str | None, *namings: Collection[str]
) -> tuple[str, Collection[str]]:
    """The folder that clean relative names are below: `images_dir`, or its parent where every name begins with its
    last folder; or beside the file, in `images/` beside it, or the same one folder up: the first place that has one of
    the first names, for all of them.

    `namings` are the ways in which a tool may have named the same pictures, in one order: also returned is the one that
    has pictures, the first where none has. Raises SourceError where two have, and other pictures.
    """
    ways = [(_places(label_file, images_dir, names), names) for names in namings]
    found = [(*there, names) for places, names in ways if (there := _first_there(places, names)) is not None]
    if len(paths := {path: None for _, path, _ in found}) > 1:
        raise SourceError(
            f"{label_file!r}: its pictures may be those with {' or those with '.join(map(repr, paths))}; set "
            "source.images_dir to the folder of the right ones, or move the others away"
        )
    return next(((place, names) for place, _, names in found), (ways[0][0][0], namings[0]))


def _places(label_file: str, images_dir: str | None, names: Collection[str]) -> list[str]:
    here = parent(absolute(label_file))
    if images_dir is not None:
        given = absolute(images_dir)
        last = f"{posixpath.basename(given.rstrip('/'))}/"
        return [given, *([parent(given)] if all(name.startswith(last) for name in names) else [])]
    up = parent(here)
    return [here, posixpath.join(here, "images"), up, posixpath.join(up, "images")]


def _first_there(places: Sequence[str], names: Collection[str]) -> tuple[str, str] | None:
    """The first place that has one of the first names, and that picture."""
    first = list(itertools.islice(names, _PROBE))
    paths = ((place, posixpath.join(place, name)) for place in places for name in first)
    return next(((place, path) for place, path in paths if exists(path)), None)


def pictures_at(tree: Tree, addresses: Sequence[str]) -> list[str | None]:
    """The picture that each address means, as its path in the tree; None where it is not there or could be another.

    `/data/local-files/?d=set/cam1/0.jpg` and `s3://bucket/cam1/0.jpg` end in `cam1/0.jpg`: of the tree's folders the
    one that the address agrees with most, counted from the end and on into the folders above the tree, is where the
    picture must lie. Where they agree in none, it is the picture right in the tree, or the only one whose path ends in
    the whole address. An upload's folder says nothing, and its name is eight digits and what the tool makes of the
    picture's: `a (1).jpg` becomes `a_1.jpg`. Of several addresses of one picture the one that agrees most has it, none
    where two agree alike.
    """
    index = _Index(tree)
    found = [index.find(path_of(address)) for address in addresses]
    best: dict[str, list[int]] = {}
    for picture, agreement in filter(None, found):
        best.setdefault(picture, []).append(agreement)
    return [
        one[0] if one is not None and one[1] == max(best[one[0]]) and best[one[0]].count(one[1]) == 1 else None
        for one in found
    ]


class _Index:
    """The pictures and folders of a tree, to look addresses up in."""

    def __init__(self, tree: Tree) -> None:
        self._above = tree.root.split("/")
        self._by_name: dict[str, list[str]] = {}
        self._folders = {""}
        for path in tree.images():
            folder, name = posixpath.split(path)
            self._by_name.setdefault(name, []).append(path)
            while folder not in self._folders:
                self._folders.add(folder)
                folder = posixpath.dirname(folder)

    def find(self, address: str) -> tuple[str, int] | None:
        """A picture, and in how many components the address agrees with its path on the disk."""
        *said, name = address.split("/")
        ranked = sorted(((self._agreement(folder, said), folder) for folder in self._ends(said)), reverse=True)
        (agreement, folder), *others = ranked
        there = self._by_name.get(name, [])
        path = posixpath.join(folder, name)
        if agreement:
            ambiguous = bool(others) and others[0][0] == agreement
            return (path, agreement + 1) if path in there and not ambiguous else None
        if _UPLOAD.search(address):  # the tool's own folder says nothing of where a picture came from
            paths = there or self._by_upload.get(_UPLOAD_DIGITS.sub("", name), [])
            return (paths[0], 1) if len(paths) == 1 else None
        deeper = [path for path in there if path.endswith(f"/{address}")]
        if path in there and (not deeper or not said):
            return path, 1
        return (deeper[0], len(said) + 1) if len(deeper) == 1 else None

    @cached_property
    def _by_upload(self) -> dict[str, list[str]]:
        """Like `_by_name`, and by the names under which the tool stores uploads."""
        found: dict[str, list[str]] = {}
        for name, paths in self._by_name.items():
            for stored in {name, _NOT_STORED.sub("", name.replace(" ", "_"))}:
                found.setdefault(stored, []).extend(paths)
        return found

    def _ends(self, said: list[str]) -> list[str]:
        """The folders of the tree that the folders of an address end in; the tree itself is always one."""
        return [end for at in range(len(said) + 1) if (end := "/".join(said[at:])) in self._folders]

    def _agreement(self, folder: str, said: list[str]) -> int:
        within = folder.split("/") if folder else []
        pairs = zip(reversed([*self._above, *within]), reversed(said), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def path_of(address: str) -> str:
    """The path in an address, clean and relative, for names of pictures that are not there."""
    try:
        split = urlsplit(address)
    except ValueError:  # brackets that are not an IPv6 address
        return address.replace("/", "_")
    given = parse_qs(split.query).get("d") if split.path.endswith("local-files/") else None
    path = given[0] if given else unquote(split.path) or address
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "unnamed"
