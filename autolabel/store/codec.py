"""Records to bytes and back: one zstd-compressed JSON object a record, versioned.

The picture's path and id live in the manifest, not here, so that a moved data set keeps its records byte for byte.
"""

from __future__ import annotations

import json
from typing import Any

import zstandard

from autolabel.core.errors import StoreCorrupt
from autolabel.core.types import ImageInfo, ImageRecord, Instance, Rle, Verdict

VERSION = 2
MAX_BLOB_BYTES = 1 << 30
"""A record that unpacks to more than this is an attack or damage, not a picture."""


def encode_record(record: ImageRecord) -> bytes:
    document = {
        "v": VERSION,
        "status": record.status,
        "code": record.code,
        "detail": record.detail,
        "split": record.split,
        "source": record.source_id,
        "extra": record.extra,
        "info": None if record.info is None else _info_out(record.info),
        "candidates": [_instance_out(c) for c in record.candidates],
        "verdicts": [_verdict_out(v) for v in record.verdicts],
    }
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return zstandard.ZstdCompressor(level=3).compress(text.encode("ascii"))


def decode_record(blob: bytes, image_id: str, path: str) -> ImageRecord:
    """Raises StoreCorrupt when the bytes are not a record of a version we know."""
    try:
        text = zstandard.ZstdDecompressor().decompress(blob, max_output_size=MAX_BLOB_BYTES)
        document = json.loads(text)
        if document["v"] != VERSION:
            raise StoreCorrupt(
                f"record of {image_id!r} has version {document['v']!r}, this program reads {VERSION}"
            )
        return _record_in(document, image_id, path)
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, IndexError) as error:
        raise StoreCorrupt(f"record of {image_id!r} cannot be read: {error}") from error


def _record_in(document: dict[str, Any], image_id: str, path: str) -> ImageRecord:
    return ImageRecord(
        image_id=image_id,
        path=path,
        status=document["status"],
        info=None if document["info"] is None else _info_in(document["info"]),
        code=document["code"],
        detail=document["detail"],
        split=document["split"],
        source_id=document["source"],
        extra=document["extra"],
        candidates=tuple(_instance_in(i, c) for i, c in enumerate(document["candidates"])),
        verdicts=tuple(
            Verdict(reason, None if mask is None else _rle_in(mask), quality)
            for reason, mask, quality in document["verdicts"]
        ),
    )


def _verdict_out(verdict: Verdict) -> list[Any]:
    return [verdict.reason, None if verdict.mask is None else _rle_out(verdict.mask), verdict.quality]


def _info_out(info: ImageInfo) -> list[Any]:
    return [info.width, info.height, info.orientation, info.sha256, list(info.notes)]


def _info_in(row: list[Any]) -> ImageInfo:
    width, height, orientation, sha256, notes = row
    return ImageInfo(width, height, orientation, sha256, tuple(notes))


def _rle_out(rle: Rle) -> list[Any]:
    return [rle.size_hw[0], rle.size_hw[1], rle.counts.decode("ascii")]


def _rle_in(row: list[Any]) -> Rle:
    height, width, counts = row
    return Rle((height, width), counts.encode("ascii"))


def _instance_out(instance: Instance) -> dict[str, Any]:
    row: dict[str, Any] = {
        "category": instance.category_id,
        "box": list(instance.box_xyxy),
        "score": instance.detector_score,
        "mask": None if instance.mask is None else _rle_out(instance.mask),
        "iou": instance.predicted_iou,
        "object": instance.object_score,
        "stability": instance.stability,
        "agreement": instance.agreement,
        "origin": instance.origin,
        "polygons": None if instance.polygons is None else [list(p) for p in instance.polygons],
        "source": instance.source_id,
        "crowd": instance.crowd,
        "extra": instance.extra,
        "replaced": instance.replaced_iou,
    }
    return row


def _instance_in(index: int, row: dict[str, Any]) -> Instance:
    x0, y0, x1, y1 = row["box"]
    return Instance(
        index=index,
        category_id=row["category"],
        box_xyxy=(x0, y0, x1, y1),
        detector_score=row["score"],
        mask=None if row["mask"] is None else _rle_in(row["mask"]),
        predicted_iou=row["iou"],
        object_score=row["object"],
        stability=row["stability"],
        agreement=row["agreement"],
        origin=row["origin"],
        polygons=None if row["polygons"] is None else tuple(tuple(p) for p in row["polygons"]),
        source_id=row["source"],
        crowd=row["crowd"],
        extra=row["extra"],
        replaced_iou=row["replaced"],
    )
