"""Parquet for Hugging Face `datasets` and everything else that reads Arrow: one row a picture, its objects in a list.

    image       struct {bytes, path}: the picture itself, upright, or only where it is
    image_id    text; width, height in pixels of the upright picture; split
    objects     list of {index, bbox [x, y, w, h], category, category_id, area, score, predicted_iou, iscrowd,
                source_id, segmentation {size [h, w], counts}, extra}

`counts` is the compressed COCO run-length string, so masks come back pixel by pixel. `category` is the position in
the list of class names that `datasets` finds in the file's metadata, `category_id` the run's own id. Missing numbers
are null. The metadata also holds the run's categories and document (see source/parquet.py). Files are
`data/<split>-<number>.parquet`, by whose names `datasets` tells the splits.

`datasets` decodes pictures with Pillow, and some of its versions leave them as they are stored: so a picture with an
EXIF orientation is embedded as an upright PNG. Needs the extra `parquet`.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from autolabel.core.errors import ImageError
from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import Category, ImageRecord, Instance, Rle
from autolabel.export.atomic import Draft
from autolabel.export.classes import class_number, utf8
from autolabel.export.image_names import apart, utf8_ids
from autolabel.export.listing import LISTING_NOTES, labelled
from autolabel.export.names import utf8_id
from autolabel.export.pictures import PICTURE_NOTES, Pictures, pictured
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import compare
from autolabel.export.reporting import noted, reported
from autolabel.export.splits import SIDES, Side, SplitPlan, Splits
from autolabel.ops.arrow import pyarrow
from autolabel.ops.masks import area_px, bounds_xyxy, mask_of
from autolabel.ops.settings import count, one_of

_NAMES: dict[Side, str] = {"train": "train", "val": "validation", "test": "test"}
_GROUP_BYTES = 32 << 20
"""A row group is written when its pictures are as large as this, or when it has `_GROUP_ROWS`."""
_GROUP_ROWS = 1000
_Naming = Callable[[ImageRecord], str]
_NOTES = {
    "not_utf8": "{} [name is not UTF-8; its|names are not UTF-8; their] stray bytes are written as %XX",
    "not_finite": "{} non-finite [score is|scores are] null",
}


class ParquetExporter:
    """Writes the files; see configs/export/parquet.yaml for the settings. Raises MissingExtra without pyarrow."""

    def __init__(
        self,
        *,
        images: Literal["embed", "path"],
        images_per_file: int,
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["keep", "score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
        val_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: bool,
        group_by: str | None,
    ) -> None:
        one_of("images", images, ("embed", "path"))
        self._pictures = Pictures(mode="upright") if images == "embed" else None
        self._per_file = count("images_per_file", images_per_file, 1)
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)
        self._splits = Splits(
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            stratify=stratify,
            group_by=group_by,
        )
        pyarrow()  # the error comes before the work

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the files into `directory`. The records are read for the splits, for ids and names, and then once for
        each split; no more than a row group is in memory."""
        counts: Counter[str] = Counter()
        plan, schema = self._splits.plan(run), _schema(run)
        ids, files = utf8_ids(run), apart(run, self._file_name)
        counts.update(plan.counts)
        with pictured(directory, run, counts) as draft:
            for side in SIDES:
                self._write_side(run, plan, side, ids, files, schema, draft, counts)
            if not draft.files:  # a reader is to find the columns, also when there is no row
                draft.write(f"data/{_NAMES['train']}-00000.parquet", _file_bytes(iter(()), schema))
        lines = noted(counts, LISTING_NOTES, POLICY_NOTES, PICTURE_NOTES, _NOTES)
        return reported(draft.files, counts, [*lines, *plan.notes()])

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The masks as pycocotools reads `segmentation`, by the row's `image_id` and the object's `index`."""
        places, ids = _places(directory), utf8_ids(run)
        load = functools.lru_cache(maxsize=len(SIDES))(_objects)  # the sides take turns, each in its order

        def read(record: ImageRecord) -> list[tuple[int, Rle]] | None:
            place = places.get(ids(record))
            if place is None:
                return None
            path, group, row = place
            found = load(path, group)["objects"][row].as_py()
            return [(one["index"], _rle(one["segmentation"])) for one in found]

        return compare(run, read, self._policy)

    def _write_side(
        self,
        run: RecordReader,
        plan: SplitPlan,
        side: Side,
        ids: _Naming,
        files: _Naming,
        schema: Any,
        draft: Draft,
        counts: Counter[str],
    ) -> None:
        # What no side has is counted with the first one.
        listed = labelled(run, counts if side == SIDES[0] else None)
        rows = self._rows((r for r in listed if plan.side(r) == side), ids, files, run.categories, counts)
        for number in itertools.count():
            first = next(rows, None)
            if first is None:
                return
            some = itertools.chain([first], itertools.islice(rows, self._per_file - 1))
            draft.write(f"data/{_NAMES[side]}-{number:05}.parquet", _file_bytes(some, schema))

    def _rows(
        self,
        records: Iterator[ImageRecord],
        ids: _Naming,
        files: _Naming,
        categories: Sequence[Category],
        counts: Counter[str],
    ) -> Iterator[dict[str, Any]]:
        positions = {c.id: n for n, c in enumerate(_sorted(categories))}
        for record in records:
            name = ids(record)
            picture = self._picture(record, files(record), counts)
            if picture is None:
                continue
            assert record.info is not None, "checked in labelled"
            counts["images"] += 1
            counts["not_utf8"] += name != record.image_id
            yield {
                "image": picture,
                "image_id": name,
                "width": record.info.width,
                "height": record.info.height,
                "split": _text(record.split),
                "source_id": record.source_id,
                "extra": _text(record.extra),
                "objects": [_object(i, record, positions, counts) for i in prepared(record, self._policy, counts)],
            }

    def _file_name(self, record: ImageRecord) -> str:
        """What `image.path` says, so that it tells what the picture has become."""
        name = utf8_id(record.image_id)
        return f"{name}.png" if self._pictures is not None and self._pictures.converts(record) else name

    def _picture(self, record: ImageRecord, path: str, counts: Counter[str]) -> dict[str, Any] | None:
        """None when it cannot be read any more, or is another one."""
        if self._pictures is None:
            return {"bytes": None, "path": utf8_id(record.path)}
        try:
            return {"bytes": self._pictures.data(record, counts), "path": path}
        except ImageError as error:
            counts["images_changed" if error.code == "changed" else "images_missing"] += 1
        return None


def _schema(run: RecordReader) -> Any:
    pa = pyarrow()
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    segmentation = pa.struct([("size", pa.list_(whole)), ("counts", text)])
    one = pa.struct(
        [
            ("index", whole),
            ("bbox", pa.list_(real)),
            ("category", whole),
            ("category_id", whole),
            ("area", whole),
            ("score", real),
            ("predicted_iou", real),
            ("iscrowd", pa.bool_()),
            ("source_id", whole),
            ("segmentation", segmentation),
            ("extra", text),
        ]
    )
    columns = {
        "image": pa.struct([("bytes", pa.binary()), ("path", text)]),
        "image_id": text,
        "width": whole,
        "height": whole,
        "split": text,
        "source_id": whole,
        "extra": text,
        "objects": pa.list_(one),
    }
    return pa.schema(list(columns.items()), metadata=_metadata(run, columns))


def _metadata(run: RecordReader, columns: dict[str, Any]) -> dict[str, str]:
    """What `datasets` looks for, and what our own reader does."""
    features = {name: _feature(kind) for name, kind in columns.items()}
    features["image"] = {"_type": "Image"}
    features["objects"][0]["category"] = {"names": _unique_names(run.categories), "_type": "ClassLabel"}
    categories = [{"id": c.id, "name": c.name, "extra": c.extra} for c in _sorted(run.categories)]
    ours = {"version": 1, "categories": categories, "document": run.document}
    return {
        "huggingface": json.dumps({"info": {"features": features}}),
        "autolabel": json.dumps(ours, ensure_ascii=True, sort_keys=True),
    }


def _feature(kind: Any) -> Any:
    """An Arrow type as `datasets` spells it; lists in the form that all its versions read."""
    pa = pyarrow()
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def _unique_names(categories: Sequence[Category]) -> list[str]:
    """`datasets` refuses two classes of one name."""
    often = Counter(utf8(c.name) for c in categories)
    return [utf8(c.name) if often[utf8(c.name)] == 1 else f"{utf8(c.name)} ({c.id})" for c in _sorted(categories)]


def _sorted(categories: Sequence[Category]) -> list[Category]:
    return sorted(categories, key=lambda c: c.id)


def _object(
    instance: Instance, record: ImageRecord, positions: dict[int, int], counts: Counter[str]
) -> dict[str, Any]:
    mask = mask_of(instance)
    bounds = bounds_xyxy(mask)
    assert bounds is not None, "prepared objects have pixels"
    x0, y0, x1, y1 = bounds
    counts["instances"] += 1
    return {
        "index": instance.index,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "category": class_number(positions, instance, record),
        "category_id": instance.category_id,
        "area": area_px(mask),
        "score": _finite(instance.detector_score, counts),
        "predicted_iou": _finite(instance.predicted_iou, counts),
        "iscrowd": instance.crowd,
        "source_id": instance.source_id,
        "segmentation": {"size": list(mask.size_hw), "counts": mask.counts.decode("ascii")},
        "extra": _text(instance.extra),
    }


def _text(value: str | None) -> str | None:
    """Null for nothing. Arrow holds UTF-8 alone."""
    return utf8_id(value) if value else None


def _finite(value: float | None, counts: Counter[str]) -> float | None:
    if value is None or math.isfinite(value):
        return value
    counts["not_finite"] += 1
    return None


# --- files -----------------------------------------------------------------------------------------------------


class _Sink(io.RawIOBase):
    """Takes what a writer writes, to be passed on in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        self._position += len(self._pieces[-1])
        return len(self._pieces[-1])

    def tell(self) -> int:
        return self._position

    def taken(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces


def _file_bytes(rows: Iterator[dict[str, Any]], schema: Any) -> Iterator[bytes]:
    """One Parquet file, a row group at a time."""
    pa = pyarrow()
    sink = _Sink()
    with pa.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=len(group))
            yield from sink.taken()
    yield from sink.taken()


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"] or b"")
        if size >= _GROUP_BYTES or len(group) >= _GROUP_ROWS:
            yield group
            group, size = [], 0
    if group:
        yield group


# --- reading back ----------------------------------------------------------------------------------------------


def _places(directory: Path) -> dict[str, tuple[Path, int, int]]:
    """The file, row group and row of each image, by its id."""
    pa = pyarrow()
    places = {}
    for path in sorted((directory / "data").glob("*.parquet")):
        with pa.parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                names = file.read_row_group(group, columns=["image_id"])["image_id"].to_pylist()
                places.update({name: (path, group, row) for row, name in enumerate(names)})
    return places


def _objects(path: Path, group: int) -> Any:
    with pyarrow().parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=["objects"])


def _rle(segmentation: dict[str, Any]) -> Rle:
    height, width = segmentation["size"]
    return Rle((height, width), segmentation["counts"].encode("ascii"))
