"""The names of a run's labelled images in an export: paths in a tree, or texts, and no two alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from autolabel.core.protocols import RecordReader
from autolabel.core.types import ImageRecord
from autolabel.export.listing import labelled
from autolabel.export.names import NamesApart, TreeNames, safe_path, utf8_id
from autolabel.export.pictures import Pictures

NAME_NOTES: dict[str, str] = {
    "renamed_for_a_shared_stem": "{} [picture|pictures] shared a name without suffix, or [its|their] label file one with a folder; "
    "the label [file keeps|files keep] the suffix of the picture",
    "moved_beside_a_file": "{} [picture is in a folder|pictures are in folders] of another name, as "
    "[its|theirs] is that of a file of the format",
}
"""What `named` counts, as lines for the report."""


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
