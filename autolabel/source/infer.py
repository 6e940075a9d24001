"""What a bare path is: which kind of source reads it, said in one line. Reads as little as possible.

Labels that lie there and are not used are never passed over in silence: the reason names them, and the way to them. At
an address that is what the names directly in the folder tell.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

from autolabel.core.errors import SourceError
from autolabel.core.protocols import Source
from autolabel.core.text import counted, printable
from autolabel.core.types import Category, ImageRef
from autolabel.ops.settings import optional
from autolabel.ops.storage import absolute, checked_url, exists, is_folder, is_url, names_in
from autolabel.source.coco import CocoSource, coco_files
from autolabel.source.cvat import CvatSource
from autolabel.source.folder import FolderSource
from autolabel.source.glob import GlobSource, has_pattern
from autolabel.source.label_studio import LabelStudioSource, holds_tasks, task_files
from autolabel.source.labelme import LabelMeSource
from autolabel.source.list import ListSource
from autolabel.source.locate import check_place
from autolabel.source.parquet import ParquetSource
from autolabel.source.png_masks import PngMaskSource
from autolabel.source.voc import VocSource, devkit_folders, is_voc_file
from autolabel.source.voc_masks import MASK_FOLDER
from autolabel.source.walk import IMAGE_EXTENSIONS, Tree, extension, walk
from autolabel.source.yolo import YoloSource, yaml_files
from autolabel.source.yolo_folders import folder_pairs, images_beside
from autolabel.source.yolo_pairs import label_path

_CVAT_NAME = "annotations.xml"
_CLASS_LISTS = frozenset(("data.yaml", "data.yml", "classes.json", "classes.yaml", "classes.txt"))
_OURS = ("manifest.json", "labels.json")
_PEEK = 1 << 16
_FEW = 20
"""The first files of a kind that are looked into, where there are many."""
_ROW = re.compile(rb"^[ \t]*\d[\d.]*(?:[ \t,]+[-+.\deE]+){4,}[ \t]*\r?$", re.MULTILINE)
"""Five numbers or more. Whether they are right says the reader, line by line: a folder of wrong rows must fail."""
_SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
_COCO_LIST = re.compile(rb'"(?:images|annotations)"\s*:\s*\[')
_LABELS = re.compile(r"/labels/(?!.*/labels/)", re.IGNORECASE | re.DOTALL)
_PNG_DEPTH = 24
"""Where a PNG says how many bits a number has."""
_PARQUET = ".parquet"
_HERE_ALONE = "read from this machine alone: copy the folder here to use them"
_LABELS_THERE = tuple(
    (re.compile(name, re.IGNORECASE), way)
    for name, way in (
        (r"annotations\.xml", f"annotations of CVAT are {_HERE_ALONE}"),
        (r".*\.xml", "if that is Pascal VOC, say source=voc"),
        (r".*\.json", f"if that is COCO, give one file as the path; LabelMe and Label Studio are {_HERE_ALONE}"),
        (r".*\.txt", "if that is YOLO, say source=yolo"),
        (r".*\.parquet", f"a list of pictures is source=parquet_list; labels in Parquet are {_HERE_ALONE}"),
        ("annotations", "if it holds COCO files, give one as the path; if it holds Pascal VOC, say source=voc"),
        ("masks", f"if it holds labels: PNG masks are {_HERE_ALONE}"),
    )
)
"""Names in a folder at an address that may be labels, and how to use these. The first pattern that fits counts."""
_VIDEO = frozenset((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts"))


def infer_kind(path: str) -> tuple[str, str]:
    """The kind (`folder`, `glob`, `list`, `coco`, `yolo`, `voc`, `png_masks`, `labelme`, `cvat`, `label_studio` or
    `parquet`) and one line that says why.

    Raises SourceError, saying what was looked for, when nothing fits.
    """
    if is_url(path):
        return _infer_url(checked_url(path))
    if posixpath.isdir(path):
        return _infer_folder(path)
    if posixpath.lexists(path):
        return _infer_file(path)
    if has_pattern(path):
        return "glob", "a pattern with wildcards"
    raise SourceError(f"no such file or folder: {path!r}")


def _infer_url(url: str) -> tuple[str, str]:
    """By names alone: to look into a storage costs time and money."""
    try:
        if is_folder(url):
            return _infer_remote_folder(url, names_in(url))
        if exists(url):
            return _infer_remote_file(url)
    except OSError as e:
        raise SourceError(f"{url!r} cannot be read: {e.strerror}") from e
    if has_pattern(url):
        return "glob", "a pattern with wildcards"
    raise SourceError(f"no such file or folder: {url!r}")


def _infer_remote_folder(url: str, names: list[str]) -> tuple[str, str]:
    if {"images", "masks"} <= set(names) and "labels" not in names:
        raise SourceError(
            f"{url!r} has masks/ beside images/, and PNG masks are {_HERE_ALONE}; give {posixpath.join(url, 'images')!r} "
            "to label the pictures without them, or say source=folder if masks/ holds pictures, too"
        )
    if reason := _is_yolo_yaml(url, names):
        return "yolo", reason
    if reason := _is_coco(url, names):
        return "coco", reason
    if {"images", "labels"} <= {name.lower() for name in names}:
        return "yolo", "folders called images and labels"
    labels = next((name for name in ("Annotations", MASK_FOLDER) if name in names), None)
    if "JPEGImages" in names and labels:
        return "voc", f"folders called JPEGImages and {labels}"
    return "folder", "; ".join(["a folder at a storage", *_not_used_there(names)])


def _not_used_there(names: list[str]) -> Iterator[str]:
    """What looks like labels in a folder at an address, and how to use it."""
    pictures = {posixpath.splitext(name.lower())[0] for name in names if extension(name) in IMAGE_EXTENSIONS}
    found: dict[str, list[str]] = {}
    for name in names:
        stem, suffix = posixpath.splitext(name.lower())
        if suffix in IMAGE_EXTENSIONS or name in _OURS or (suffix == ".txt" and stem not in pictures):
            continue
        if way := next((way for pattern, way in _LABELS_THERE if pattern.fullmatch(name)), None):
            found.setdefault(way, []).append(name)
    for way, files in found.items():
        yield counted(len(files), "{1} [is|are] not used: {2}", _some(files), way)


def _infer_remote_file(url: str) -> tuple[str, str]:
    suffix = extension(url)
    for kind, suffixes, reason in (
        ("folder", IMAGE_EXTENSIONS, "one picture"),
        ("list", (".txt", ".lst"), "a text file that names pictures"),
        ("coco", (".json",), "a JSON file"),
        ("yolo", (".yaml", ".yml"), "a YOLO data.yaml"),
    ):
        if suffix in suffixes:
            return kind, reason
    if suffix == _PARQUET:
        raise SourceError(
            f"{url!r}: a list of pictures is source=parquet_list; copy Parquet with labels here first"
        )
    raise SourceError(f"{url!r} is neither a picture, a list (.txt), a COCO .json nor a YOLO .yaml")


def _infer_file(path: str) -> tuple[str, str]:
    suffix = extension(path)
    if suffix in IMAGE_EXTENSIONS:
        return "folder", "one picture"
    if suffix in (".txt", ".lst"):
        return "list", "a text file that names pictures"
    if suffix == ".json" and _holds_shapes(path):
        raise SourceError(
            f"{path!r} is one LabelMe file; give the folder that holds them (if it is COCO: source=coco)"
        )
    if suffix == ".json":
        return ("label_studio", "tasks of Label Studio") if holds_tasks(path) else ("coco", "a JSON file")
    if suffix in (".yaml", ".yml"):
        return "yolo", "a YOLO data.yaml"
    if suffix == _PARQUET:
        return "parquet", "a Parquet file"
    if suffix == ".xml" and _is_cvat_file(path):
        return "cvat", "annotations of CVAT"
    if suffix == ".xml":
        raise SourceError(f"{path!r} is one XML file; give the folder that holds the VOC annotations")
    if suffix in _VIDEO:
        raise SourceError(f"{path!r} is a video; take pictures from it first (ffmpeg -i in.mp4 frames/%06d.jpg)")
    raise SourceError(
        f"{path!r} is neither a picture, a list (.txt), a COCO or Label Studio .json, a CVAT .xml, a YOLO .yaml nor "
        f"a .parquet; if it is one of them, say so with source=list, source=coco, source=label_studio, source=cvat, "
        f"source=yolo or source=parquet"
    )


def _infer_folder(path: str) -> tuple[str, str]:
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208
    except OSError as e:
        raise SourceError(f"cannot list the folder {path!r}: {e.strerror}") from e
    for kind, find in _FOLDER_KINDS:
        if reason := find(path, names):
            return kind, reason
    tree = walk(path)
    if tree.images():
        return "folder", "; ".join(["a folder of pictures", *_not_used(path, names, tree)])
    left_out = (
        "; left out: " + ", ".join(f"{what}: {n}" for what, n in tree.ignored.items()) if tree.ignored else ""
    )
    raise SourceError(
        f"nothing to label in {path!r}: looked for pictures ({', '.join(sorted(IMAGE_EXTENSIONS)[:6])}, …) at any "
        f"depth, data.yaml, a COCO instances.json, CVAT's annotations.xml, LabelMe and Label Studio .json, JPEGImages/ "
        f"with Annotations/ or SegmentationClass/, images/ with labels/ or masks/, VOC .xml, YOLO .txt and .parquet files{left_out}"
    )


def _not_used(path: str, names: list[str], tree: Tree) -> Iterator[str]:
    """Labels that were seen and are left alone, and how to use them."""
    files = coco_files(path)
    if files:
        yield counted(
            len(files),
            "{} file[|s] of COCO labels [is|are] not used ({}): give [it|one of them] as the path",
            _some(files),
        )
    texts = {name for name in tree.files if extension(name) == ".txt"}
    if captions := sorted({posixpath.splitext(name)[0] + ".txt" for name in tree.images()} & texts):
        yield counted(
            len(captions),
            "{} .txt file[|s] beside pictures [is|are] not used ({}): if [it holds|they hold] YOLO labels, say source=yolo",
            _some(captions),
        )
    in_any_case = {name.lower(): name for name in texts - set(captions)}
    wanted = {label_path(name.lower()) for name in tree.images()}
    if rows := sorted(name for lower, name in in_any_case.items() if lower in wanted):
        folders = sorted({_LABELS.split(name)[0] for name in rows})
        yield counted(
            len(rows),
            "{} file[|s] of YOLO labels [is|are] not used (in labels/ of {}): give such a folder as the path, or a "
            "data.yaml that names the images/ of all",
            _some(folders),
        )
    if any(extension(name) == _PARQUET for name in tree.files):
        yield "Parquet files are not used: if they hold labels, say source=parquet"
    if "masks" in names and any(extension(f) == ".png" for f in walk(posixpath.join(path, "masks")).files):
        yield "masks/ is taken for pictures: if it holds labels, say source=png_masks source.kind=<semantic or instance>"


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:3])) + (", …" if len(names) > 3 else "")


def _is_yolo_yaml(path: str, names: list[str]) -> str | None:
    found = yaml_files(names)
    return f"a YOLO data set ({found[0]})" if len(found) == 1 else None


def _is_coco(path: str, names: list[str]) -> str | None:
    found = coco_files(path)
    return f"a COCO data set ({found[0]})" if len(found) == 1 else None


def _is_png_masks(path: str, names: list[str]) -> str | None:
    """The layout of ultralytics' task `semantic`, and of export=instance_png; without a list of classes nobody can
    tell what the PNGs are."""
    if not {"images", "masks"} <= set(names) or "labels" in names or not _CLASS_LISTS & set(names):
        return None
    if not (files := _mask_files(path)):
        return None
    is_semantic = _mask_kind(files) == "semantic"
    numbers = "class-id PNGs" if is_semantic else "object-id PNGs with a JSON beside each"
    return f"pictures and {numbers} (images and masks)"


def _mask_files(path: str) -> list[str]:
    masks = posixpath.join(path, "masks")
    return [posixpath.join(masks, name) for name in walk(masks).files if extension(name) == ".png"]


def _mask_kind(files: Sequence[str]) -> Literal["semantic", "instance"]:
    """What the numbers of the PNGs are. Raises SourceError where a person has to say it."""
    files = files[:_FEW]
    if any(b'"objects"' in _head(f"{posixpath.splitext(file)[0]}.json") for file in files):
        return "instance"
    if deep := next((file for file in files if _head(file)[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10"), None):
        raise SourceError(
            f"{deep!r} has 16 bits a pixel, and no JSON beside it says whether they number objects or classes: say "
            f"source=png_masks source.kind=instance, with source.divisor where an object's class is part of its "
            f"number, or source=png_masks source.kind=semantic"
        )
    return "semantic"


def _is_cvat(path: str, names: list[str]) -> str | None:
    found = _CVAT_NAME in names and _is_cvat_file(posixpath.join(path, _CVAT_NAME))
    return f"a CVAT task ({_CVAT_NAME})" if found else None


def _is_labelme(path: str, names: list[str]) -> str | None:
    files = [
        name for name in walk(path).files if extension(name) == ".json" and posixpath.basename(name) not in _OURS
    ]
    found = any(_holds_shapes(posixpath.join(path, name)) for name in files[:_FEW])
    return "a folder of LabelMe files" if found else None


def _is_studio(path: str, names: list[str]) -> str | None:
    found = [name for name in task_files(path) if name in names]
    return f"tasks of Label Studio ({found[0]}{', …' if len(found) > 1 else ''})" if found else None


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(_PEEK)
    except OSError:
        return b""


def _holds_shapes(path: str) -> bool:
    head = _head(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"{") and _SHAPES.search(head) is not None and _COCO_LIST.search(head) is None


def _is_cvat_file(path: str) -> bool:
    return b"<annotations" in _head(path)


def _is_devkit(path: str, names: list[str]) -> str | None:
    if (found := devkit_folders(path)) is None:
        return None
    for folder, suffix in ((found[0], ".xml"), (MASK_FOLDER, ".png")):
        place = posixpath.join(path, folder)
        if posixpath.isdir(place) and any(extension(name) == suffix for name in walk(place).files):
            return f"a VOC data set ({found[1]} and {folder})"
    return None


def _is_yolo_folders(path: str, names: list[str]) -> str | None:
    images, labels = next(iter(folder_pairs(path)), ("", ""))
    if not labels:
        return None
    has_rows = any(extension(name) == ".txt" for name in walk(posixpath.join(path, labels)).files)
    return f"a YOLO data set ({images} and {labels})" if has_rows else None


def _is_parquet(path: str, names: list[str]) -> str | None:
    """Where pictures lie beside, they are what is to be labelled."""
    tree = walk(path)
    found = [name for name in tree.files if extension(name) == _PARQUET]
    return f"Parquet files ({found[0]}{', …' if len(found) > 1 else ''})" if found and not tree.images() else None


def _is_xml_folder(path: str, names: list[str]) -> str | None:
    found = next((name for name in names if extension(name) == ".xml"), None)
    is_voc = found is not None and is_voc_file(posixpath.join(path, found))
    return "a folder of VOC XML files" if is_voc else None


def _is_row_folder(path: str, names: list[str]) -> str | None:
    texts = [name for name in names if extension(name) == ".txt" and name[:-4] != "classes"]
    pictures = {posixpath.splitext(name)[0] for name in names if extension(name) in IMAGE_EXTENSIONS}
    if pictures:
        texts = [name for name in texts if name[:-4] in pictures]
    elif not texts or images_beside(absolute(path)) is None:
        return None
    heads = [_head(posixpath.join(path, name)) for name in texts[:_FEW]]
    # Captions lie beside pictures like that, too; an empty file is a picture without objects.
    has_rows = any(_ROW.search(head) for head in heads) or (heads and not any(map(bytes.strip, heads)))
    return "a folder of YOLO label files" if has_rows else None


_FOLDER_KINDS: tuple[tuple[str, Callable[[str, list[str]], str | None]], ...] = (
    ("png_masks", _is_png_masks),
    ("yolo", _is_yolo_yaml),
    ("coco", _is_coco),
    ("cvat", _is_cvat),
    ("voc", _is_devkit),
    ("yolo", _is_yolo_folders),
    ("voc", _is_xml_folder),
    ("yolo", _is_row_folder),
    ("label_studio", _is_studio),
    ("labelme", _is_labelme),
    ("parquet", _is_parquet),
)

# What else they take is as their constructors have it, which is what their files in configs/ say.
_PICTURES_ALONE: Mapping[str, Callable[..., Source]] = {
    "folder": FolderSource,
    "glob": GlobSource,
    "list": ListSource,
}
_WITH_LABELS: Mapping[str, Callable[..., Source]] = {
    "coco": CocoSource,
    "cvat": CvatSource,
    "label_studio": LabelStudioSource,
    "labelme": LabelMeSource,
    "parquet": ParquetSource,
    "voc": VocSource,
    "yolo": YoloSource,
}


class AutoSource:
    """The source that fits the path. `kind` and `reason` say which and why; nothing is looked at before one
    of its properties or `images()` is asked for. Raises SourceError then."""

    def __init__(self, *, path: str, images_dir: str | None = None) -> None:
        self._path = check_place("path", path)
        self._images_dir = optional(check_place, "images_dir", images_dir)

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
        kind, path = self.kind, self._path
        if kind not in _WITH_LABELS and self._images_dir is not None:
            raise SourceError(
                f"source.images_dir={self._images_dir!r} is for labels that do not lie beside their pictures, and "
                f"{path!r} is {self.reason}: leave it out, or name the kind, e.g. source=png_masks"
            )
        if kind == "png_masks":
            return PngMaskSource(path=path, kind=_mask_kind(_mask_files(path)))
        if kind in _PICTURES_ALONE:
            return _PICTURES_ALONE[kind](path=path)
        return _WITH_LABELS[kind](path=path, images_dir=self._images_dir)
