"""COCO instance segmentation: `instances.json`, or one file a split, exact through pycocotools, streamed to disk.

Every labelled image is listed, also when it holds nothing (unless told otherwise); images that failed are not,
and are counted. Category ids are kept, image and annotation ids by choice. An image that is left out takes its id with
it, so that the COCO formats of a run mean one image by one id. `area` and `bbox` are those of the mask. `score`,
`predicted_iou`, `source_id` and `split` are extra keys, there when known; fields of the source that have no place
of their own stand where they stood.

Labels are upright. Readers that rotate pictures as their EXIF tag says (OpenCV) take the originals, which the
file names by default; for those that do not (torchvision's) `images: upright` writes pictures that fit.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from autolabel.core.protocols import ColumnReader, ExportReport, RecordReader, RoundTrip
from autolabel.core.types import Columns, ImageRecord, Instance, Rle
from autolabel.export.atomic import Draft
from autolabel.export.classes import check_classes
from autolabel.export.coco_ids import Ids
from autolabel.export.empty_images import EMPTY_NOTES, EmptyImages
from autolabel.export.image_names import apart, picture_path
from autolabel.export.json_rows import json_array, json_bytes
from autolabel.export.listing import LISTING_NOTES, is_labelled
from autolabel.export.outlines import OUTLINE_NOTES, Outlines
from autolabel.export.pictures import PICTURE_NOTES, Pictures, pictured
from autolabel.export.policy import POLICY_NOTES, Policy, explained, policy_of, prepared
from autolabel.export.reading import compare, in_turn
from autolabel.export.reporting import noted, reported
from autolabel.export.source_fields import unknown_fields
from autolabel.export.splits import SIDES, SplitPlan, Splits
from autolabel.ops.annotation_rows import AnnotationRows
from autolabel.ops.masks import area_px, bounds_xyxy, mask_of, run_lengths
from autolabel.ops.orientation import is_mirrored
from autolabel.ops.outline import annotation_text
from autolabel.ops.settings import flag, one_of

_ALL = "instances.json"
FILES: dict[str, str] = {"": _ALL, **{side: f"instances_{side}.json" for side in SIDES}}
"""The file of all, and that of each split."""

_NOTES = {
    **EMPTY_NOTES,
    "renamed": "{} [picture is|pictures are] named differently in images/ than in the source: with characters that every reader takes, "
    "not hidden, with the suffix of [its|their] format",
    "keypoints_mirrored": "{} [object|objects] with keypoints in pictures that EXIF mirrors: where the labels were made on the "
    "stored picture, the names of left and right are exchanged",
    "not_finite": "{} non-finite [score is|scores are] left out",
    "not_utf8": "{} file [name is not UTF-8 and carries|names are not UTF-8 and carry] escaped bytes (Python's surrogateescape)",
    "id_zero": "{} [annotation keeps its|annotations keep their] id 0, which COCOeval takes for no match; ids=new numbers from 1",
    "ids_changed": "{} [id occurs|ids occur] twice in the source; the later [one is|ones are] new",
}
_ANNOTATION = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")


class CocoExporter:
    """See configs/export/coco.yaml for the settings. Polygons that came with the source are written as they came,
    unless a policy changes the mask, or pycocotools makes another one of them (`warn_iou`)."""

    def __init__(
        self,
        *,
        segmentation: Literal["polygon", "rle"],
        ids: Literal["source", "new"],
        images: Literal["none", "copy", "link", "upright"],
        empty_images: Literal["keep", "drop", "found_none"],
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["keep", "score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
        simplify_iou: float | None,
        warn_iou: float = 0.98,
        split_files: bool,
        val_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: bool,
        group_by: str | None,
    ) -> None:
        self._polygons = one_of("segmentation", segmentation, ("polygon", "rle")) == "polygon"
        self._keep_ids = one_of("ids", ids, ("source", "new")) == "source"
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)
        self._empty = EmptyImages("coco", empty_images, self._policy)
        self._outlines = Outlines(simplify_iou=simplify_iou, warn_iou=warn_iou)
        self._traces = self._polygons and simplify_iou is None
        self._pictures = None if images == "none" else Pictures(mode=images)
        splits = Splits(
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            stratify=stratify,
            group_by=group_by,
        )
        self._splits = splits if flag("split_files", split_files) else None

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the data set into `directory`; memory grows by 8 bytes for an id of the source.

        The file of all is written while the records are read, with ids that count from one. Where the source brings ids
        or there are splits, what must be is known only then, and the files are made from that one. The records are read
        once; before that for the names of copied pictures and for the splits.
        """
        tally = _Tally(copy(self._outlines))
        plan = None if self._splits is None else self._splits.plan(run)
        head = b"".join(_head(run))
        with (
            pictured(directory, run, tally.counts) as draft,
            tempfile.TemporaryFile(dir=draft.root, buffering=_BUFFER) as images,
        ):
            listed = _Listed(images, Ids(keep=self._keep_ids), Ids(keep=self._keep_ids))
            draft.write(_ALL, _file(head, self._list(run, plan, draft, listed, tally), listed.image_rows("")))
            sides: list[str] = [side for side in SIDES if SIDES.index(side) in listed.places]
            if sides or listed.brought:
                with (draft.root / _ALL).open("rb", buffering=_BUFFER) as waiting:
                    draft.remove(_ALL)
                    for side in sides or [""]:
                        waiting.seek(len(head))
                        annotations = listed.annotation_rows(side, waiting, tally.counts)
                        draft.write(FILES[side], _file(head, annotations, listed.image_rows(side)))
        tally.counts.update({} if plan is None else plan.counts)
        tally.counts["ids_changed"] = listed.image_ids.repeated + listed.annotation_ids.repeated
        split_notes = [] if plan is None else plan.notes()
        return tally.report(draft.files, [*split_notes, *self._empty.note(tally.counts)])

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The masks that pycocotools makes of the annotations, which it holds in memory as a whole."""
        images = {image["file_name"]: (coco, image) for coco in _loaded(directory) for image in coco.imgs.values()}
        name_of = self._names(run)

        def read(record: ImageRecord) -> list[tuple[int, Rle]] | None:
            coco, image = images.get(name_of(record), (None, None))
            if coco is None:
                return None
            found = [coco.annToRLE(annotation) for annotation in coco.imgToAnns[image["id"]]]
            return [
                (instance.index, Rle(tuple(one["size"]), _as_bytes(one["counts"])))
                for instance, one in in_turn(record, explained(record, self._policy)[0], found)
            ]

        return compare(run, read, self._policy, lambda _, instance: self._outlines.why(instance))

    def _list(
        self, run: RecordReader, plan: SplitPlan | None, draft: Draft, listed: _Listed, tally: _Tally
    ) -> Iterator[bytes]:
        """The rows of all annotations, those of many images at a time."""
        plain = AnnotationRows()
        known = {category.id for category in run.categories}
        name_of = self._names(run)
        for record, columns in self._read(run):
            if not is_labelled(record, tally.counts):
                continue
            name = name_of(record)
            objects, columns = self._objects(record, columns, tally)
            count = len(objects if columns is None else columns)
            if not count and not self._empty.count(record, tally.counts):
                listed.leave_out(record)
                continue
            if self._pictures is not None and not self._pictures.write(
                record, f"images/{name}", draft, tally.counts
            ):
                listed.leave_out(record)
                continue
            tally.counts["images"] += 1
            if record.info is not None and is_mirrored(record.info.orientation):
                tally.counts["keypoints_mirrored"] += sum('"keypoints"' in one.extra for one in objects)
            tally.counts["renamed"] += name != record.image_id
            tally.counts["not_utf8"] += not name.isascii() and not _is_utf8(name)
            check_classes(known, columns.category_ids if columns else [one.category_id for one in objects], record)
            place = _NO_SIDE if plan is None else SIDES.index(plan.side(record))
            tally.counts["instances"] += count
            if columns:
                assert record.info is not None, "checked in labelled"
                plain.add(listed.next_image, listed.next_annotation, record.info.size_hw, columns)
            elif objects:
                if plain:
                    yield plain.taken()
                yield b",\n".join(self._rows(objects, listed, tally))
            listed.add(record, name, place, count)
            if len(plain) >= _TOGETHER:
                yield plain.taken()
        if plain:
            yield plain.taken()

    def _objects(
        self, record: ImageRecord, columns: Columns | None, tally: _Tally
    ) -> tuple[Sequence[Instance], Columns | None]:
        """What to write of an image: columns where these say all of it, else objects."""
        if columns is not None:
            return (), columns
        objects = prepared(record, self._policy, tally.counts)
        return objects, Columns.of(objects) if self._traces else None

    def _read(self, run: RecordReader) -> Iterator[tuple[ImageRecord, Columns | None]]:
        if self._traces and self._policy == Policy() and isinstance(run, ColumnReader):
            return run.columns()
        return ((record, None) for record in run.records())

    def _names(self, run: RecordReader) -> Callable[[ImageRecord], str]:
        """The file name of each labelled image: its id, or where its copy is below `images/`."""
        pictures = self._pictures
        if pictures is None:
            return lambda record: record.image_id
        return apart(run, lambda record: picture_path(record, pictures))

    def _rows(self, objects: Sequence[Instance], listed: _Listed, tally: _Tally) -> Iterator[bytes]:
        """An image's annotations: that of an object with an id of its own as `_Listed.annotation_rows` expects it."""
        ids = own_ids(objects) if self._keep_ids else [None] * len(objects)
        for new_id, (instance, own_id) in enumerate(zip(objects, ids, strict=True), listed.next_annotation):
            same, other = _more(instance, own_id, tally)
            fields = b'"category_id":%d,"iscrowd":%d,%b' % (
                instance.category_id, instance.crowd, self._geometry(instance, tally)
            )  # fmt: skip
            if own_id is None:
                yield b'{"id":%d,"image_id":%d,%b%b}' % (new_id, listed.next_image, fields, other)
            else:
                yield b"%d\t%b\t%b\t%b" % (own_id, fields, same, other)

    def _geometry(self, instance: Instance, tally: _Tally) -> bytes:
        mask = mask_of(instance)
        own = tally.outlines.own(instance, tally.counts)
        if own is None and self._traces and not instance.crowd:
            return annotation_text(mask)
        bounds = bounds_xyxy(mask)
        assert bounds is not None, "prepared objects have pixels"
        x0, y0, x1, y1 = bounds
        shape = self._segmentation(instance, mask, tally) if own is None else own
        return b'"bbox":[%d.0,%d.0,%d.0,%d.0],"area":%d,"segmentation":%b' % (
            x0, y0, x1 - x0, y1 - y0, area_px(mask), json_bytes(shape)
        )  # fmt: skip

    def _segmentation(self, instance: Instance, mask: Rle, tally: _Tally) -> object:
        if not self._polygons:
            return {"size": list(mask.size_hw), "counts": mask.counts.decode("ascii")}
        if instance.crowd:  # readers that know crowds expect the plain run lengths
            return {"size": list(mask.size_hw), "counts": run_lengths(mask).tolist()}
        # Corners of pixels stay what they are.
        return [list(map(int, polygon)) for polygon in tally.outlines.drawn(mask, tally.counts)]


