"""What a bare path is: which kind of source reads it, said in one line. Reads as little as possible."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from autolabel.core.errors import SourceError
from autolabel.core.protocols import Source
from autolabel.core.types import Category, ImageRef
from autolabel.source.coco import CocoSource
from autolabel.source.folder import FolderSource
from autolabel.source.glob import GlobSource, has_pattern
from autolabel.source.list import ListSource
from autolabel.source.locate import check_optional_path, check_path
from autolabel.source.voc import VocSource, devkit_folders, is_voc_file
from autolabel.source.walk import IMAGE_EXTENSIONS, extension, walk
from autolabel.source.yolo import YoloSource

_COCO_NAMES = re.compile(r"(instances.*|_?annotations.*|coco)\.json", re.IGNORECASE)
_VIDEO = frozenset((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts"))


def infer_kind(path: str) -> tuple[str, str]:
    """The kind (`folder`, `glob`, `list`, `coco`, `yolo` or `voc`) and one line that says why.

    Raises SourceError, saying what was looked for, when nothing fits.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise SourceError(f"{path!r} is an address; remote sources are not read, copy the pictures here first")
    if posixpath.isdir(path):
        return _infer_folder(path)
    if posixpath.lexists(path):
        return _infer_file(path)
    if has_pattern(path):
        return "glob", "a pattern with wildcards"
    raise SourceError(f"no such file or folder: {path!r}")


def _infer_file(path: str) -> tuple[str, str]:
    suffix = extension(path)
    if suffix in IMAGE_EXTENSIONS:
        return "folder", "one picture"
    if suffix in (".txt", ".lst"):
        return "list", "a text file that names pictures"
    if suffix == ".json":
        return "coco", "a JSON file"
    if suffix in (".yaml", ".yml"):
        return "yolo", "a YOLO data.yaml"
    if suffix == ".xml":
        raise SourceError(f"{path!r} is one XML file; give the folder that holds the VOC annotations")
    if suffix in _VIDEO:
        raise SourceError(f"{path!r} is a video; take pictures from it first (ffmpeg -i in.mp4 frames/%06d.jpg)")
    raise SourceError(
        f"{path!r} is neither a picture, a list (.txt), a COCO .json nor a YOLO .yaml; "
        f"if it is one of them, say so with source=list, source=coco or source=yolo"
    )


def _infer_folder(path: str) -> tuple[str, str]:
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208
    except OSError as e:
        raise SourceError(f"cannot list the folder {path!r}: {e.strerror}") from e
    for kind, find in _FOLDER_KINDS:
        if reason := find(path, names):
            return kind, reason
    if walk(path).images():
        return "folder", "a folder of pictures"
    raise SourceError(
        f"nothing to label in {path!r}: looked for pictures ({', '.join(sorted(IMAGE_EXTENSIONS)[:6])}, …) at any "
        f"depth, data.yaml, a COCO instances.json, JPEGImages/ with Annotations/, images/ with labels/, "
        f"VOC .xml and YOLO .txt files"
    )


def _is_yolo_yaml(path: str, names: list[str]) -> str | None:
    found = [name for name in names if name.lower() in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")]
    return f"a YOLO data set ({found[0]})" if len(found) == 1 else None


def _is_coco(path: str, names: list[str]) -> str | None:
    found = [name for name in names if _COCO_NAMES.fullmatch(name)]
    return f"a COCO data set ({found[0]})" if len(found) == 1 else None


def _is_devkit(path: str, names: list[str]) -> str | None:
    if (found := devkit_folders(path)) is None:
        return None
    labels = walk(posixpath.join(path, found[0]))
    has_xml = any(extension(name) == ".xml" for name in labels.files)
    return f"a VOC data set ({found[1]} and {found[0]})" if has_xml else None


def _is_yolo_folders(path: str, names: list[str]) -> str | None:
    if not {"images", "labels"} <= set(names):
        return None
    labels = walk(posixpath.join(path, "labels"))
    has_rows = any(extension(name) == ".txt" for name in labels.files)
    return "a YOLO data set (images and labels)" if has_rows else None


def _is_xml_folder(path: str, names: list[str]) -> str | None:
    found = next((name for name in names if extension(name) == ".xml"), None)
    is_voc = found is not None and is_voc_file(posixpath.join(path, found))
    return "a folder of VOC XML files" if is_voc else None


def _is_row_folder(path: str, names: list[str]) -> str | None:
    rows = {name[:-4] for name in names if extension(name) == ".txt"} - {"classes"}
    pictures = {posixpath.splitext(name)[0] for name in names if extension(name) in IMAGE_EXTENSIONS}
    beside = posixpath.isdir(posixpath.join(posixpath.dirname(posixpath.abspath(path)), "images"))
    if rows & pictures or (rows and not pictures and beside):
        return "a folder of YOLO label files"
    return None


_FOLDER_KINDS: tuple[tuple[str, Callable[[str, list[str]], str | None]], ...] = (
    ("yolo", _is_yolo_yaml),
    ("coco", _is_coco),
    ("voc", _is_devkit),
    ("yolo", _is_yolo_folders),
    ("voc", _is_xml_folder),
    ("yolo", _is_row_folder),
)


class AutoSource:
    """The source that fits the path. `kind` and `reason` say which and why; nothing is looked at before one
    of its properties or `images()` is asked for. Raises SourceError then."""

    def __init__(self, *, path: str, images_dir: str | None) -> None:
        self._path = check_path("source.path", path)
        self._images_dir = check_optional_path("source.images_dir", images_dir)

    @property
    def kind(self) -> str:
        return self._inferred[0]

    @property
    def reason(self) -> str:
        return self._inferred[1]

    @property
    def categories(self) -> tuple[Category, ...]:
        return self._source.categories

    @property
    def document(self) -> str:
        return self._source.document

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._source.ignored

    def images(self) -> Iterator[ImageRef]:
        return self._source.images()

    @cached_property
    def _inferred(self) -> tuple[str, str]:
        return infer_kind(self._path)

    @cached_property
    def _source(self) -> Source:
        kind, path, images_dir = self.kind, self._path, self._images_dir
        if kind == "coco":
            return CocoSource(path=_file_inside(path, _COCO_NAMES), images_dir=images_dir)
        if kind == "yolo":
            yaml = _file_inside(path, re.compile(r"data(set)?\.ya?ml", re.IGNORECASE))
            return YoloSource(path=yaml, images_dir=images_dir, root=None)
        if kind == "voc":
            return VocSource(path=path, images_dir=images_dir)
        bare: dict[str, Callable[..., Source]] = {"folder": FolderSource, "glob": GlobSource, "list": ListSource}
        return bare[kind](path=path)


def _file_inside(path: str, name: re.Pattern[str]) -> str:
    """The one file of a folder that matches; the path itself where it is no folder or holds none."""
    if not posixpath.isdir(path):
        return path
    found = [entry for entry in sorted(os.listdir(path)) if name.fullmatch(entry)]  # noqa: PTH208
    return posixpath.join(path, found[0]) if len(found) == 1 else path
