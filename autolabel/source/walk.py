"""Every file below a folder, of this machine or of a storage, once, in a fixed order, with what was left out and why.
Opens no file but what may be the manifest of an export.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path

from autolabel.core.errors import SourceError
from autolabel.core.types import ImageRef, Problem
from autolabel.ops.export_mark import HEAD, MANIFEST, is_export
from autolabel.ops.storage import Item, is_url, items_in, opened

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff")
_OTHER = (".gif", ".avif", ".jp2", ".j2k", ".j2c", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif")
IMAGE_EXTENSIONS = frozenset(_COMMON + _OTHER)
"""Lower case. HEIC is here although it is not read: such a picture must fail by name, not be passed over."""


_RUNS = ({"run.sqlite"}, {".lock", "autolabel.log"})
"""Any of these names, all together, make a folder a run directory; the latter one that begins with this very walk."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Relative paths with `/`, sorted by their bytes. `unreadable` folders come with their problem. `stamps` are what
    the listing of a storage said of its files (see `ImageRef`)."""

    root: str
    files: tuple[str, ...]
    unreadable: tuple[tuple[str, Problem], ...]
    ignored: Counter[str] = field(default_factory=Counter)
    stamps: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def images(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if extension(name) in IMAGE_EXTENSIONS)

    def path(self, relative: str) -> str:
        return posixpath.join(self.root, relative)

    def unreadable_refs(self, prefix: str = "") -> Iterator[ImageRef]:
        """One failed record a folder that could not be listed: what is in it, nobody knows."""
        for name, problem in self.unreadable:
            yield ImageRef(f"{prefix}{name}/", self.path(name), problem=problem)


@dataclass(frozen=True, slots=True)
class File:
    """One file below a folder; or with a `problem`, and a slash at its end, a folder that could not be listed."""

    name: str
    stamp: tuple[int, int] | None = None
    problem: Problem | None = None


def pictures_below(root: str, wanted: Callable[[str], bool], ignored: Counter[str]) -> Iterator[ImageRef]:
    """The pictures whose relative name is wanted, in the order of the bytes of their names. Files that are wanted and
    no pictures are counted in `ignored`. A folder that cannot be listed is a picture with a problem: what is in
    it, nobody knows."""
    for file in files_below(root, ignored):
        if file.problem is None and not wanted(file.name):
            continue
        if file.problem is None and extension(file.name) not in IMAGE_EXTENSIONS:
            ignored[extension(file.name) or "no extension"] += 1
            continue
        path = posixpath.join(root, file.name)
        yield ImageRef(file.name, path, problem=file.problem, stamp=file.stamp)


def files_below(root: str, ignored: Counter[str]) -> Iterator[File]:
    """Like `walk`, one after the other. At a storage no more is held than the folders on the way to the next file."""
    if is_url(root):
        yield from _remote_files(root, ignored)
        return
    tree = walk(root)
    ignored.update(tree.ignored)
    unreadable = [File(f"{name}/", problem=problem) for name, problem in tree.unreadable]
    yield from merge(map(File, tree.files), unreadable, key=lambda file: os.fsencode(file.name))


def _remote_files(root: str, ignored: Counter[str]) -> Iterator[File]:
    stack = [("", Item("", True, (-1, -1)))]
    while stack:
        relative, item = stack.pop()
        if not item.is_folder:
            yield File(relative, item.stamp)
            continue
        try:
            items = items_in(posixpath.join(root, relative) if relative else root)
        except OSError as e:
            if not relative:
                raise SourceError(f"cannot list the folder {root!r}: {e.strerror}") from e
            yield File(f"{relative}/", problem=_folder_problem(e))
            continue
        if relative and (ours := _ours({item.name for item in items}, posixpath.join(root, relative))):
            ignored[ours] += 1
            continue
        hidden = sum(item.name.startswith(".") for item in items)
        if hidden:
            ignored["hidden"] += hidden
        shown = [item for item in items if not item.name.startswith(".")]
        stack += [(posixpath.join(relative, item.name), item) for item in reversed(shown)]


def _remote_tree(root: str) -> Tree:
    ignored: Counter[str] = Counter()
    found = list(_remote_files(root, ignored))
    return Tree(
        root,
        tuple(file.name for file in found if file.problem is None),
        tuple((file.name.rstrip("/"), file.problem) for file in found if file.problem is not None),
        ignored,
        {file.name: file.stamp for file in found if file.stamp is not None},
    )


def walk(root: str) -> Tree:
    """All regular files below `root`, links followed, no folder twice. Raises SourceError if `root` itself
    cannot be listed. Hidden entries, special files, second ways into a folder, run directories and exports (their
    pictures are copies, made by us) are counted in `ignored`."""
    if is_url(root):
        return _remote_tree(root)
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
        if folder and (ours := _ours({entry.name for entry in entries}, posixpath.join(root, folder))):
            ignored[ours] += 1
            continue
        for entry in entries:
            _sort_entry(entry, posixpath.join(folder, entry.name), files, real, linked, ignored)
    return Tree(root, tuple(sorted(files, key=os.fsencode)), tuple(sorted(unreadable)), ignored)


def _ours(names: set[str], folder: str) -> str | None:
    """The kind of folder of ours that has these names in it: its pictures are copies. None for somebody else's."""
    if any(needed <= names for needed in _RUNS):
        return "run directory of autolabel"
    if MANIFEST in names and (_is_remote_export(folder) if is_url(folder) else is_export(Path(folder))):
        return "export of autolabel"
    return None


def _is_remote_export(folder: str) -> bool:
    try:
        with opened(posixpath.join(folder, MANIFEST)) as file:
            return bytes(file.read(len(HEAD))) == HEAD
    except OSError:
        return False


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
    """Files of the tree that are not pictures and not in `used`, counted by extension, beside what the walk
    itself left out."""
    counts = Counter(tree.ignored)
    for name in tree.files:
        if name not in used and extension(name) not in IMAGE_EXTENSIONS:
            counts[extension(name) or "no extension"] += 1
    return counts
