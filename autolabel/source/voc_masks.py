"""The PNGs of a VOC devkit: which pixels belong to which object of an XML, or to which class. Reads no XML.

Object k of the XML is the number k in SegmentationObject; 0 is background and 255 void, in both folders. Files
in the colours of the VOC palette (RGB) are read as well.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

import numpy as np

from autolabel.core.errors import ImageError, SourceError
from autolabel.core.types import Float32, Rle, UInt8
from autolabel.ops.index_png import decode_index_png, voc_numbers
from autolabel.ops.masks import bounds_xyxy, encode
from autolabel.ops.storage import is_file
from autolabel.source.locate import read_label_bytes, read_label_text

_MAX_PNG = 256 << 20
_MAX_TEXT = 1 << 20
_VOID = 255
_LABELMAP = "labelmap.txt"
MASK_FOLDER = "SegmentationClass"
"""Its PNGs are labels of their own; without them, objects have no classes."""
_FOLDERS = ("SegmentationObject", MASK_FOLDER)

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class VocMasks:
    """The segmentation folders of a devkit's folder `root`."""

    root: str

    def of_objects(self, stem: str, names: Sequence[str]) -> tuple[Rle | None, ...]:
        """A mask for each object of an XML, None where the PNGs tell none apart.

        From SegmentationObject; without such a file, from SegmentationClass for an object that is the only one
        of its class. Raises SourceError where PNGs and XML contradict each other.
        """
        objects, classes = self._read("SegmentationObject", stem), self._read("SegmentationClass", stem)
        if objects is not None:
            self._check_order(objects, classes, stem, names)
            return tuple(_mask(objects == number) for number in range(1, len(names) + 1))
        if classes is None:
            return (None,) * len(names)
        numbers = {name: number for number, name in self.class_names.items()}
        return tuple(
            _mask(classes == numbers[name]) if name in numbers and names.count(name) == 1 else None
            for name in names
        )

    def without_xml(self, stem: str) -> tuple[tuple[str, Rle], ...] | None:
        """Class name and mask of each object where no XML says anything: numbers of SegmentationObject with
        the class that most of their pixels have, else one object a class. None when there is no PNG."""
        objects, classes = self._read("SegmentationObject", stem), self._read("SegmentationClass", stem)
        if classes is None:
            if objects is not None:
                raise SourceError(f"{self._path('SegmentationObject', stem)}: objects without classes: no XML")
            return None
        ids = classes if objects is None else objects
        if ids.shape != classes.shape:
            raise SourceError(f"{self._path('SegmentationObject', stem)}: its size is not that of the classes")
        found = ((ids == number, _most(classes[ids == number])) for number in _numbers(ids))
        return tuple((self._name(number, stem), encode(inside)) for inside, number in found)

    def first(self, stem: str) -> str | None:
        """Where the first of the PNGs that are there lies."""
        return next((path for folder in _FOLDERS if is_file(path := self._path(folder, stem))), None)

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Class number to name, from labelmap.txt (as CVAT and datumaro write it), else the twenty of VOC."""
        path = posixpath.join(self.root, _LABELMAP)
        if not is_file(path):
            return dict(enumerate(VOC_CLASSES, 1))
        lines = [line.strip() for line in read_label_text(path, _MAX_TEXT).splitlines()]
        rows = [line.split(":")[0] for line in lines if line and not line.startswith("#")]
        # A percent sign stands for what a line of this file cannot hold: a colon, a line break.
        names = [unquote(row) if re.search("%[0-9A-F]{2}", row) else row for row in rows]
        return {number: name for number, name in enumerate(names) if name not in ("background", "ignored")}

    @property
    def states_classes(self) -> bool:
        """Whether the data set names its classes itself."""
        return is_file(posixpath.join(self.root, _LABELMAP))

    def _check_order(self, objects: UInt8, classes: UInt8 | None, stem: str, names: Sequence[str]) -> None:
        path = self._path("SegmentationObject", stem)
        beyond = [number for number in _numbers(objects) if number > len(names)]
        if beyond:
            raise SourceError(f"{path}: object {beyond[0]} is not in the XML, which has {len(names)}")
        if classes is None or classes.shape != objects.shape:
            return
        for number in _numbers(objects):
            found = self.class_names.get(_most(classes[objects == number]))
            if found is not None and found != names[number - 1]:
                raise SourceError(f"{path}: object {number} is a {names[number - 1]!r} in the XML, here {found!r}")

    def _name(self, number: int, stem: str) -> str:
        if number in self.class_names:
            return self.class_names[number]
        path = self._path("SegmentationClass", stem)
        raise SourceError(f"{path}: class {number} has no name; list the classes in {_LABELMAP}")

    def _read(self, folder: str, stem: str) -> UInt8 | None:
        path = self._path(folder, stem)
        if not is_file(path):
            return None
        try:
            numbers = decode_index_png(read_label_bytes(path, _MAX_PNG))
        except ImageError as e:
            raise SourceError(f"{path}: {e.detail}") from e
        plain = voc_numbers(numbers.astype(np.uint8)) if numbers.ndim == 3 else numbers
        if plain is None:
            raise SourceError(f"{path}: colours that the VOC palette does not have")
        return plain  # type: ignore[return-value]

    def _path(self, folder: str, stem: str) -> str:
        return posixpath.join(self.root, folder, f"{stem}.png")


def boxes_of(masks: Sequence[Rle]) -> Float32:
    """Tight boxes (N, 4) of masks that are not empty."""
    return np.array([bounds_xyxy(mask) for mask in masks], np.float32).reshape(-1, 4)


def _numbers(ids: UInt8) -> list[int]:
    return [int(number) for number in np.unique(ids) if number not in (0, _VOID)]


def _most(values: UInt8) -> int:
    """The most frequent class; void only when there is nothing else."""
    counts = np.bincount(values.ravel(), minlength=_VOID + 1)
    counts[[0, _VOID]] = 0
    return int(np.argmax(counts))


def _mask(inside: np.ndarray) -> Rle | None:
    return encode(inside) if inside.any() else None
