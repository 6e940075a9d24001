"""A FiftyOne data set: `metadata.json`, `samples.json`, pictures in `data/`. Masks are exact. Needs no FiftyOne.

    import fiftyone as fo
    dataset = fo.Dataset.from_dir("fiftyone", dataset_type=fo.types.FiftyOneDataset)

Of the two forms that this type has, this is the one without a version (FiftyOneDatasetImporter reads it where
`metadata.json` has no `version`): it holds samples as `Sample.to_dict` gives them and says nothing about FiftyOne's
database, so that every release since 0.8 imports it; the other form is tied to the release that wrote it.

An object is a `Detection`: `bounding_box` [x, y, w, h] in fractions of the picture, and `mask`, the array inside
that box, as `numpy.save` writes it, compressed by zlib, in base64 (fiftyone.core.utils.serialize_numpy_array). FiftyOne
cuts both corners to whole pixels (eta.core.geometry) and stretches the mask to what is between them, so the fractions
are never a hair below theirs.
Attributes of ours are there when known: `category_id`, `predicted_iou`, `iscrowd`, `source_id`, and `source_fields`,
the object's other fields as JSON text. Nothing says how the app turns pictures, so they are written upright.
"""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autolabel.core.errors import ExportError, SettingError
from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, Instance, Rle, UInt8
from autolabel.export.atomic import Draft
from autolabel.export.classes import class_number, utf8
from autolabel.export.image_names import NAME_NOTES, named, picture_path, utf8_ids
from autolabel.export.listing import LISTING_NOTES, labelled
from autolabel.export.names import utf8_id
from autolabel.export.pictures import PICTURE_NOTES, Mode, Pictures, pictured
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import compare
from autolabel.export.reporting import noted, reported
from autolabel.ops.masks import decode_crop, encode_crop, mask_of
from autolabel.ops.storage import is_url

