"""COCO panoptic: `panoptic.json` and one PNG an image in `panoptic/`, as panopticapi reads them.

A pixel is one object's: its number in the image is R + 256 G + 65536 B, 0 stands for no object. So overlaps cannot
stay, and who owns a shared pixel is a setting; what is hidden is counted. Crowd regions lie below everything. The
PNGs are upright, of the size that the labels have; no pictures are written.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, Instance, Rle, UInt8
from autolabel.export.atomic import Draft, replaced
from autolabel.export.classes import class_number
from autolabel.export.coco import category_fields, image_fields
from autolabel.export.coco_ids import Ids
from autolabel.export.json_rows import json_array, json_bytes
from autolabel.export.listing import LISTING_NOTES, labelled
from autolabel.export.names import TreeNames, safe_path
from autolabel.export.painting import paint, regions
from autolabel.export.pictures import png_bytes
from autolabel.export.policy import POLICY_NOTES, explained, policy_of, prepared
from autolabel.export.reading import compare
from autolabel.export.reporting import noted, reported
from autolabel.ops.masks import decode_crop, mask_of
from autolabel.ops.settings import one_of

FILE = "panoptic.json"
FOLDER = "panoptic"

_NOTES = {
    "crowds_cut": "{} crowd [region loses|regions lose] the pixels that other objects lie on",
    "crowds_hidden": "{} crowd [region is|regions are] wholly covered by other objects and left out",
}


class CocoPanopticExporter:
    """See configs/export/coco_panoptic.yaml for the settings."""

    def __init__(
        self,
        *,
        ids: Literal["source", "new"],
        overlaps: Literal["score", "smallest"],
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
    ) -> None:
        one_of("overlaps", overlaps, ("score", "smallest"))
        self._keep_ids = one_of("ids", ids, ("source", "new")) == "source"
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the data set into `directory`. The records are read twice for each of the two arrays."""
        counts: Counter[str] = Counter()
        with replaced(directory, run) as draft:
            draft.write(FILE, self._file(run, draft, counts))
        notes = noted(counts, LISTING_NOTES, POLICY_NOTES, _NOTES)
        return reported(draft.files, counts, notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The regions of the PNGs, decoded with Pillow, by the numbers that the JSON names."""
        document = json.loads((directory / FILE).read_bytes())
        rows = {row["image_id"]: row for row in document["annotations"]}
        names = {record.image_id: id_ for record, id_, _ in self._listed(run)}

        def read(record: ImageRecord) -> Iterator[tuple[int, Rle]]:
            row = rows[names[record.image_id]]
            numbers = _numbers(directory / FOLDER / row["file_name"])
            given = {segment["id"] for segment in row["segments_info"]}
            there = regions(numbers)
            for number, instance in enumerate(explained(record, self._policy)[0], 1):
                if number in given and number in there:
                    yield instance.index, there[number]

        def why(record: ImageRecord, instance: Instance) -> str:
            return "other objects lie on the crowd" if instance.crowd else "not as written"

        return compare(run, read, self._policy, why)

    def _file(self, run: RecordReader, draft: Draft, counts: Counter[str]) -> Iterator[bytes]:
        yield b'{"info":{"description":"labelled by autolabel"},\n"licenses":[],\n"categories":'
        yield from json_array(json_bytes({"isthing": 1, **fields}) for fields in category_fields(run))
        yield b',\n"images":'
        yield from json_array(
            json_bytes({"id": id_, **image_fields(record, record.image_id)})
            for record, id_, _ in self._listed(run)
        )
        yield b',\n"annotations":'
        yield from json_array(self._annotations(run, draft, counts))
        yield b"}\n"

    def _annotations(self, run: RecordReader, draft: Draft, counts: Counter[str]) -> Iterator[bytes]:
        known = {category.id: category.id for category in run.categories}
        for record, id_, name in self._listed(run, counts):
            canvas, objects = self._painted(record, counts)
            for instance in objects:
                class_number(known, instance, record)
            segments = [_segment(number, one, canvas, counts) for number, one in enumerate(objects, 1)]
            draft.write(f"{FOLDER}/{name}", [png_bytes(_as_rgb(canvas))])
            counts["images"] += 1
            kept = [segment for segment in segments if segment is not None]
            counts["instances"] += len(kept)
            yield json_bytes({"image_id": id_, "file_name": name, "segments_info": kept})

    def _painted(self, record: ImageRecord, counts: Counter[str]) -> tuple[NDArray[np.int32], list[Instance]]:
        """The numbers of the objects, pixel by pixel; crowds first, since the others have no overlap left."""
        assert record.info is not None, "checked in labelled"
        objects = prepared(record, self._policy, counts)
        canvas = np.zeros(record.info.size_hw, np.int32)
        paint(canvas, [(one, number) for number, one in enumerate(objects, 1)])
        return canvas, objects

    def _listed(
        self, run: RecordReader, counts: Counter[str] | None = None
    ) -> Iterator[tuple[ImageRecord, int, str]]:
        """Each labelled image with its id and the name of its PNG."""
        ids, names = Ids(keep=self._keep_ids), TreeNames()
        for record in labelled(run):
            ids.announce(record.source_id)
            names.announce(_png_path(record))
        number = ids.numbers()
        for record in labelled(run, counts):
            yield record, number(record.source_id), names.name(_png_path(record))


def _segment(
    number: int, instance: Instance, canvas: NDArray[np.int32], counts: Counter[str]
) -> dict[str, Any] | None:
    crop, x0, y0 = decode_crop(mask_of(instance))
    window = canvas[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]
    inside = window == number
    area = int(inside.sum())
    if area < int(crop.sum()):
        counts["crowds_cut" if area else "crowds_hidden"] += 1
    if not area:
        return None
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = [x0 + int(columns[0]), y0 + int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
    return {
        "id": number,
        "category_id": instance.category_id,
        "area": area,
        "bbox": box,
        "iscrowd": int(instance.crowd),
    }


def _png_path(record: ImageRecord) -> str:
    """`a.jpg` and `a.png` share a stem here, and TreeNames keeps them apart."""
    return str(PurePosixPath(safe_path(record.image_id)).with_suffix(".png"))


def _as_rgb(numbers: NDArray[np.int32]) -> UInt8:
    """(H, W, 3): red is the lowest byte."""
    lowest_first = np.ascontiguousarray(numbers, "<i4").view(np.uint8).reshape(*numbers.shape, 4)
    return np.ascontiguousarray(lowest_first[..., :3])


def _numbers(path: Path) -> NDArray[np.uint32]:
    """(H, W). Image.open would refuse large pictures."""
    from PIL.PngImagePlugin import PngImageFile

    rgb = np.asarray(PngImageFile(io.BytesIO(path.read_bytes())).convert("RGB"))
    lowest_first = np.zeros((*rgb.shape[:2], 4), np.uint8)
    lowest_first[..., :3] = rgb
    return lowest_first.view("<u4")[..., 0]
