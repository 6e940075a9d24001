"""Records to bytes and back, versioned. zstd of three things in a row: a line of JSON; a row of numbers (`_ROW`) for
each candidate; the run-length strings of the masks, those of the candidates before those of the verdicts.

What is usual costs nothing in the line, and a mask is a slice, so that millions of records are read in minutes. The
picture's path and id live in the manifest, not here, so that a moved data set keeps its records byte for byte.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import struct
import threading
from collections.abc import Callable, Iterator
from itertools import compress
from typing import Any, TypeVar

import zstandard

from autolabel.core.errors import StoreCorrupt
from autolabel.core.types import Columns, ImageInfo, ImageRecord, Instance, Rle, Verdict
from autolabel.ops.masks import begin_with_pixels

T = TypeVar("T")

VERSION = 3
MAX_BLOB_BYTES = 1 << 30
"""A record that unpacks to more than this is an attack or damage, not a picture."""

_ROW = struct.Struct("<q 4d d 4d B i")
"""The row of a candidate: class, box, detector score, the four scores of `_SCORES`, which of them there are (a bit
each), and the length of its mask's string (-1 without one)."""
_COLUMNS = struct.Struct("<q 32x d d 24x B i")
"""The part of the same row that `Columns` say, and the length."""
_SCORES = ("predicted_iou", "object_score", "stability", "agreement")
_RARE = {
    one.name: one.default
    for one in dataclasses.fields(Instance)
    if one.name in ("origin", "polygons", "source_id", "crowd", "extra", "replaced_iou", "quality")
}
"""Fields of a candidate that stand in the line, where they are not these."""
_KEPT = Verdict()
_TO_JSON = json.JSONEncoder(separators=(",", ":")).encode
_FROM_JSON = json.JSONDecoder().decode


def _opened(kind: type) -> Any:
    """The same class, not frozen. A frozen one is filled through `object.__setattr__`, field by field, which is most
    of what reading a record costs; one of these is filled directly and frozen afterwards."""
    fields = [(one.name, one.type, one) for one in map(copy.copy, dataclasses.fields(kind))]
    return dataclasses.make_dataclass(f"Open{kind.__name__}", fields, slots=True)


def _frozen(kind: type[T], opened: Any) -> T:
    """The object as one of the frozen class, which has the same slots."""
    opened.__class__ = kind
    return opened


_OpenInstance, _OpenRle, _OpenInfo, _OpenRecord = map(_opened, (Instance, Rle, ImageInfo, ImageRecord))


class _Zstd(threading.local):
    """Making a context costs more than a record does, and one serves one thread."""

    def __init__(self) -> None:
        self.pack = zstandard.ZstdCompressor(level=3).compress
        self.unpack = zstandard.ZstdDecompressor().decompress


_ZSTD = _Zstd()


def encode_record(record: ImageRecord) -> bytes:
    masks = [c.mask for c in record.candidates] + [v.mask for v in record.verdicts]
    size_hw = None if record.info is None else record.info.size_hw
    line = [
        VERSION,
        record.status,
        record.code,
        record.detail,
        record.split,
        record.source_id,
        record.extra,
        None if record.info is None else _info_out(record.info),
        len(record.candidates),
        [[i, rare] for i, candidate in enumerate(record.candidates) if (rare := _rare(candidate))],
        [[i, v.reason, _length(v.mask), v.quality] for i, v in enumerate(record.verdicts) if v != _KEPT],
        [[i, *mask.size_hw] for i, mask in enumerate(masks) if mask is not None and mask.size_hw != size_hw],
    ]
    pieces = [_TO_JSON(line).encode("ascii"), b"\n", *map(_row_out, record.candidates)]
    return bytes(_ZSTD.pack(b"".join(pieces + [mask.counts for mask in masks if mask is not None])))


def decode_record(blob: bytes, image_id: str, path: str) -> ImageRecord:
    """Raises StoreCorrupt when the bytes are not a record of a version we know."""
    return _decoded(_record_in, blob, image_id, path)


def decode_columns(blob: bytes, image_id: str, path: str) -> tuple[ImageRecord, Columns | None]:
    """Like `decode_record`, with the kept objects in columns where these say all of them. Raises StoreCorrupt."""
    return _decoded(_columns_in, blob, image_id, path)


def _decoded(read: Callable[[list[Any], bytes, str, str], T], blob: bytes, image_id: str, path: str) -> T:
    try:
        text, _, rest = _unpacked(blob).partition(b"\n")
        line = _FROM_JSON(text.decode())
        version = line["v"] if isinstance(line, dict) else line[0]
        if version != VERSION:
            raise StoreCorrupt(f"record of {image_id!r} has version {version!r}, this program reads {VERSION}")
        return read(line, rest, image_id, path)
    except (zstandard.ZstdError, struct.error, LookupError, RecursionError, TypeError, ValueError) as error:
        raise StoreCorrupt(f"record of {image_id!r} cannot be read: {error}") from error


def _unpacked(blob: bytes) -> bytes:
    # A frame says how much it holds, and that much memory is taken before a byte of it is read.
    size = zstandard.frame_content_size(blob)
    if not 0 <= size <= MAX_BLOB_BYTES:
        raise ValueError(f"it says that it unpacks to {size} bytes")
    return bytes(_ZSTD.unpack(blob))


