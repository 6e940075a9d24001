"""What the formats of pixel numbers share: the names of their trees, and painting objects into one image.

A pixel has one owner. Objects are painted over crowds; among objects the policy `overlaps` has decided before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ExportError
from autolabel.core.protocols import RecordReader
from autolabel.core.types import ImageRecord, Instance, Rle, Verdict
from autolabel.export.coco_rows import unknown_fields
from autolabel.export.names import NamesApart, TreeNames, safe_path, utf8_id
from autolabel.export.pictures import Pictures
from autolabel.export.policy import Policy, labelled, mask_of, policy_of, prepared
from autolabel.ops.index_png import Ids
from autolabel.ops.masks import decode_crop, encode_crop
from autolabel.ops.settings import count, one_of

T = TypeVar("T")

WIDEST_PX = 100
"""The widest border, and the widest surroundings that a cutout shows."""

RASTER_NOTES: dict[str, str] = {
    "renamed_for_a_shared_stem": "{} [picture|pictures] shared a name without suffix, or [its|their] label file one with a folder; "
    "the label [file keeps|files keep] the suffix of the picture",
    "moved_beside_a_file": "{} [picture is in a folder|pictures are in folders] of another name, as "
    "[its|theirs] is that of a file of the format",
    "void_px": "{} [pixel at an outline is|pixels at outlines are] void (border)",
    "void_crowds": "{} crowd [region is|regions are] void",
}
"""What is counted here, as lines for the report."""


@dataclass(frozen=True, slots=True)
class Painting:
    """What a format that paints objects into one picture is set to: which objects it has (`own`), the same with who
    owns a pixel of several (`policy`), how pictures get there, and what is void."""

    own: Policy
    policy: Policy
    pictures: Pictures
    border_px: int
    crowds_are_void: bool

    def border(self, ids: Ids, counts: Counter[str]) -> NDArray[np.bool_]:
        """(H, W): the pixels at outlines that are void."""
        if not self.border_px:
            return np.zeros(ids.shape, bool)
        found = outlines(ids, self.border_px)
        counts["void_px"] += int(found.sum())
        return found


def painting_of(
    *,
    images: Literal["copy", "link", "upright"],
    holes: Literal["keep", "fill"],
    parts: Literal["keep", "largest"],
    overlaps: Literal["score", "smallest"],
    min_area_px: int,
    crowd: str,
    void: str,
    border_px: int,
) -> Painting:
    """The settings of an exporter, which calls what is not labelled `void`. Raises ConfigError naming the one
    that is wrong."""
    one_of("images", images, ("copy", "link", "upright"))
    one_of("parts", parts, ("keep", "largest"))
    one_of("overlaps", overlaps, ("score", "smallest"))
    one_of("crowd", crowd, (void, "keep", "drop"))
    count(f"{void}_border_px", border_px, 0, WIDEST_PX)
    own = {
        "holes": holes,
        "parts": parts,
        "min_area_px": min_area_px,
        "crowd": "drop" if crowd == "drop" else "keep",
    }
    return Painting(
        policy_of(**own),
        policy_of(**own, overlaps=overlaps),
        Pictures(mode=images),
        border_px,
        crowd == void,
    )


def named(
    run: RecordReader, path_of: Callable[[ImageRecord], str], counts: Counter[str], taken: Sequence[str] = ()
) -> Iterator[tuple[ImageRecord, PurePosixPath]]:
    """Every labelled image and its path in a tree where no two share a stem, nor has one that of a file of the format's
    own, which are `taken`; nor is a folder called like one of those. Reads the records twice."""
    names = TreeNames()
    for path in taken:
        names.announce(path)
    for record in labelled(run):
        names.announce(_beside(path_of(record), taken))
    moved = 0
    for record in labelled(run, counts):
        path = path_of(record)
        free = _beside(path, taken)
        moved += free != path
        yield record, PurePosixPath(names.name(free))
    counts["renamed_for_a_shared_stem"] = names.renamed
    counts["moved_beside_a_file"] = moved


def _beside(path: str, taken: Sequence[str]) -> str:
    """The path, its topmost folder renamed where a file of the format's own is called so."""
    folder, slash, rest = path.partition("/")
    return f"{folder}_/{rest}" if slash and folder in taken else path


def place_of(
    run: RecordReader, path_of: Callable[[ImageRecord], str], taken: Sequence[str] = ()
) -> Callable[[ImageRecord], PurePosixPath]:
    """The paths of `named`, for records that are asked for in the order of the run."""
    places = named(run, path_of, Counter(), taken)

    def place(record: ImageRecord) -> PurePosixPath:
        return next(path for one, path in places if one.image_id == record.image_id)

    return place


