"""The objects that a person should look at first, worst first: `review.csv` for a spreadsheet, `review.json` for a
program. Judges nothing and changes nothing; holds no masks.

Listed are objects whose mask does not fit the box they came with, objects whose mask was made anew and differs
from the source's own, and boxes that never became a mask.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import BEFORE_REFINING, ImageInfo, ImageRecord, Instance
from autolabel.export.atomic import replaced
from autolabel.export.classes import check_classes
from autolabel.export.csv_rows import csv_line
from autolabel.export.listing import LISTING_NOTES, labelled
from autolabel.export.reporting import noted, reported
from autolabel.ops.box_fit import box_fit
from autolabel.ops.masks import area_px
from autolabel.ops.settings import count, fraction, optional

COLUMNS = (
    "image", "object", "source_id", "class", "origin", "reason", "box_iou", "replaced_iou", "mask_px", "detail",
)  # fmt: skip
"""Columns of the CSV, and the keys of the JSON's rows. `object` is the position in the image's record, `origin` says
whether the mask is the source's (`label`) or a model's."""

NOTES: dict[str, str] = {
    "box": "{} [object has a mask that does not fit its|objects have a mask that does not fit their] box",
    "replaced": "{} [object has|objects have] a new mask that differs from the one in the source",
    "no_mask": "{} [box of a labelled image has|boxes of labelled images have] no mask",
    "not_listed": "{} more [is|are] not listed: max_objects",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One object. Ordered by `badness`, the lowest IoU first, then by its place in the run."""

    badness: float
    ordinal: int
    index: int
    cells: tuple[str | int | float | None, ...]


class ReviewListExporter:
    """Lists objects whose mask's tight box has an IoU with the box below `min_box_iou` (boxes are clipped to the
    picture, and a side within one pixel fits), and objects made anew with an IoU below `min_replaced_iou` with
    the mask before. Of more than `max_objects` (null: all) the worst are listed."""

    def __init__(self, *, min_box_iou: float, min_replaced_iou: float, max_objects: int | None) -> None:
        self._min_box_iou = fraction("min_box_iou", min_box_iou)
        self._min_replaced_iou = fraction("min_replaced_iou", min_replaced_iou)
        self._max_objects = optional(count, "max_objects", max_objects, 1)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write `review.csv` and `review.json` into `directory`. Memory grows with the list, not with the run."""
        counts: Counter[str] = Counter()
        found = self._findings(run, counts)
        listed = sorted(found) if self._max_objects is None else heapq.nsmallest(self._max_objects, found)
        counts["not_listed"] = counts.pop("found", 0) - len(listed)
        with replaced(directory, run) as draft:
            draft.write("review.csv", _csv(listed))
            draft.write("review.json", _json(listed))
        counts["instances"] = len(listed)
        return reported(draft.files, counts, noted(counts, LISTING_NOTES, NOTES))

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """A list holds no masks, so there is nothing to compare."""
        return RoundTrip(0, ())

    def _findings(self, run: RecordReader, counts: Counter[str]) -> Iterator[Finding]:
        names = {category.id: category.name for category in run.categories}
        for ordinal, record in enumerate(labelled(run, counts)):
            assert record.info is not None, "checked in labelled"
            check_classes(names, (one.category_id for one in record.instances), record)
            counts["images"] += 1
            for suspect in self._suspects(record, record.info):
                counts.update(["found", *suspect.reasons])
                yield suspect.finding(ordinal, record, names)

    def _suspects(self, record: ImageRecord, image: ImageInfo) -> Iterator[_Suspect]:
        for instance in record.instances:
            box_iou = box_fit(instance, image.size_hw)
            changed = instance.replaced_iou
            reasons = ["box"] if box_iou < self._min_box_iou else []
            if changed is not None and changed < self._min_replaced_iou:
                reasons.append("replaced")
            if reasons:
                yield _Suspect(instance, tuple(reasons), box_iou)
        for dropped in record.dropped:
            if dropped.reason.partition(":")[0] in BEFORE_REFINING:
                yield _Suspect(dropped.instance, ("no_mask",), None, dropped.reason)


@dataclass(frozen=True, slots=True)
class _Suspect:
    instance: Instance
    reasons: tuple[str, ...]
    box_iou: float | None
    detail: str = ""

    def finding(self, ordinal: int, record: ImageRecord, names: Mapping[int, str]) -> Finding:
        one = self.instance
        cells = (
            record.image_id, one.index, one.source_id, names.get(one.category_id, str(one.category_id)), one.origin,
            " ".join(self.reasons), _rounded(self.box_iou), _rounded(one.replaced_iou),
            0 if one.mask is None else area_px(one.mask), self.detail,
        )  # fmt: skip
        worst = min(iou for iou in (self.box_iou or 0.0, one.replaced_iou) if iou is not None)
        return Finding(worst, ordinal, one.index, cells)


def _rounded(iou: float | None) -> float | None:
    return None if iou is None else round(iou, 4)


def _csv(found: Iterable[Finding]) -> Iterator[bytes]:
    for cells in itertools.chain([COLUMNS], (one.cells for one in found)):
        yield csv_line(cells).encode("utf-8", "backslashreplace")


def _json(found: Iterable[Finding]) -> Iterator[bytes]:
    before = b'{"objects":[\n'
    for one in found:
        row = dict(zip(COLUMNS, one.cells, strict=True))
        yield before + json.dumps(row, allow_nan=False).encode("ascii")
        before = b",\n"
    yield b'{"objects":[]}\n' if before.startswith(b"{") else b"\n]}\n"
