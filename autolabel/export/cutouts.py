"""One RGBA picture an object: the crop around it, transparent outside its mask, in a folder a class.

    cat/cam1/0_3.png     object 3 of the image cam1/0.jpg
    index.csv            or index.json: where every crop comes from, a line each

Crops come from the upright picture, so no reader can turn them. They may overlap: every object keeps its pixels
unless the policy says otherwise. A crop that reaches over the picture's edge is not padded: it ends there.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from autolabel.core.errors import ImageError
from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import Category, ImageRecord, Instance, Rle, UInt8
from autolabel.export.atomic import Draft
from autolabel.export.classes import class_number, utf8
from autolabel.export.csv_rows import csv_line, csv_text
from autolabel.export.image_names import NAME_NOTES, named
from autolabel.export.json_rows import json_array
from autolabel.export.listing import LISTING_NOTES
from autolabel.export.names import safe_path, with_suffix
from autolabel.export.pictures import PICTURE_NOTES, pictured, png_bytes
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import NOT_THERE, compare
from autolabel.export.reporting import noted, reported
from autolabel.ops.images import upright_rgb
from autolabel.ops.masks import area_px, bounds_xyxy, decode_crop, encode_crop, mask_of
from autolabel.ops.settings import count, one_of

_COLUMNS = ("file", "image", "index", "category_id", "category", "score", "x0", "y0", "width", "height", "area_px")

_CROP = re.compile(r"_\d+\.png$")

_WIDEST_PX = 100
"""The widest surroundings that a cutout shows."""

CUTOUT_NOTES: dict[str, str] = {
    "too_small": "{} [object has|objects have] a shorter side under min_side_px and [is|are] left out",
    "objects_without_picture": "{} [object is|objects are] left out with [its|their] picture",
    "folders_renamed": "{} [picture is in a folder|pictures are in folders] of another name, as "
    "[its|theirs] could be that of a crop",
    "class_folders_renamed": "{} [class has|classes have] a folder of another name: a folder cannot be called like [it|them]",
}


class CutoutsExporter:
    """Writes the crops; see configs/export/cutouts.yaml for the settings."""

    def __init__(
        self,
        *,
        padding_px: int,
        min_side_px: int,
        outside: Literal["clear", "keep"],
        index: Literal["csv", "json"],
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["keep", "score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
    ) -> None:
        self._padding_px = count("padding_px", padding_px, 0, _WIDEST_PX)
        self._min_side_px = count("min_side_px", min_side_px, 1)
        self._clear = one_of("outside", outside, ("clear", "keep")) == "clear"
        self._index = f"index.{one_of('index', index, ('csv', 'json'))}"
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the crops. The records are read twice: for the names, then for the crops."""
        counts: Counter[str] = Counter()
        folders = class_folders(run.categories)
        names = {category.id: utf8(category.name) for category in run.categories}
        counts["class_folders_renamed"] = sum(folders[id_] != name for id_, name in names.items())
        with pictured(directory, run, counts, written="instances") as draft:
            # The index is written while the crops are: one row at a time, whatever the size of the run.
            rows = self._rows(run, folders, names, draft, counts)
            draft.write(self._index, _csv(rows) if self._index.endswith(".csv") else _json(rows))
        notes = noted(counts, LISTING_NOTES, PICTURE_NOTES, POLICY_NOTES, NAME_NOTES, CUTOUT_NOTES)
        return reported(draft.files, counts, notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The alpha of every crop, as Pillow has it, put back where the index says."""
        rows = _in_order(_read_index(directory / self._index))

        def read(record: ImageRecord) -> list[tuple[int, Rle]]:
            assert record.info is not None, "checked in labelled"
            size_hw = record.info.size_hw
            return [
                (
                    int(row["index"]),
                    encode_crop(_alpha(directory / row["file"]), int(row["x0"]), int(row["y0"]), size_hw),
                )
                for row in rows(record.image_id)
            ]

        return compare(run, read, self._policy, self._why)

    def _why(self, record: ImageRecord, instance: Instance) -> str:
        return "not written: under min_side_px" if self._is_small(instance) else NOT_THERE

    def _rows(
        self,
        run: RecordReader,
        folders: dict[int, str],
        names: dict[int, str],
        draft: Draft,
        counts: Counter[str],
    ) -> Iterator[dict[str, Any]]:
        for record, path in named(run, _place, counts):
            counts["folders_renamed"] += str(path.parent) != str(PurePosixPath(safe_path(record.image_id)).parent)
            objects = prepared(record, self._policy, counts)
            counts["too_small"] += sum(map(self._is_small, objects))
            objects = [one for one in objects if not self._is_small(one)]
            picture = _picture(record, counts) if objects else None
            if objects and picture is None:
                counts["objects_without_picture"] += len(objects)
                continue
            counts["images"] += 1
            used: Counter[int] = Counter()
            for instance in objects:
                assert picture is not None, "there are objects"
                name = class_number(names, instance, record)
                used[instance.index] += 1
                part = f"_{used[instance.index]}" if used[instance.index] > 1 else ""
                file = f"{folders[instance.category_id]}/{with_suffix(path, f'_{instance.index}{part}.png')}"
                rgba, x0, y0 = self._crop(picture, mask_of(instance))
                draft.write(file, [png_bytes(rgba)])
                counts["instances"] += 1
                yield _row(file, record, instance, name, (x0, y0, rgba.shape[1], rgba.shape[0]))

    def _is_small(self, instance: Instance) -> bool:
        bounds = bounds_xyxy(mask_of(instance))
        assert bounds is not None, "prepared objects have pixels"
        return min(bounds[2] - bounds[0], bounds[3] - bounds[1]) < self._min_side_px

    def _crop(self, image_rgb: UInt8, mask: Rle) -> tuple[UInt8, int, int]:
        """RGBA (h, w, 4) and where it lies."""
        crop, x, y = decode_crop(mask)
        height, width = mask.size_hw
        pad = self._padding_px
        x0, y0 = max(x - pad, 0), max(y - pad, 0)
        x1, y1 = min(x + crop.shape[1] + pad, width), min(y + crop.shape[0] + pad, height)
        rgba = np.zeros((y1 - y0, x1 - x0, 4), np.uint8)
        rgba[..., :3] = image_rgb[y0:y1, x0:x1]
        rgba[y - y0 :, x - x0 :, 3][: crop.shape[0], : crop.shape[1]] = 255 * crop
        if self._clear:
            rgba[rgba[..., 3] == 0] = 0
        return rgba, x0, y0


def _place(record: ImageRecord) -> str:
    """Its path below the folder of a class. No folder there is called like a crop, `a_0.png`."""
    *folders, name = safe_path(record.image_id).split("/")
    return "/".join([*(f"{one}_" if _CROP.search(one) else one for one in folders), name])


def class_folders(categories: Iterable[Category]) -> dict[int, str]:
    """A folder's name for each category id, all different, also where a file system does not know case."""
    found: dict[int, str] = {}
    taken = {"index.csv", "index.json", "manifest.json"}
    for category in sorted(categories, key=lambda category: category.id):
        flat = utf8(category.name).replace("/", "%2F").replace("\\", "%5C").strip()
        name = safe_path(flat) or f"class_{category.id}"
        while name.lower() in taken:
            name = f"{name}~{category.id}"
        taken.add(name.lower())
        found[category.id] = name
    return found


def _picture(record: ImageRecord, counts: Counter[str]) -> UInt8 | None:
    try:
        return upright_rgb(record)
    except ImageError as error:
        counts["images_changed" if error.code == "changed" else "images_missing"] += 1
        return None


def _row(
    file: str, record: ImageRecord, instance: Instance, name: str, place_xywh: tuple[int, int, int, int]
) -> dict[str, Any]:
    score = instance.detector_score
    known = round(float(score), 6) if math.isfinite(score) else None
    area = area_px(mask_of(instance))
    values = (file, record.image_id, instance.index, instance.category_id, name, known, *place_xywh, area)
    return dict(zip(_COLUMNS, values, strict=True))


def _csv(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """UTF-8; bytes of an image id that are none come out as they are on disk."""
    for cells in itertools.chain([_COLUMNS], (row.values() for row in rows)):
        yield csv_line(cells).encode(errors="surrogateescape")


def _json(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """A JSON array, one object a line; ASCII, whatever bytes an image id has."""
    yield from json_array(json.dumps(row, allow_nan=False).encode("ascii") for row in rows)
    yield b"\n"


def _read_index(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".json":
        yield from json.loads(path.read_bytes())
        return
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            yield {key: csv_text(cell) for key, cell in row.items()}


def _in_order(rows: Iterator[dict[str, Any]]) -> Callable[[str], list[dict[str, Any]]]:
    """The rows of an image, for images that are asked for in the order of the index."""
    ahead: list[dict[str, Any]] = []

    def of(image_id: str) -> list[dict[str, Any]]:
        found = []
        while (row := ahead.pop() if ahead else next(rows, None)) is not None:
            if row["image"] != image_id:
                ahead.append(row)
                break
            found.append(row)
        return found

    return of


def _alpha(path: Path) -> UInt8:
    """1 where the crop is opaque."""
    from PIL.PngImagePlugin import PngImageFile

    return (np.asarray(PngImageFile(io.BytesIO(path.read_bytes())))[..., 3] // 255).astype(np.uint8)