def own_ids(objects: Sequence[Instance]) -> Iterator[int | None]:
    """The source's annotation ids; of an object that is split, the first part has it alone."""
    before = None
    for instance in objects:
        yield None if instance.index == before else instance.source_id
        before = instance.index


@dataclass(slots=True)
class _Listed:
    """The images, in order: lines of `images` (the source's id, the number of annotations, the fields). `places` says
    of each where its split is in SIDES.

    Those that are left out have a line and a number, too: an image's id is the same in every COCO format of a run.
    """

    images: IO[bytes]
    image_ids: Ids
    annotation_ids: Ids
    places: array[int] = field(default_factory=lambda: array("b"))
    next_annotation: int = 1

    @property
    def brought(self) -> bool:
        """Whether anything brings an id along."""
        return self.image_ids.brought or self.annotation_ids.brought

    @property
    def next_image(self) -> int:
        return len(self.places) + 1

    def add(self, record: ImageRecord, name: str, place: int, count: int) -> None:
        self.places.append(place)
        self.image_ids.announce(record.source_id)
        if record.candidates:
            self.annotation_ids.announce(*[instance.source_id for instance in record.instances])
        self.images.write(b"%b\t%d\t%b\n" % (_told(record.source_id), count, _image_text(record, name)))
        self.next_annotation += count

    def leave_out(self, record: ImageRecord) -> None:
        self.places.append(_LEFT_OUT)
        self.image_ids.announce(record.source_id)
        self.images.write(b"%b\t0\t\n" % _told(record.source_id))

    def image_rows(self, side: str) -> Iterator[bytes]:
        """Those of many images at a time."""
        rows = (b'{"id":%d,%b' % (id_, body) for id_, _, body, wanted in self._numbered(side) if wanted)
        while together := list(islice(rows, _TOGETHER)):
            yield b",\n".join(together)

    def annotation_rows(self, side: str, waiting: IO[bytes], counts: Counter[str]) -> Iterator[bytes]:
        """The annotations of one image at a time, from the lines of the file of all.

        One without an id of its own is the row as it would be if nothing at all brought an id along; another one is
        its id, its fields, and how these end where it keeps that id and where it does not.
        """
        number = self.annotation_ids.numbers()
        waiting.readline()
        for image_id, count, _, wanted in self._numbered(side):
            rows = []
            for line in islice(waiting, count):
                row = line.rstrip(b",\n")
                if row.startswith(b"{"):
                    *_, rest = row.split(b",", 2)
                    rows.append(b'{"id":%d,"image_id":%d,%b' % (number(None), image_id, rest))
                    continue
                told, fields, same, other = row.split(b"\t")
                own = int(told)
                id_ = number(own)
                more = same if id_ == own else other
                rows.append(b'{"id":%d,"image_id":%d,%b%b}' % (id_, image_id, fields, more))
                counts["id_zero"] += wanted and id_ == 0
            if wanted and rows:
                yield b",\n".join(rows)

    def _numbered(self, side: str) -> Iterator[tuple[int, int, bytes, bool]]:
        """The id of each image, the number of its annotations, its fields, and whether it is listed on that side."""
        number = self.image_ids.numbers()
        self.images.seek(0)
        for line, place in zip(self.images, self.places, strict=True):
            told, count, body = line[:-1].split(b"\t")
            wanted = SIDES.index(side) == place if side else place != _LEFT_OUT
            yield number(int(told) if told else None), int(count), body, wanted


