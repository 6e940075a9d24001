"""The tree that the ultralytics loader reads: `images/<split>/`, `labels/<split>/`, `data.yaml`. Knows no rows:
whoever writes a row format says what stands in a picture's label file.

The trees mirror the image ids. Class numbers are positions in the list of categories sorted by id.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from autolabel.core.errors import ExportError
from autolabel.core.protocols import Deviation, ExportReport, RecordReader, RoundTrip
from autolabel.core.text import printable
from autolabel.core.types import Category, ImageRecord, Instance
from autolabel.export.atomic import Draft
from autolabel.export.classes import class_number
from autolabel.export.empty_images import EMPTY_NOTES, Choice, EmptyImages
from autolabel.export.image_names import NAME_NOTES, named
from autolabel.export.listing import LISTING_NOTES, is_labelled, labelled
from autolabel.export.loader_tree import (
    LOADER_NOTES,
    YAML,
    count_refused,
    data_yaml,
    refused,
    side_folders,
    side_path,
)
from autolabel.export.names import with_suffix
from autolabel.export.pictures import PICTURE_NOTES, Pictures, pictured
from autolabel.export.policy import Policy, explained
from autolabel.export.reading import NOT_AS_WRITTEN, NOT_THERE, deviation
from autolabel.export.reporting import noted, reported
from autolabel.export.splits import SIDES, SplitPlan, Splits
from autolabel.export.ultralytics_reader import Loaded, read_labels
from autolabel.ops.boxes import cxcywh_to_xyxy, scale_normalized
from autolabel.ops.masks import area_px, bounds_xyxy, mask_of
from autolabel.ops.settings import one_of

logger = logging.getLogger(__name__)

TREE_NOTES: dict[str, str] = {
    **EMPTY_NOTES,
    **LOADER_NOTES,
    **NAME_NOTES,
    "same_row_twice": "{} [row is equal to another of its image; the loader drops it|rows are equal to another of their image; the loader drops them]",
}
"""Counts that `YoloTree.export` makes, and what they mean."""

_DROPPED = "its row is equal to another; the loader drops it"

Rows = Callable[[ImageRecord], list[str]]
"""The rows of one picture's label file, without line ends. Called once for each picture that is in the tree."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture and its label file are, relative to the export."""

    image: str
    label: str


Fit = Callable[[Instance, Loaded, int], float]
"""How well that row of what was read fits an object, as IoU."""

Why = Callable[[Instance], str]
"""What the format did to an object that it was given, where what is read is not the very same."""


class YoloTree:
    """Pictures, label files and `data.yaml` in one folder."""

    def __init__(self, *, pictures: Pictures, splits: Splits, empty: EmptyImages) -> None:
        self._pictures = pictures
        self._splits = splits
        self._empty = empty

    def export(
        self,
        run: RecordReader,
        directory: Path,
        rows: Rows,
        counts: Counter[str],
        notes: Callable[[], Iterable[str]] = tuple,
    ) -> ExportReport:
        """Write the data set. `counts` is the caller's own, and is added to; `notes` are the caller's own lines,
        asked for at the end. Counts images and rows (as `instances`)."""
        left_out: Counter[str] = Counter()
        listed = self._listed(run, left_out)
        plan = self._splits.plan(listed)
        places = self._places(listed, plan, counts)
        with pictured(directory, run, counts) as draft:
            for record, place in places:
                self._write(record, place, rows, draft, counts)
            folders, extra = side_folders([side for side in SIDES if _has_images(draft.files, side)])
            for folder in folders.values():
                draft.folder(folder)
            names = [category.name for category in sorted(run.categories, key=lambda category: category.id)]
            draft.write(YAML, [data_yaml(folders, names)])
        counts.update(left_out + plan.counts)
        listing = noted(counts, LISTING_NOTES, TREE_NOTES, PICTURE_NOTES)
        lines = (*listing, *plan.notes(), *self._empty.note(counts), *notes(), *extra)
        return reported(draft.files, counts, lines)

    def places(self, run: RecordReader) -> Iterator[tuple[ImageRecord, Place]]:
        """Every labelled image and where an export of this run has it; a picture that could not be copied is
        not there. Reads the records twice."""
        listed = self._listed(run, Counter())
        return self._places(listed, self._splits.plan(listed), Counter())

    def read_back(
        self, run: RecordReader, directory: Path, policy: Policy, fit: Fit, why: Why, *, as_given: bool
    ) -> RoundTrip:
        """Read every label file with the ultralytics loader, where each object that `policy` keeps has a row. With
        `as_given` that is compared with the object as `policy` made it, not as the run has it."""
        classes, objects, deviations = class_numbers(run), 0, []
        places = self.places(run)
        for record in labelled(run):
            wanted = [i for i in record.instances if i.mask is not None and area_px(i.mask)]
            objects += len(wanted)
            rows, reasons = explained(record, policy)
            if not self._empty.is_left_out(record):
                _, place = next(places)
                if not (directory / place.image).exists():
                    why_not = refused(record) or NOT_THERE
                    deviations += [deviation(record, i, 0.0, [why_not]) for i in wanted]
                    continue
                try:
                    read = read_labels(directory / place.image, directory / place.label, num_classes=len(classes))
                except ExportError as error:
                    deviations += [deviation(record, i, 0.0, [str(error), NOT_AS_WRITTEN]) for i in wanted]
                    if not wanted:  # no object can tell of it
                        logger.warning("%s: %s", printable(record.image_id), error)
                    continue
                found = _Matching(rows, [class_number(classes, i, record) for i in rows], read, fit).rows()
                own = {} if as_given else {i.index: i for i in wanted}
                for at, given in enumerate(rows):
                    if at not in found:
                        deviations.append(deviation(record, given, 0.0, [_DROPPED]))
                    elif (iou := fit(own.get(given.index, given), read, found[at])) < 1.0:
                        words = list(reasons.get(given.index, ()))
                        words += [] if fit(given, read, found[at]) == 1.0 else [why(given)]
                        words += [] if iou else [NOT_AS_WRITTEN]
                        deviations.append(deviation(record, given, iou, words))
            deviations += _left_out(record, wanted, rows, reasons)
        return RoundTrip(objects, tuple(deviations))

    def _listed(self, run: RecordReader, left_out: Counter[str]) -> RecordReader:
        return run if self._empty.choice == "keep" else _WithoutEmpty(run, self._empty, left_out)

    def _places(
        self, run: RecordReader, plan: SplitPlan, counts: Counter[str]
    ) -> Iterator[tuple[ImageRecord, Place]]:
        for record, path in named(run, side_path(plan, self._pictures), counts):
            yield record, Place(f"images/{path}", f"labels/{with_suffix(path, '.txt')}")

    def _write(self, record: ImageRecord, place: Place, rows: Rows, draft: Draft, counts: Counter[str]) -> None:
        if count_refused(record, counts):
            return
        if not self._pictures.write(record, place.image, draft, counts):
            return
        lines = rows(record)
        if not lines:
            self._empty.count(record, counts)
        counts["same_row_twice"] += len(lines) - len(set(lines))
        counts["instances"] += len(lines)
        counts["images"] += 1
        draft.write(place.label, [f"{line}\n".encode() for line in lines])