def _record_in(line: list[Any], rest: bytes, image_id: str, path: str) -> ImageRecord:
    _, status, code, detail, split, source_id, extra, told_info, count, rare, told, sizes = line
    info = None if told_info is None else _info_in(*told_info)
    rows, strings = rest[: count * _ROW.size], rest[count * _ROW.size :]
    masks = _Masks(strings, None if info is None else info.size_hw, {i: (h, w) for i, h, w in sizes})
    candidates = tuple(_candidates_in(rows, masks, dict(rare)))
    if len(candidates) != count:
        raise ValueError("it does not hold as many candidates as it says")
    verdicts = _verdicts_in(count, masks, told)
    if masks.at != len(strings):
        raise ValueError("its masks are not as long as it says")
    return ImageRecord(
        image_id, path, status, info, code, detail, split, candidates, verdicts, source_id, extra
    )  # fmt: skip


def _columns_in(line: list[Any], rest: bytes, image_id: str, path: str) -> tuple[ImageRecord, Columns | None]:
    _, status, code, detail, split, source_id, extra, told_info, count, rare, told, sizes = line
    at = count * _ROW.size
    if rare or sizes or told_info is None or not 0 < at <= len(rest):
        return _record_in(line, rest, image_id, path), None
    category_ids, scores, ious, known, lengths = zip(*_COLUMNS.iter_unpack(rest[:at]), strict=True)
    counts, kept = [], [True] * count
    for length in lengths:
        counts.append(rest[at : at + length])
        at += length
    for i, reason, length, _ in told:
        kept[i] = reason is None
        if length >= 0:
            counts[i] = rest[at : at + length]
            at += length
    if not any(kept):  # who reads it may ask why
        return _record_in(line, rest, image_id, path), None
    found_ious = [iou if bits & 1 else None for iou, bits in zip(ious, known, strict=True)]
    found = (category_ids, scores, found_ious, counts)
    columns = Columns(*(found if all(kept) else (list(compress(column, kept)) for column in found)))
    sound = min(lengths) >= 0 and columns.is_sound and begin_with_pixels(columns.counts)
    if at != len(rest) or not sound:
        return _record_in(line, rest, image_id, path), None
    record = _OpenRecord(
        image_id, path, status, _info_in(*told_info), code, detail, split, source_id=source_id, extra=extra
    )
    return _frozen(ImageRecord, record), columns


class _Masks:
    """Cuts the masks out of the strings, in the order in which they were written. Of some, by their place among all
    candidates and verdicts, the size is told; the others have the picture's."""

    __slots__ = ("_sizes_hw", "_strings", "_usual_hw", "at")

    def __init__(
        self, strings: bytes, usual_hw: tuple[int, int] | None, sizes_hw: dict[int, tuple[int, int]]
    ) -> None:
        self._strings, self._usual_hw, self._sizes_hw, self.at = strings, usual_hw, sizes_hw, 0

    def cut(self, place: int, length: int) -> Rle | None:
        if length < 0:
            return None
        start = self.at
        self.at = end = start + length
        size_hw = self._sizes_hw.get(place, self._usual_hw) if self._sizes_hw else self._usual_hw
        if size_hw is None:
            raise ValueError("a mask has no size")
        return _frozen(Rle, _OpenRle(size_hw, self._strings[start:end]))


def _info_out(info: ImageInfo) -> list[Any]:
    return [info.width, info.height, info.orientation, info.sha256, info.notes]


def _info_in(width: int, height: int, orientation: int, sha256: str, notes: list[str]) -> ImageInfo:
    return _frozen(ImageInfo, _OpenInfo(width, height, orientation, sha256, tuple(notes)))


def _length(mask: Rle | None) -> int:
    return -1 if mask is None else len(mask.counts)


def _row_out(candidate: Instance) -> bytes:
    scores = [getattr(candidate, name) for name in _SCORES]
    known = sum(1 << i for i, score in enumerate(scores) if score is not None)
    return _ROW.pack(
        candidate.category_id,
        *candidate.box_xyxy,
        candidate.detector_score,
        *(0.0 if score is None else score for score in scores),
        known,
        _length(candidate.mask),
    )


def _rare(candidate: Instance) -> dict[str, Any]:
    return {name: value for name, usual in _RARE.items() if (value := getattr(candidate, name)) != usual}


def _candidates_in(rows: bytes, masks: _Masks, rare: dict[int, dict[str, Any]]) -> Iterator[Instance]:
    for i, row in enumerate(_ROW.iter_unpack(rows)):
        category_id, x0, y0, x1, y1, score, iou, object_score, stability, agreement, known, length = row
        more = _rare_in(rare[i]) if i in rare else {}
        open_instance = _OpenInstance(
            i,
            category_id,
            (x0, y0, x1, y1),
            score,
            masks.cut(i, length),
            iou if known & 1 else None,
            object_score if known & 2 else None,
            stability if known & 4 else None,
            agreement if known & 8 else None,
            **more,
        )
        yield _frozen(Instance, open_instance)


def _rare_in(told: dict[str, Any]) -> dict[str, Any]:
    polygons = told.get("polygons")
    return told if polygons is None else {**told, "polygons": tuple(tuple(polygon) for polygon in polygons)}


def _verdicts_in(count: int, masks: _Masks, told: list[Any]) -> tuple[Verdict, ...]:
    verdicts = [_KEPT] * count
    for i, reason, length, quality in told:
        verdicts[i] = Verdict(reason, masks.cut(count + i, length), quality)
    return tuple(verdicts)
