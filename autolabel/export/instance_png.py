"""16-bit PNGs of object numbers, and a JSON beside each that says what the numbers are.

    images/…            the pictures (none with images=none)
    masks/….png         0 is background, object k of the JSON is k
    masks/….json        class, score and box of each object, and where the picture is
    classes.json        class id to name

An image with more than 65535 objects is left out: numbers never wrap.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from autolabel.core.errors import ExportError
from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, Instance, Rle
from autolabel.export.atomic import Draft
from autolabel.export.classes import class_number
from autolabel.export.image_names import NAME_NOTES, named, picture_path, place_of
from autolabel.export.listing import LISTING_NOTES
from autolabel.export.names import with_suffix
from autolabel.export.painting import paint, regions
from autolabel.export.pictures import PICTURE_NOTES, Pictures, pictured
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import NOT_AS_WRITTEN, compare
from autolabel.export.reporting import noted, reported
from autolabel.export.source_fields import unknown_fields
from autolabel.ops.index_png import encode_index_png
from autolabel.ops.masks import area_px, bounds_xyxy, mask_of
from autolabel.ops.settings import one_of

_MOST = (1 << 16) - 1

INSTANCE_NOTES: dict[str, str] = {
    "too_many_objects": "{} [image has|images have] more than 65535 objects and [is|are] left out",
}


class InstancePngExporter:
    """Writes the folder; see configs/export/instance_png.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["copy", "link", "upright", "none"],
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
    ) -> None:
        one_of("overlaps", overlaps, ("score", "smallest"))
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)
        self._pictures = Pictures(mode=images)
        self._has_pictures = images != "none"

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the folder. The records are read twice: for the names, then for the masks."""
        counts: Counter[str] = Counter()
        names = {category.id: category.name for category in run.categories}
        with pictured(directory, run, counts) as draft:
            for record, path in named(run, self._path, counts):
                self._write(record, path, names, draft, counts)
            draft.write("classes.json", [_json(names)])
        notes = noted(counts, LISTING_NOTES, PICTURE_NOTES, POLICY_NOTES, NAME_NOTES, INSTANCE_NOTES)
        return reported(draft.files, counts, notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """PNGs read by OpenCV with all their bits, and the JSON beside them."""
        import cv2

        place = place_of(run, self._path)

        def read(record: ImageRecord) -> list[tuple[int, Rle]] | None:
            file = directory / with_suffix("masks" / place(record), ".png")
            if not file.is_file():
                return None
            data = np.frombuffer(file.read_bytes(), np.uint8)
            ids = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE)
            objects = json.loads(file.with_suffix(".json").read_bytes())["objects"]
            if ids is None:
                raise ExportError(f"{file} cannot be read as a PNG")
            found = regions(ids)
            return [(row["index"], found[row["id"]]) for row in objects if row["id"] in found]

        def why(record: ImageRecord, instance: Instance) -> str:
            return "objects lie over the crowd" if instance.crowd else NOT_AS_WRITTEN

        def limit(record: ImageRecord) -> str:
            many = len(prepared(record, self._policy, Counter())) > _MOST
            return "not written: more than 65535 objects" if many else ""

        return compare(run, read, self._policy, why, limit)

    def _path(self, record: ImageRecord) -> str:
        return picture_path(record, self._pictures)

    def _write(
        self, record: ImageRecord, path: PurePosixPath, names: dict[int, str], draft: Draft, counts: Counter[str]
    ) -> None:
        assert record.info is not None, "checked in labelled"
        objects = prepared(record, self._policy, counts)
        if len(objects) > _MOST:
            counts["too_many_objects"] += 1
            return
        if not self._pictures.write(record, f"images/{path}", draft, counts):
            return
        ids = np.zeros(record.info.size_hw, np.uint16)
        paint(ids, [(instance, number) for number, instance in enumerate(objects, 1)])
        rows = [_row(number, one, class_number(names, one, record)) for number, one in enumerate(objects, 1)]
        image = f"images/{path}" if self._has_pictures else record.image_id
        top = {"image": image, "width": record.info.width, "height": record.info.height, "split": record.split}
        draft.write(with_suffix("masks" / path, ".png"), [encode_index_png(ids)])
        draft.write(with_suffix("masks" / path, ".json"), [_json({**top, "objects": rows})])
        counts["images"] += 1
        counts["instances"] += len(objects)


def _row(number: int, instance: Instance, name: str) -> dict[str, Any]:
    """`index` is the object's position among the image's detections, which stays when others are dropped."""
    mask = mask_of(instance)
    own = {
        "id": number,
        "index": instance.index,
        "category_id": instance.category_id,
        "category": name,
        "score": _finite(instance.detector_score),
        "predicted_iou": _finite(instance.predicted_iou),
        "box_xyxy": bounds_xyxy(mask),
        "area_px": area_px(mask),
        "crowd": instance.crowd,
        "source_id": instance.source_id,
    }
    known = {key: value for key, value in own.items() if value is not None}
    return known | unknown_fields(instance.extra, own, f"object {instance.index}")


def _finite(value: float | None) -> float | None:
    return round(float(value), 6) if value is not None and math.isfinite(value) else None


def _json(value: object) -> bytes:
    """ASCII, so that a name with stray bytes can be written too. Raises ExportError for NaN in a source's field."""
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=1).encode("ascii") + b"\n"
    except ValueError as error:
        raise ExportError(f"a field of the source is not JSON: {error}") from error
