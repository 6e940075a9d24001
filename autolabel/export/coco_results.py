"""COCO results: one `results.json`, the list of detections that `pycocotools.coco.COCO.loadRes` takes.

For measuring a run against annotations that exist. `image_id` is what the COCO exporter gives with the same
`ids`, also where that leaves images out: with "source" those of the annotation file that the run was made from.
Masks are compressed run lengths, exact. No pictures are written; labels are upright.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, Instance, Rle
from autolabel.export.atomic import replaced
from autolabel.export.classes import class_number
from autolabel.export.coco_ids import Ids
from autolabel.export.json_rows import json_array, json_bytes
from autolabel.export.listing import LISTING_NOTES, labelled
from autolabel.export.policy import POLICY_NOTES, explained, policy_of, prepared
from autolabel.export.reading import compare, in_turn
from autolabel.export.reporting import noted, reported
from autolabel.ops.masks import bounds_xyxy, mask_of
from autolabel.ops.settings import one_of

FILE = "results.json"

_NOTES = {
    "not_finite": "{} non-finite [score is|scores are] written as 0",
    "no_detections": "there is no detection: the list is empty, which pycocotools' loadRes refuses",
}


class CocoResultsExporter:
    """See configs/export/coco_results.yaml for the settings."""

    def __init__(
        self,
        *,
        ids: Literal["source", "new"],
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["keep", "score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
    ) -> None:
        self._keep_ids = one_of("ids", ids, ("source", "new")) == "source"
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write `results.json` into `directory`. The records are read twice: for the ids and for the rows."""
        counts: Counter[str] = Counter()
        with replaced(directory, run) as draft:
            draft.write(FILE, self._file(run, counts))
        counts["no_detections"] = not counts["instances"]
        notes = noted(counts, LISTING_NOTES, POLICY_NOTES, _NOTES)
        return reported(draft.files, counts, notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The masks as they stand in the file, which is held in memory as a whole, as loadRes does."""
        rows: dict[int, list[Rle]] = {}
        for row in json.loads((directory / FILE).read_bytes()):
            height, width = row["segmentation"]["size"]
            mask = Rle((height, width), row["segmentation"]["counts"].encode())
            rows.setdefault(row["image_id"], []).append(mask)
        ids = self._image_ids(run)

        def read(record: ImageRecord) -> list[tuple[int, Rle]]:
            objects, _ = explained(record, self._policy)
            found = rows.get(ids[record.image_id], [])
            return [(one.index, mask) for one, mask in in_turn(record, objects, found)]

        return compare(run, read, self._policy)

    def _file(self, run: RecordReader, counts: Counter[str]) -> Iterator[bytes]:
        yield from json_array(self._rows(run, counts))
        yield b"\n"

    def _rows(self, run: RecordReader, counts: Counter[str]) -> Iterator[bytes]:
        number = self._announced(run).numbers()
        known = {category.id: category.id for category in run.categories}
        for record in labelled(run, counts):
            image_id = number(record.source_id)
            counts["images"] += 1
            for instance in prepared(record, self._policy, counts):
                counts["instances"] += 1
                yield json_bytes(_row(image_id, class_number(known, instance, record), instance, counts))

    def _announced(self, run: RecordReader) -> Ids:
        ids = Ids(keep=self._keep_ids)
        for record in labelled(run):
            ids.announce(record.source_id)
        return ids

    def _image_ids(self, run: RecordReader) -> dict[str, int]:
        number = self._announced(run).numbers()
        return {record.image_id: number(record.source_id) for record in labelled(run)}


def _row(image_id: int, category_id: int, instance: Instance, counts: Counter[str]) -> dict[str, object]:
    mask = mask_of(instance)
    bounds = bounds_xyxy(mask)
    assert bounds is not None, "prepared objects have pixels"
    x0, y0, x1, y1 = bounds
    finite = math.isfinite(instance.detector_score)
    counts["not_finite"] += not finite
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
        "segmentation": {"size": list(mask.size_hw), "counts": mask.counts.decode("ascii")},
        "score": round(float(instance.detector_score), 6) if finite else 0.0,
    }