def _told(own_id: int | None) -> bytes:
    return b"" if own_id is None else b"%d" % own_id


_NO_SIDE = -1
_LEFT_OUT = -2
_BUFFER = 1 << 20
_TOGETHER = 200
"""Objects, or images, that are written in one go."""


class _Tally:
    """What the report says, counted while writing."""

    def __init__(self, outlines: Outlines) -> None:
        self.counts: Counter[str] = Counter()
        self.outlines = outlines

    def report(self, files: tuple[str, ...], more: Sequence[str]) -> ExportReport:
        tables = (LISTING_NOTES, POLICY_NOTES, PICTURE_NOTES, OUTLINE_NOTES, _NOTES)
        return reported(files, self.counts, [*noted(self.counts, *tables), *more, *self.outlines.notes()])


def _file(head: bytes, annotations: Iterable[bytes], images: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from json_array(annotations)
    yield b',\n"images":'
    yield from json_array(images)
    yield b"}\n"


def _head(run: RecordReader) -> Iterator[bytes]:
    """The opening of a file up to its annotations."""
    document = unknown_fields(run.document, ("categories", "images", "annotations"), "the data set")
    info = document.pop("info", {"description": "labelled by autolabel"})
    yield b'{"info":%b,\n"licenses":%b,\n' % (json_bytes(info), json_bytes(document.pop("licenses", [])))
    for key, value in document.items():
        yield json_bytes({key: value})[1:-1] + b",\n"
    yield b'"categories":'
    yield from json_array(json_bytes(fields) for fields in category_fields(run))
    yield b',\n"annotations":'


def category_fields(run: RecordReader) -> Iterator[dict[str, Any]]:
    """The objects of COCO's `categories`, with the source's other fields."""
    for category in run.categories:
        more = unknown_fields(category.extra, ("id", "name"), f"class {category.id}")
        yield {"id": category.id, "name": category.name, **more}


def image_fields(record: ImageRecord, name: str) -> dict[str, Any]:
    """The object of COCO's `images` without its id, with the source's other fields."""
    assert record.info is not None, "checked in labelled"
    fields: dict[str, Any] = {"file_name": name, "width": record.info.width, "height": record.info.height}
    if record.split is not None:
        fields["split"] = record.split
    # A `split` of the source that is not text is one of its other fields.
    return fields | unknown_fields(record.extra, ("id", *fields), repr(record.image_id))


def _image_text(record: ImageRecord, name: str) -> bytes:
    """`image_fields` as text, after the opening brace."""
    info = record.info
    if info is not None and record.split is None and not record.extra:  # so it is for bare pictures
        return b'"file_name":%b,"width":%d,"height":%d}' % (json_bytes(name), info.width, info.height)
    return json_bytes(image_fields(record, name))[1:]


def _more(instance: Instance, own_id: int | None, tally: _Tally) -> tuple[bytes, bytes]:
    """The keys that are there when known, each with its comma in front, where the annotation keeps its id and where
    it has a new one; the source's own go before ours."""
    score, iou_ = instance.detector_score, instance.predicted_iou
    if (
        instance.source_id is None
        and not instance.extra
        and math.isfinite(score)
        and iou_ is not None
        and math.isfinite(iou_)
    ):  # so it is for what a model found
        text = b',"score":%a,"predicted_iou":%a' % (round(float(score), 6), round(float(iou_), 6))
        return text, text
    ours: dict[str, object] = {}
    for name, value in (("score", score), ("predicted_iou", iou_)):
        if value is not None and math.isfinite(value):
            ours[name] = round(float(value), 6)
        elif value is not None:
            tally.counts["not_finite"] += 1
    more = unknown_fields(instance.extra, _ANNOTATION, f"an object of class {instance.category_id}")
    other = ours if instance.source_id is None else {**ours, "source_id": instance.source_id}
    same = other if own_id is None else ours
    return _members({**same, **more}), _members({**other, **more})


def _members(fields: Mapping[str, object]) -> bytes:
    return b"," + json_bytes(fields)[1:-1] if fields else b""


def _loaded(directory: Path) -> Iterator[Any]:
    from pycocotools.coco import COCO

    for name in FILES.values():
        if (directory / name).exists():
            with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
                yield COCO(directory / name)


def _as_bytes(counts: str | bytes) -> bytes:
    return counts if isinstance(counts, bytes) else counts.encode()


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)
