"""Image ids as file paths that every reader can take. Pure functions on strings.

An image id is somebody's path: it may hold control characters, bytes that are not UTF-8, hidden folders.
"""

from __future__ import annotations

import hashlib
from array import array
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

_LONGEST = 200
"""Bytes of one path component; file systems take 255, and suffixes are added."""
_LABELS = (".txt", ".json", ".xml", ".png")
"""Suffixes of the files that formats write beside, or instead of, a picture in such a tree."""


def safe_path(image_id: str) -> str:
    """The id as a relative path: control characters and stray bytes as %XX, no hidden and no upward component.

    Two ids can meet in one path; `TreeNames` keeps them apart.
    """
    return "/".join(_safe_component(part) for part in image_id.split("/") if part)


def _safe_component(part: str) -> str:
    text = "".join(char if char.isprintable() else _escaped(char) for char in part)
    if text.startswith("."):  # hidden files are not listed by readers that glob, and `..` leaves the tree
        text = f"_{text}"
    if len(text.encode()) > _LONGEST:
        suffix = PurePosixPath(text).suffix[:16]
        digest = hashlib.sha256(id_bytes(part)).hexdigest()[:12]
        text = f"{text.encode()[: _LONGEST - 40].decode(errors='ignore')}~{digest}{suffix}"
    return text


def with_suffix(path: PurePosixPath, suffix: str) -> str:
    """The path with another suffix; a dot in a folder's name does not begin a suffix."""
    return str(path.with_name(path.stem + suffix))


def utf8_id(image_id: str) -> str:
    """The id for formats that hold UTF-8 alone: stray bytes as %XX, all else as it is."""
    return "".join(_escaped(char) if "\ud800" <= char <= "\udfff" else char for char in image_id)


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in id_bytes(char))


def id_bytes(text: str) -> bytes:
    """The bytes of an id: stray ones as they were; a lone surrogate that stands for none has bytes of its own, too."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")


class _Tally:
    """How often each of many texts was added. Eight bytes a time: texts that met in one number would be taken for one,
    and be renamed without need."""

    def __init__(self) -> None:
        self._added = array("Q")
        self._sorted: NDArray[np.uint64] | None = None

    def add(self, text: str) -> None:
        self._added.append(_number(text))
        self._sorted = None

    def __bool__(self) -> bool:
        return bool(self._added)

    def __getitem__(self, text: str) -> int:
        if self._sorted is None:
            self._sorted = np.sort(np.array(self._added, np.uint64))
        number = np.uint64(_number(text))
        low, high = (int(np.searchsorted(self._sorted, number, side)) for side in ("left", "right"))
        return high - low


class NamesApart:
    """Names of images, made of their ids, that no two share.

    First `announce` every name, then `name` each. An image whose id is its name keeps it; another one that would have
    the name of a second gets a digest of its id in it.
    """

    def __init__(self) -> None:
        self._announced = _Tally()

    def announce(self, name: str) -> None:
        self._announced.add(name)

    def name(self, image_id: str, name: str) -> str:
        if name == image_id or self._announced[name] == 1:
            return name
        path, digest = PurePosixPath(name), hashlib.sha256(id_bytes(image_id)).hexdigest()[:12]
        return str(path.with_name(f"{path.stem}~{digest}{path.suffix}"))


class TreeNames:
    """Gives every image of a tree a path whose stem nobody shares, so that a label file belongs to one image.

    First `announce` every path, then `name` each. Images that share a stem (`a.jpg` and `a.png`) keep their
    suffix in it: `a.jpg.jpg` and `a.png.png`, with labels `a.jpg.txt` and `a.png.txt`. So does `a.jpg` beside a folder
    that is called like its label file, `a.txt`.
    """

    def __init__(self) -> None:
        self._announced = _Tally()
        self._folders = _Tally()
        self._last_folder = ""
        self._given: set[str] = set()
        self.renamed = 0

    def announce(self, path: str) -> None:
        self._announced.add(_stem(path))
        folder = path.rpartition("/")[0]
        if folder != self._last_folder:  # pictures come folder by folder
            self._last_folder = folder
            for one in (PurePosixPath(folder), *PurePosixPath(folder).parents):
                if one.suffix:  # the name of a file could be its own
                    self._folders.add(str(one))

    def name(self, path: str) -> str:
        stem, suffix = _stem(path), PurePosixPath(path).suffix
        if self._announced[stem] == 1 and not self._is_folder(stem, suffix):
            return path
        self.renamed += 1
        while self._announced[stem] or stem in self._given or self._is_folder(stem, suffix):
            stem += suffix or "_"
        self._given.add(stem)
        return stem + suffix

    def _is_folder(self, stem: str, suffix: str) -> bool:
        """Whether one of the files of a picture would have a folder's name."""
        return bool(self._folders) and any(self._folders[stem + one] for one in (*_LABELS, suffix))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(id_bytes(text), digest_size=8).digest(), "big")


def _stem(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix)
