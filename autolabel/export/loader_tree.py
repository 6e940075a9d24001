"""What every data set for the ultralytics loader has: where its pictures are, and `data.yaml`. Knows no labels.

`data.yaml` names no `path`, so the folder can be moved, and no `download`, which that loader would run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

from autolabel.core.types import ImageRecord
from autolabel.export.classes import utf8
from autolabel.export.image_names import picture_path
from autolabel.export.pictures import Pictures
from autolabel.export.splits import SIDES, SplitPlan

YAML = "data.yaml"
TOO_SMALL = "not written: a side under 10 px, which the loader refuses"
TOO_LARGE = "not written: more than 178 956 970 pixels, which the loader refuses"
_SMALLEST_PX = 10
_MOST_PX = 178_956_970
"""Twice Pillow's MAX_IMAGE_PIXELS: above it, what the loader opens pictures with takes them for decompression bombs."""

LOADER_NOTES: dict[str, str] = {
    "images_too_small": "{} [picture has|pictures have] a side under 10 px, which the loader refuses, and [is|are] left out",
    "images_too_large": "{} [picture has|pictures have] more than 178 956 970 pixels, which the loader refuses, and [is|are] left out",
}
"""Counts of the exporters of this loader, and what they mean."""


def refused(record: ImageRecord) -> str:
    """Why the loader refuses the picture for its size; "" where it does not."""
    assert record.info is not None, "checked in labelled"
    height, width = record.info.size_hw
    if min(height, width) < _SMALLEST_PX:
        return TOO_SMALL
    return TOO_LARGE if height * width > _MOST_PX else ""


def count_refused(record: ImageRecord, counts: Counter[str]) -> bool:
    """Whether the loader refuses the picture for its size; then it is counted."""
    why = refused(record)
    if why:
        counts["images_too_small" if why == TOO_SMALL else "images_too_large"] += 1
    return bool(why)


def side_path(plan: SplitPlan, pictures: Pictures) -> Callable[[ImageRecord], str]:
    """Where a picture goes below `images/`: its split, then its id as a path.

    A picture of such a data set keeps its place: the folders `images` and that of its split, which its id then
    begins with, are not made twice. The loader finds labels by replacing the last `/images/` of a path, so no
    other folder is called that.
    """

    def path_of(record: ImageRecord) -> str:
        path = PurePosixPath(picture_path(record, pictures))
        folders, known = list(path.parts[:-1]), {"images", record.split}
        while folders and folders[0] in known:
            known.remove(folders.pop(0))
        others = (f"{folder}_" if folder == "images" else folder for folder in folders)
        return str(PurePosixPath(plan.side(record), *others, path.name))

    return path_of


def side_folders(sides: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The folder of each side, and a line for each that has no picture, or for all; the loader wants train and val."""
    if not sides:
        empty = {side: f"images/{side}" for side in ("train", "val")}
        return empty, ["it holds no picture: nothing can be trained on it"]
    found: dict[str, str] = {side: f"images/{side}" for side in SIDES if side in sides}
    notes = []
    for side, other in (("train", "val"), ("val", "train")):
        if side not in sides:
            found[side] = f"images/{other if other in sides else side}"
            notes.append(f"no picture is left for {side}: {YAML} names {found[side]} for it")
    return found, notes


def data_yaml(folders: dict[str, str], names: Iterable[str], *more: str) -> bytes:
    """The file: the folders, lines of the format's own, and the classes by their number."""
    lines = [f"{side}: {folders[side]}" for side in SIDES if side in folders]
    words = [f"  {number}: {quoted(name)}" for number, name in enumerate(names)]
    return "\n".join([*lines, *more, "names:" if words else "names: {}", *words, ""]).encode()


def quoted(text: str) -> str:
    """A YAML string in double quotes that every reader takes for this text; stray bytes as question marks."""
    return f'"{"".join(map(_escaped, utf8(text)))}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    number = ord(char)
    return f"\\x{number:02X}" if number < 0x100 else f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"
