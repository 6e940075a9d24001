"""Folders called `images` and `labels` that are spelled `Images` and `Labels`, `IMAGES` and `labels`, …: which of them
belong together. Lists folders, opens no file.

`images` belongs to `labels`; of what is spelled in another way there has to be one of each kind, since on this machine
names that differ in case are two folders.
"""

from __future__ import annotations

import posixpath

from autolabel.core.errors import SourceError
from autolabel.ops.storage import is_folder, names_in, parent

_KINDS = ("images", "labels")


def folder_pairs(within: str) -> tuple[tuple[str, str], ...]:
    """The names of the folders of pictures and of their labels. Raises SourceError where nobody can tell which belong
    together."""
    images, labels = (_spellings(kind, within) for kind in _KINDS)
    if not images or not labels:
        return ()
    exact = (_KINDS,) if "images" in images and "labels" in labels else ()
    if exact:
        images.remove("images")
        labels.remove("labels")
    if not images or not labels:
        return exact
    if len(images) > 1 or len(labels) > 1:
        raise SourceError(_unclear(within, images + labels))
    return (*exact, (images[0], labels[0]))


def labels_below(folder: str) -> str | None:
    """The folder of label files in that of a data set."""
    exact, yolo = (posixpath.join(folder, name) for name in ("labels", "yolo"))
    if is_folder(exact):
        return exact
    if pairs := folder_pairs(folder):
        return posixpath.join(folder, pairs[0][1])
    return yolo if is_folder(yolo) else None


def images_beside(labels_dir: str) -> str | None:
    """The folder of the pictures beside a folder of label files."""
    within, name = parent(labels_dir), posixpath.basename(labels_dir)
    exact = posixpath.join(within, "images")
    if name.lower() == "labels" and not (name == "labels" and is_folder(exact)):
        found = next((images for images, labels in folder_pairs(within) if labels == name), "images")
        exact = posixpath.join(within, found)
    return exact if is_folder(exact) else None


class Counterparts:
    """The paths of labels of pictures below `root`, and the other way round, by the folders that are there. Each folder
    is listed once."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._pairs: dict[str, tuple[tuple[str, str], ...]] = {}

    def label(self, image: str) -> str | None:
        """Like `label_path`, of a relative path; None where no folder of labels is beside the last one of pictures."""
        swapped = self._swapped(image, 0)
        return None if swapped is None else posixpath.splitext(swapped)[0] + ".txt"

    def image(self, label: str) -> str | None:
        """The relative path of the picture, without extension."""
        swapped = self._swapped(label, 1)
        return None if swapped is None else posixpath.splitext(swapped)[0]

    def _swapped(self, path: str, kind: int) -> str | None:
        *folders, name = path.split("/")
        for at in range(len(folders) - 1, -1, -1):
            if folders[at].lower() == _KINDS[kind]:
                pairs = self._pairs_in("/".join(folders[:at]))
                other = next((pair[1 - kind] for pair in pairs if pair[kind] == folders[at]), None)
                return None if other is None else "/".join((*folders[:at], other, *folders[at + 1 :], name))
        return None

    def _pairs_in(self, folder: str) -> tuple[tuple[str, str], ...]:
        if folder not in self._pairs:
            self._pairs[folder] = folder_pairs(posixpath.join(self._root, folder) if folder else self._root)
        return self._pairs[folder]


def _spellings(name: str, within: str) -> list[str]:
    if not is_folder(within):
        return []
    try:
        names = [found for found in names_in(within) if found.lower() == name]
    except OSError as e:
        raise SourceError(f"cannot list the folder {within!r}: {e.strerror}") from e
    return [found for found in names if is_folder(posixpath.join(within, found))]


def _unclear(within: str, names: list[str]) -> str:
    return (
        f"{within!r} has folders whose names differ in case alone: {', '.join(names)}; nobody can tell which labels are "
        f"whose, so rename them: images/ belongs to labels/"
    )