@dataclass(frozen=True, slots=True)
class _WithoutEmpty:
    """A run without the images that are left out since nothing would be written of them."""

    run: RecordReader
    empty: EmptyImages
    left_out: Counter[str]

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.run.categories

    @property
    def document(self) -> str:
        return self.run.document

    def records(self) -> Iterator[ImageRecord]:
        self.left_out.clear()  # an export reads several times
        for record in self.run.records():
            if is_labelled(record) and self.empty.is_left_out(record):
                self.empty.count(record, self.left_out)
            else:
                yield record


def tree_of(
    key: str,
    *,
    images: Literal["copy", "link", "upright"],
    empty_images: Choice,
    policy: Policy,
    splits: Splits,
) -> YoloTree:
    """The tree of the exporter `key`, from its settings. Raises ConfigError naming the one that is wrong."""
    empty = EmptyImages(key, empty_images, policy)
    return YoloTree(pictures=tree_pictures(images), splits=splits, empty=empty)


def tree_pictures(images: Literal["copy", "link", "upright"]) -> Pictures:
    """How pictures get into a tree. Raises ConfigError naming `images`."""
    one_of("images", images, ("copy", "link", "upright"))
    return Pictures(mode=images)


def class_numbers(run: RecordReader) -> dict[int, int]:
    """The row's class number of each category id."""
    return {c.id: n for n, c in enumerate(sorted(run.categories, key=lambda c: c.id))}


def _has_images(files: Iterable[str], side: str) -> bool:
    return any(file.startswith(f"images/{side}/") for file in files)


class _Matching:
    """Which row each object of an image is."""

    def __init__(self, objects: Sequence[Instance], numbers: Sequence[int], read: Loaded, fit: Fit) -> None:
        """`numbers` are the objects' classes in the file."""
        self._objects, self._numbers, self._read, self._fit = objects, numbers, read, fit

    def rows(self) -> dict[int, int]:
        """By the object's place; of some there is none. The loader sorts the rows when it drops one that is there
        twice: an object then takes the row that fits it exactly, and of what is left the best fit goes first."""
        places = range(len(self._objects))
        if len(places) == len(self._read.classes):
            return {at: at for at in places if self._read.classes[at] == self._numbers[at]}
        found: dict[int, int] = {}
        taken: set[int] = set()
        for at in places:
            row = self._nearest(at)
            if row is not None and row not in taken and self._value(at, row) == 1.0:
                found[at] = row
                taken.add(row)
        left = ((at, row) for at in places if at not in found for row in self._of_class(at) if row not in taken)
        for _, at, row in sorted((-self._value(at, row), at, row) for at, row in left):
            if at not in found and row not in taken:
                found[at] = row
                taken.add(row)
        return found

    def _value(self, at: int, row: int) -> float:
        return self._fit(self._objects[at], self._read, row)

    def _of_class(self, at: int) -> list[int]:
        return np.flatnonzero(self._read.classes == self._numbers[at]).tolist()

    def _nearest(self, at: int) -> int | None:
        """The row of its class with the box most like its own; the first of several such rows."""
        rows, mask = self._of_class(at), mask_of(self._objects[at])
        if not rows:
            return None
        boxes = scale_normalized(cxcywh_to_xyxy(self._read.boxes_cxcywh[rows]), mask.size_hw)
        return rows[int(np.abs(boxes - np.array(bounds_xyxy(mask), np.float32)).sum(axis=1).argmin())]


def _left_out(
    record: ImageRecord,
    wanted: Sequence[Instance],
    rows: Sequence[Instance],
    reasons: Mapping[int, Sequence[str]],
) -> list[Deviation]:
    written = {instance.index for instance in rows}
    return [
        deviation(record, instance, 0.0, reasons.get(instance.index, ()))
        for instance in wanted
        if instance.index not in written
    ]