def apart(run: RecordReader, name_of: Callable[[ImageRecord], str]) -> Callable[[ImageRecord], str]:
    """The names of labelled images, made of their ids, as `NamesApart` keeps them apart. Reads the records once."""
    names = NamesApart()
    for record in labelled(run):
        names.announce(name_of(record))
    return lambda record: names.name(record.image_id, name_of(record))


def utf8_ids(run: RecordReader) -> Callable[[ImageRecord], str]:
    """The ids of labelled images for formats that hold UTF-8 alone: stray bytes as %XX, and no two alike."""
    return apart(run, lambda record: utf8_id(record.image_id))


def picture_path(record: ImageRecord, pictures: Pictures) -> str:
    """The image id as a path, with the suffix that its picture will have."""
    path = safe_path(record.image_id)
    return f"{path}.png" if pictures.converts(record) and not path.lower().endswith(".png") else path


def with_suffix(path: PurePosixPath, suffix: str) -> str:
    """The path with another suffix; a dot in a folder's name does not begin a suffix."""
    return str(path.with_name(path.stem + suffix))


def visible(
    record: ImageRecord, objects: Sequence[Instance], policy: Policy, counts: Counter[str]
) -> list[Instance]:
    """What of each object the policy `overlaps` leaves to see, for objects that are prepared in all else."""
    of_objects = replace(record, candidates=tuple(objects), verdicts=(Verdict(),) * len(objects))
    return prepared(of_objects, Policy(overlaps=policy.overlaps), counts)


def paint(canvas: NDArray[np.integer], objects: Iterable[tuple[Instance, int]]) -> None:
    """Give every object's pixels its number; crowds first, so that objects lie over them."""
    for instance, number in sorted(objects, key=lambda pair: not pair[0].crowd):
        crop, x0, y0 = decode_crop(mask_of(instance))
        canvas[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]][crop > 0] = number


def regions(ids: NDArray[np.integer]) -> dict[int, Rle]:
    """The pixels of every number but 0 that an image (H, W) holds. Costs what the image costs, and for each number what
    its box costs."""
    height, width = ids.shape
    flat = ids.ravel()
    starts = np.ones(flat.size, bool)  # of runs of one number within a row
    starts[1:] = flat[1:] != flat[:-1]
    starts[::width] = True
    begin = np.flatnonzero(starts)
    end = np.append(begin[1:], flat.size)
    begin, end = begin[flat[begin] != 0], end[flat[begin] != 0]
    order = np.argsort(flat[begin], kind="stable")
    begin, end = begin[order], end[order]
    numbers, first = np.unique(flat[begin], return_index=True)
    if not len(numbers):
        return {}
    rows = begin // width
    boxes = zip(
        np.minimum.reduceat(begin - rows * width, first).tolist(),
        np.minimum.reduceat(rows, first).tolist(),
        np.maximum.reduceat(end - rows * width, first).tolist(),
        (np.maximum.reduceat(rows, first) + 1).tolist(),
        strict=True,
    )
    return {
        number: encode_crop((ids[y0:y1, x0:x1] == number).astype(np.uint8), x0, y0, (height, width))
        for number, (x0, y0, x1, y1) in zip(numbers.tolist(), boxes, strict=True)
    }


def outlines(ids: Ids, width_px: int) -> NDArray[np.bool_]:
    """(H, W): pixels with another number within `width_px` of them, in any of the eight directions."""
    kernel = np.ones((2 * width_px + 1, 2 * width_px + 1), np.uint8)
    found: NDArray[np.bool_] = cv2.dilate(ids, kernel) != cv2.erode(ids, kernel)
    return found


def class_number(numbers: Mapping[int, T], instance: Instance, record: ImageRecord) -> T:
    """What a table says of an object's class. Raises ExportError for a class that the run does not name."""
    check_classes(numbers, [instance.category_id], record)
    return numbers[instance.category_id]


def check_classes(named: Collection[int], category_ids: Iterable[int], record: ImageRecord) -> None:
    """Raises ExportError for a class that the run does not name."""
    for category_id in category_ids:
        if category_id not in named:
            raise ExportError(
                f"{record.image_id!r} holds an object of class {category_id}, which the run does not name"
            )


def utf8(name: str) -> str:
    """A class name without the lone surrogates that JSON can carry and UTF-8 cannot."""
    return name.encode(errors="replace").decode()


def fields_of(extra: str) -> Mapping[str, Any]:
    """The fields of an `extra` text. Raises ExportError when it is not a JSON object."""
    return unknown_fields(extra, (), "an image or object")
