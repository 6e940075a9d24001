"""Every file below a folder, once, in a fixed order, with what was left out and why. Opens no file."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from autolabel.core.errors import SourceError
from autolabel.core.types import ImageRef, Problem

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff")
_OTHER = (".gif", ".avif", ".jp2", ".j2k", ".j2c", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif")
IMAGE_EXTENSIONS = frozenset(_COMMON + _OTHER)
"""Lower case. HEIC is here although it is not read: such a picture must fail by name, not be passed over."""


_RUN = "run.sqlite"


@dataclass(frozen=True, slots=True)
class Tree:
    """Relative paths with `/`, sorted by their bytes. `unreadable` folders come with their problem."""

    root: str
    files: tuple[str, ...]
    unreadable: tuple[tuple[str, Problem], ...]
    ignored: Counter[str] = field(default_factory=Counter)

    def images(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if extension(name) in IMAGE_EXTENSIONS)

    def path(self, relative: str) -> str:
        return posixpath.join(self.root, relative)

    def unreadable_refs(self, prefix: str = "") -> Iterator[ImageRef]:
        """One failed record a folder that could not be listed: what is in it, nobody knows."""
        for name, problem in self.unreadable:
            yield ImageRef(f"{prefix}{name}/", self.path(name), problem=problem)


def walk(root: str) -> Tree:
    """All regular files below `root`, links followed, no folder twice. Raises SourceError if `root` itself
    cannot be listed. Hidden entries, special files, second ways into a folder and run directories (their exports
    are copies of the pictures, made by us) are counted in `ignored`."""
    files: list[str] = []
    unreadable: list[tuple[str, Problem]] = []
    ignored: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    # Linked folders wait until the real ones are done, so that a picture is known by its real place.
    real, linked = [""], list[str]()
    while real or linked:
        folder = real.pop() if real else linked.pop(0)
        try:
            found = os.stat(posixpath.join(root, folder))  # noqa: PTH116
            if (found.st_dev, found.st_ino) in seen:
                ignored["folder seen before"] += 1
                continue
            seen.add((found.st_dev, found.st_ino))
            entries = sorted(os.scandir(posixpath.join(root, folder)), key=lambda e: os.fsencode(e.name))
        except OSError as e:
            if not folder:
                raise SourceError(f"cannot list the folder {root!r}: {e.strerror}") from e
            unreadable.append((folder, _folder_problem(e)))
            continue
        if folder and any(entry.name == _RUN for entry in entries):
            ignored["run directory of autolabel"] += 1
            continue
        for entry in entries:
            _sort_entry(entry, posixpath.join(folder, entry.name), files, real, linked, ignored)
    return Tree(root, tuple(sorted(files, key=os.fsencode)), tuple(sorted(unreadable)), ignored)


def _sort_entry(
    entry: os.DirEntry[str],
    relative: str,
    files: list[str],
    real: list[str],
    linked: list[str],
    ignored: Counter[str],
) -> None:
    if entry.name.startswith("."):
        ignored["hidden"] += 1
    elif _is_dir(entry):
        (linked if entry.is_symlink() else real).append(relative)
    elif _may_be_a_file(entry):
        files.append(relative)
    else:
        ignored["not a regular file"] += 1


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _may_be_a_file(entry: os.DirEntry[str]) -> bool:
    """Broken links count as files: the picture that should be there must fail by name."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def _folder_problem(error: OSError) -> Problem:
    code = "permission" if isinstance(error, PermissionError) else "io_error"
    return Problem(code, f"the folder cannot be listed: {error.strerror}")


def extension(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def count_ignored(tree: Tree, used: frozenset[str]) -> Counter[str]:
    """Files of the tree that are no pictures and not in `used`, counted by extension, beside what the walk
    itself left out."""
    counts = Counter(tree.ignored)
    for name in tree.files:
        if name not in used and extension(name) not in IMAGE_EXTENSIONS:
            counts[extension(name) or "no extension"] += 1
    return counts