METADATA, SAMPLES = "metadata.json", "samples.json"
_TAKEN = ("id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "media_type")
_OURS = ("image_id", "source_id", "source_fields")
_NOTES = {
    "not_finite": "{} non-finite [score is|scores are] left out",
    "not_utf8": "{} [name is not UTF-8; its|names are not UTF-8; their] stray bytes are written as %XX",
}
_CHUNK = 1 << 20


class FiftyOneExporter:
    """Writes the data set; see configs/export/fiftyone.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Mode,
        label_field: str,
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["keep", "score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
    ) -> None:
        is_name = isinstance(label_field, str) and label_field.isidentifier() and label_field.isascii()
        if not is_name or label_field.startswith("_") or label_field in (*_TAKEN, *_OURS):
            raise SettingError(
                f"label_field must be a name of letters, digits and _ that is not taken, got {label_field!r}"
            )
        self._field = label_field
        self._pictures = Pictures(mode=images)
        self._refers = images == "none"
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the data set into `directory`; memory does not grow with the run. The pictures come first, then
        the samples: what could not be copied is not listed."""
        counts: Counter[str] = Counter()
        with pictured(directory, run, counts) as draft:
            draft.write(METADATA, [_json(self._metadata(run)), b"\n"])
            left_out = self._copy(run, draft, counts)
            draft.write(SAMPLES, self._samples(run, left_out, counts))
        lines = noted(counts, LISTING_NOTES, NAME_NOTES, PICTURE_NOTES, POLICY_NOTES, _NOTES)
        return reported(draft.files, counts, lines)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The masks as FiftyOne deserialises them, put where it draws them; one that it would stretch is not read."""
        aligned = _aligned(run, _read_samples(directory / SAMPLES))

        def read(record: ImageRecord) -> list[tuple[int, Rle]] | None:
            sample = next(sample for image_id, sample in aligned if image_id == record.image_id)
            return None if sample is None else list(self._found(sample))

        return compare(run, read, self._policy)

    def _metadata(self, run: RecordReader) -> dict[str, Any]:
        categories = sorted(run.categories, key=lambda c: c.id)
        info = {
            "classes": [utf8(c.name) for c in categories],
            "categories": [{"id": c.id, "name": utf8(c.name), "source_fields": c.extra} for c in categories],
            "source_fields": run.document,
        }
        return {"media_type": "image", "info": info}

    def _places(self, run: RecordReader, counts: Counter[str]) -> Iterator[tuple[ImageRecord, str]]:
        for record, path in named(run, lambda record: picture_path(record, self._pictures), counts):
            yield record, f"data/{path}"

    def _copy(self, run: RecordReader, draft: Draft, counts: Counter[str]) -> set[str]:
        """The ids of the pictures that could not be written."""
        left_out = set()
        for record, path in self._places(run, counts):
            if not self._pictures.write(record, path, draft, counts):
                left_out.add(record.image_id)
        return left_out

    def _samples(self, run: RecordReader, left_out: set[str], counts: Counter[str]) -> Iterator[bytes]:
        numbers, ids = {c.id: utf8(c.name) for c in run.categories}, utf8_ids(run)
        yield b'{"samples":['
        separator = b"\n"
        for record, path in self._places(run, Counter()):
            if record.image_id not in left_out:
                counts["images"] += 1
                image_id = ids(record)
                counts["not_utf8"] += image_id != record.image_id
                yield separator + _json(self._sample(record, image_id, path, numbers, counts))
                separator = b",\n"
        yield b"\n]}\n"

    def _sample(
        self, record: ImageRecord, image_id: str, path: str, names: dict[int, str], counts: Counter[str]
    ) -> dict[str, Any]:
        assert record.info is not None, "only labelled images are listed"
        found = prepared(record, self._policy, counts)
        counts["instances"] += len(found)
        return {
            "filepath": utf8_id(_where(record)) if self._refers else path,
            "tags": [] if record.split is None else [record.split],
            "metadata": {"_cls": "ImageMetadata", "width": record.info.width, "height": record.info.height},
            "image_id": image_id,
            **_known(source_id=record.source_id, source_fields=record.extra or None),
            self._field: {
                "_cls": "Detections",
                "detections": [_detection(i, class_number(names, i, record), counts) for i in found],
            },
        }

    def _found(self, sample: dict[str, Any]) -> Iterator[tuple[int, Rle]]:
        size_hw = sample["metadata"]["height"], sample["metadata"]["width"]
        for one in sample[self._field]["detections"]:
            crop, (x0, y0, x1, y1) = _array(one["mask"]), _drawn_xyxy(one["bounding_box"], size_hw)
            if crop.shape == (y1 - y0, x1 - x0):
                yield one["index"], encode_crop(crop, x0, y0, size_hw)


def _where(record: ImageRecord) -> str:
    """The picture itself: a full path, or its address."""
    return record.path if is_url(record.path) else str(Path(record.path).absolute())


def _detection(instance: Instance, name: str, counts: Counter[str]) -> dict[str, Any]:
    mask = mask_of(instance)
    crop, x0, y0 = decode_crop(mask)
    (x, w), (y, h) = (
        _span(start, start + length, size)
        for start, length, size in zip((x0, y0), crop.shape[::-1], mask.size_hw[::-1], strict=True)
    )
    scores = {"confidence": instance.detector_score, "predicted_iou": instance.predicted_iou}
    finite = {key: v for key, v in scores.items() if v is not None and math.isfinite(v)}
    counts["not_finite"] += sum(v is not None for v in scores.values()) - len(finite)
    return {
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": name,
        "bounding_box": [x, y, w, h],
        "mask": {"$binary": {"base64": _serialized(crop), "subType": "00"}},
        "index": instance.index,
        **finite,
        "category_id": instance.category_id,
        "iscrowd": instance.crowd,
        **_known(source_id=instance.source_id, source_fields=instance.extra or None),
    }


def _span(start: int, end: int, size: int) -> tuple[float, float]:
    """Where pixels `start` to `end` of `size` begin and how long they are, as fractions that `_drawn_xyxy` takes for
    these very pixels: 3 / 49 * 49 is below 3."""
    first, last = _fraction(start, size), _fraction(end, size)
    length = last - first
    while first + length < last:
        length += math.ulp(last)
    return first, length


def _fraction(pixel: int, size: int) -> float:
    value = pixel / size
    return value if int(size * value) == pixel else math.nextafter(value, math.inf)


def _known(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def _serialized(crop: UInt8) -> str:
    with io.BytesIO() as file:
        np.save(file, crop.astype(bool), allow_pickle=False)
        return base64.b64encode(zlib.compress(file.getvalue())).decode("ascii")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


# --- reading back ----------------------------------------------------------------------------------------------


def _array(mask: dict[str, Any]) -> UInt8:
    """Like fiftyone.core.utils.deserialize_numpy_array."""
    data = zlib.decompress(base64.b64decode(mask["$binary"]["base64"], validate=True))
    found: UInt8 = np.load(io.BytesIO(data), allow_pickle=False).astype(np.uint8)
    return found


def _drawn_xyxy(box_xywh: Sequence[float], size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Like `Detection.to_segmentation`: fiftyone.utils.eta.to_detected_object, then BoundingBox.coords_in."""
    x, y, w, h = box_xywh
    height, width = size_hw
    return int(width * x), int(height * y), int(width * (x + w)), int(height * (y + h))


def _aligned(run: RecordReader, samples: Iterator[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The sample of every labelled image; None where it has none. Both are in the order of the run."""
    ids, sample = utf8_ids(run), next(samples, None)
    for record in labelled(run):
        if sample is not None and sample["image_id"] == ids(record):
            yield record.image_id, sample
            sample = next(samples, None)
        else:
            yield record.image_id, None


def _read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The samples one by one, whatever the line breaks. Raises ExportError for a file that is torn."""
    decode = json.JSONDecoder().raw_decode
    with path.open(encoding="utf-8") as file:
        text = file.read(_CHUNK).partition("[")[2]
        while True:
            text = text.lstrip(" \n\r\t,")
            if text.startswith("]"):
                return
            try:
                sample, end = decode(text)
            except ValueError:
                more = file.read(
                    max(_CHUNK, len(text))
                )  # doubling, so that a long sample is not read again and again
                if not more:
                    raise ExportError(f"{path} ends within a sample") from None
                text += more
                continue
            yield sample
            text = text[end:]
