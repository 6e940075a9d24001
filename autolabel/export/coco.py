"""COCO instance segmentation: one `instances.json`, exact through pycocotools, streamed to disk.

Every labelled image is listed, also when it holds nothing; images that failed are not, and are counted.
Image and annotation ids count from 1 in the order of the records, category ids are kept. `area` and `bbox`
are those of the mask. `score`, `predicted_iou`, `source_id` and `split` are extra keys, there when known.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from autolabel.core.errors import ConfigError, ExportError
from autolabel.core.protocols import ExportReport, RecordReader
from autolabel.core.types import ImageRecord, Instance, Polygon, Rle
from autolabel.export.atomic import MANIFEST, replaced
from autolabel.ops.masks import area_px, bounds_xyxy, from_polygons, iou, run_lengths
from autolabel.ops.polygons import coco_polygons

FILE = "instances.json"


class CocoExporter:
    """`segmentation`: "polygon" (one a part, holes keyholed; every reader takes it) or "rle" (compact; some
    readers refuse it). Polygons that came with the source are written as they came."""

    def __init__(self, *, segmentation: Literal["polygon", "rle"]) -> None:
        if segmentation not in ("polygon", "rle"):
            raise ConfigError(f"export.coco.segmentation must be polygon or rle, got {segmentation!r}")
        self._polygons = segmentation == "polygon"

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write `instances.json` into `directory`; memory does not grow with the run.

        The records are read twice, once for each array of the file.
        """
        tally = _Tally()
        with replaced(directory) as draft:
            draft.write(FILE, self._file(run, tally))
        return tally.report()

    def _file(self, run: RecordReader, tally: _Tally) -> Iterator[bytes]:
        yield b'{"info":{"description":"labelled by autolabel"},\n"licenses":[],\n"categories":'
        yield from _array([_json({"id": c.id, "name": c.name}) for c in run.categories])
        yield b',\n"images":'
        yield from _array(self._images(run, tally))
        yield b',\n"annotations":'
        yield from _array(self._annotations(run, tally))
        yield b"}\n"

    def _images(self, run: RecordReader, tally: _Tally) -> Iterator[bytes]:
        for number, record in enumerate(_listed(run, tally), 1):
            yield _json(_image(number, record))

    def _annotations(self, run: RecordReader, tally: _Tally) -> Iterator[bytes]:
        names = {category.id for category in run.categories}
        number = 0
        for image, record in enumerate(_listed(run), 1):
            for instance in record.instances:
                _check(instance, record, names)
                mask = _written_mask(instance, tally)
                if mask is None:
                    continue
                number += 1
                yield _json(self._annotation(number, image, instance, mask, tally))

    def _annotation(
        self, number: int, image: int, instance: Instance, mask: Rle, tally: _Tally
    ) -> dict[str, object]:
        bounds = bounds_xyxy(mask)
        assert bounds is not None, "empty masks are left out before"
        x0, y0, x1, y1 = bounds
        tally.counts["instances"] += 1
        return {
            "id": number,
            "image_id": image,
            "category_id": instance.category_id,
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "area": area_px(mask),
            "iscrowd": int(instance.crowd),
            "segmentation": self._segmentation(instance, mask, tally),
            **_extras(instance, tally),
        }

    def _segmentation(self, instance: Instance, mask: Rle, tally: _Tally) -> object:
        if instance.origin == "label" and instance.polygons and _readable(instance.polygons):
            tally.source_polygons(instance.polygons, mask)
            return [list(polygon) for polygon in instance.polygons]
        if not self._polygons:
            return {"size": list(mask.size_hw), "counts": mask.counts.decode("ascii")}
        if instance.crowd:  # readers that know crowds expect the plain run lengths
            return {"size": list(mask.size_hw), "counts": run_lengths(mask).tolist()}
        return [list(polygon) for polygon in coco_polygons(mask)]


class _Tally:
    """What the report says, counted while writing."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lowest = 1.0

    def source_polygons(self, polygons: tuple[Polygon, ...], mask: Rle) -> None:
        self.counts["source_polygons"] += 1
        self._lowest = min(self._lowest, iou(from_polygons(polygons, mask.size_hw), mask))

    def report(self) -> ExportReport:
        lines = {
            "images_left_out": "{} images that failed or were skipped are not listed",
            "empty_masks": "{} instances without a single pixel are left out",
            "not_finite": "{} scores that are no finite number are left out",
            "not_utf8": "{} file names are not UTF-8 and carry escaped bytes (Python's surrogateescape)",
        }
        notes = [text.format(self.counts[key]) for key, text in lines.items() if self.counts[key]]
        if self._lowest < 1.0:
            kept = self.counts["source_polygons"]
            notes.append(
                f"{kept} polygons of the source are written as they came; read by pycocotools, the lowest IoU "
                f"with their mask is {self._lowest:.3f}"
            )
        counts = {key: value for key, value in sorted(self.counts.items()) if value}
        files = (FILE, MANIFEST)
        return ExportReport(files, self.counts["images"], self.counts["instances"], counts, tuple(notes))


def _listed(run: RecordReader, tally: _Tally | None = None) -> Iterator[ImageRecord]:
    """The records of labelled images; counted when a tally is given."""
    for record in run.records():
        listed = record.status in ("ok", "empty")
        if tally is not None:
            tally.counts["images" if listed else "images_left_out"] += 1
            tally.counts["not_utf8"] += listed and not _is_utf8(record.image_id)
        if listed:
            yield record


def _image(number: int, record: ImageRecord) -> dict[str, object]:
    if record.info is None:
        raise ExportError(f"{record.image_id!r} is labelled but its size is not known; label it again")
    split = {} if record.split is None else {"split": record.split}
    size = {"width": record.info.width, "height": record.info.height}
    return {"id": number, "file_name": record.image_id, **size, **split}


def _check(instance: Instance, record: ImageRecord, names: set[int]) -> None:
    if instance.category_id not in names:
        raise ExportError(
            f"{record.image_id!r} holds an object of class {instance.category_id}, which the run does not name"
        )
    assert record.info is not None, "checked when the image was listed"
    if instance.mask is not None and instance.mask.size_hw != record.info.size_hw:
        raise ExportError(
            f"a mask of {record.image_id!r} is {instance.mask.size_hw}, the image {record.info.size_hw}"
        )


def _written_mask(instance: Instance, tally: _Tally) -> Rle | None:
    if instance.mask is not None and area_px(instance.mask) > 0:
        return instance.mask
    tally.counts["empty_masks"] += 1
    return None


def _extras(instance: Instance, tally: _Tally) -> dict[str, object]:
    extras: dict[str, object] = {}
    scores = {"score": instance.detector_score, "predicted_iou": instance.predicted_iou}
    for key, value in scores.items():
        if value is not None and math.isfinite(value):
            extras[key] = round(float(value), 6)
        elif value is not None:
            tally.counts["not_finite"] += 1
    if instance.source_id is not None:
        extras["source_id"] = instance.source_id
    return extras


def _readable(polygons: tuple[Polygon, ...]) -> bool:
    """pycocotools raises on fewer than three points, and reads four numbers as a box."""
    return all(len(p) >= 6 and len(p) % 2 == 0 and all(map(math.isfinite, p)) for p in polygons)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _json(value: dict[str, object]) -> bytes:
    # ASCII, so that a name with stray bytes can be written too.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def _array(items: Iterator[bytes] | list[bytes]) -> Iterator[bytes]:
    """A JSON array, one item a line."""
    separator = b"[\n"
    for item in items:
        yield separator + item
        separator = b",\n"
    yield b"[]" if separator == b"[\n" else b"\n]"
