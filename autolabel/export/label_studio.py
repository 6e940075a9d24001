"""Label Studio: tasks with predictions, ready for import, and the labelling configuration that they need.

A brush holds its object pixel by pixel, holes and parts too. A polygon region is one part; the regions of one object
have its number in `meta`. Addresses of pictures are `image_root` and the picture's path, for a server or a bucket;
without one they are those of the tool's own "Local files" storage. Browsers turn pictures upright. Brushes are long: a
file of all tasks can be too large for the tool to take, so it can be cut (`images_per_file`).

"Local files" serves what is below a folder of LOCAL_FILES_DOCUMENT_ROOT, and nothing that is right in it: so addresses
name the folder of the pictures too, and the document root is the folder around that one.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, Instance, Polygon, Rle
from autolabel.export.atomic import Draft
from autolabel.export.classes import LABEL_NOTES, class_number, label_names
from autolabel.export.image_names import NAME_NOTES, named, picture_path
from autolabel.export.listing import LISTING_NOTES, labelled
from autolabel.export.outlines import OUTLINE_NOTES, Outlines
from autolabel.export.pictures import PICTURE_NOTES, Pictures, pictured
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import InOrder, compare, read_objects
from autolabel.export.reporting import noted, reported
from autolabel.export.scores import scores_of
from autolabel.export.source_fields import fields_of
from autolabel.export.source_polygons import own_polygons
from autolabel.ops.brush import encode_brush
from autolabel.ops.drawn import joined
from autolabel.ops.masks import mask_of
from autolabel.ops.settings import count, one_of, optional, text
from autolabel.ops.storage import is_url
from autolabel.ops.studio_file import read_task, task_url

CONFIG = "label_config.xml"
LOCAL_FILES = "/data/local-files/?d="
_DIGITS = 8
"""Decimals of percentages: a ten-thousandth of a pixel in any picture."""
_REGION = ("id", "from_name", "to_name", "type", "origin", "original_width", "original_height", "image_rotation")
_OWN = frozenset((*_REGION, "value", "score", "meta", "labels", "parts"))


class LabelStudioExporter:
    """Writes the tasks, and the pictures if wanted; see configs/export/label_studio.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["none", "copy", "link", "upright"],
        image_root: str | None,
        shape: Literal["brush", "polygon"],
        simplify_iou: float | None,
        warn_iou: float = 0.98,
        from_name: str,
        to_name: str,
        data_key: str,
        model_version: str,
        images_per_file: int | None,
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["keep", "score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
    ) -> None:
        self._kind = one_of("shape", shape, ("brush", "polygon"))
        self._outlines = Outlines(simplify_iou=simplify_iou, warn_iou=warn_iou)
        self._pictures = Pictures(mode=images)
        self._in_place = images == "none"
        self._root = image_root if image_root == "" else optional(text, "image_root", image_root)
        self._data_key = text("data_key", data_key)
        self._model_version = text("model_version", model_version)
        self._names = {
            "from_name": text("from_name", from_name),
            "to_name": text("to_name", to_name),
        }
        self._images_per_file = optional(count, "images_per_file", images_per_file, 1)
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write into `directory`; memory does not grow with the run but for the names of pictures that are copied."""
        counts: Counter[str] = Counter()
        labels = label_names(run.categories, counts)
        serving = list(self._serving(run, directory))
        with pictured(directory, run, counts) as draft:
            tasks = self._tasks(run, labels, draft, counts)
            for name, some in self._files(tasks):
                draft.write(name, _json_lines(some))
            draft.write(CONFIG, [self._config(labels.values())])
        tables = (LISTING_NOTES, PICTURE_NOTES, POLICY_NOTES, NAME_NOTES, LABEL_NOTES, OUTLINE_NOTES)
        notes = (*noted(counts, *tables), *self._outlines.notes(), *serving)
        return reported(draft.files, counts, notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The tasks read by studio_file.py, written from the format's description; polygons are filled as
        pycocotools does."""

        def tasks() -> Iterator[tuple[str, object]]:
            for file in sorted(directory.glob("tasks*.json")):
                for row in json.loads(file.read_bytes()):
                    yield task_url(row, self._data_key), row

        urls, found = self._addressed(run, Counter()), InOrder(tasks)

        def read(record: ImageRecord) -> Iterator[tuple[int, Rle]] | None:
            assert record.info is not None, "checked in labelled"
            url = next(url for one, _, url in urls if one.image_id == record.image_id)
            row = found.find(url)
            if row is None:
                return None
            shapes = read_task(row, "predictions", self._data_key).shapes
            objects = prepared(record, self._policy, Counter())
            return read_objects(record, joined(shapes, record.info.size_hw), objects)

        return compare(run, read, self._policy, lambda _, instance: self._outlines.why(_as_read(instance)))

    def _addressed(self, run: RecordReader, counts: Counter[str]) -> Iterator[tuple[ImageRecord, str, str]]:
        """Each labelled image, its path in the export, and its address."""
        if self._in_place:
            for record in labelled(run, counts):
                yield record, "", self._address(record)
            return
        for record, path in named(run, lambda one: picture_path(one, self._pictures), counts):
            place = f"images/{str(path).removeprefix('images/')}"
            yield record, place, (LOCAL_FILES if self._root is None else self._root) + quote(place)

    def _serving(self, run: RecordReader, directory: Path) -> Iterator[str]:
        """What the tool must be told, so that it shows the pictures."""
        first = next(labelled(run), None)
        if self._root is not None or first is None or (self._in_place and is_url(first.path)):
            return
        folder, path = _served(first) if self._in_place else (directory.absolute() / "images", "")
        if not folder.name:  # pictures from all over the disk: one such storage for each top folder
            folder /= PurePosixPath(path).parts[0]
        around = f"LOCAL_FILES_SERVING_ENABLED=true LOCAL_FILES_DOCUMENT_ROOT={shlex.quote(str(folder.parent))}"
        yield f'Label Studio shows the pictures with {around}, and a "Local files" storage of {str(folder)!r}'

    def _address(self, record: ImageRecord) -> str:
        """The address of a picture where it is."""
        if self._root is not None:
            return self._root + quote(os.fsencode(record.image_id))
        if is_url(record.path):
            return record.path
        folder, path = _served(record)
        return LOCAL_FILES + quote(os.fsencode(f"{folder.name}/{path}".lstrip("/")))

    def _tasks(
        self, run: RecordReader, labels: Mapping[int, str], draft: Draft, counts: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        for record, path, url in self._addressed(run, counts):
            if self._pictures.write(record, path, draft, counts):
                counts["images"] += 1
                yield self._task(record, url, labels, counts)

    def _files(self, tasks: Iterator[dict[str, Any]]) -> Iterator[tuple[str, Iterable[dict[str, Any]]]]:
        """Each file's name and its tasks, made while it is written."""
        if self._images_per_file is None:
            yield "tasks.json", tasks
            return
        for number in itertools.count(1):
            first = next(tasks, None)
            if first is None and number > 1:
                return
            rest = itertools.islice(tasks, self._images_per_file - 1)
            yield f"tasks_{number:06d}.json", rest if first is None else itertools.chain([first], rest)

    def _task(
        self, record: ImageRecord, url: str, labels: Mapping[int, str], counts: Counter[str]
    ) -> dict[str, Any]:
        objects = prepared(record, self._policy, counts)
        counts["instances"] += len(objects)
        regions = [
            region
            for number, instance in enumerate(objects)
            for region in self._regions(instance, number, class_number(labels, instance, record), counts)
        ]
        scores = [score for one in objects if (score := scores_of(one).get("score")) is not None]
        mean = {"score": round(math.fsum(scores) / len(scores), 6)} if scores else {}
        data = fields_of(record.extra).get("data")
        other = dict(data) if isinstance(data, dict) else {}
        split = {} if record.split is None else {"split": record.split}
        return {
            "data": {**other, **split, self._data_key: url},
            "predictions": [{"model_version": self._model_version, **mean, "result": regions}],
        }

    def _regions(
        self, instance: Instance, number: int, label: str, counts: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        """One brush, or one polygon a part."""
        height, width = mask_of(instance).size_hw
        values = list(self._values(instance, counts))
        extra, scores = fields_of(instance.extra), scores_of(instance)
        stated = extra.get("meta")
        own = dict(stated) if isinstance(stated, dict) else {}
        # A number joined parts in the source, and could be that of another object here.
        if isinstance(own.get("object"), int):
            del own["object"]
        meta = {
            **own,
            **({"iscrowd": True} if instance.crowd else {}),
            **({"object": number} if len(values) > 1 else {}),
        }
        kind = f"{self._kind}labels"
        for part, value in enumerate(values):
            yield {
                "id": f"object{number}" if len(values) == 1 else f"object{number}part{part}",
                **self._names,
                "type": kind,
                "origin": "prediction" if instance.origin == "model" else "manual",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {**value, kind: [label]},
                **scores,
                **({"meta": meta} if meta else {}),
                **{key: field for key, field in extra.items() if key not in _OWN},
            }

    def _values(self, instance: Instance, counts: Counter[str]) -> Iterator[dict[str, Any]]:
        mask = mask_of(instance)
        if self._kind == "brush":
            yield {"format": "rle", "rle": list(encode_brush(mask))}
            return
        for ring in self._outlines.of(_as_read(instance), counts):
            yield {"points": _percentages(ring, mask.size_hw), "closed": True}

    def _config(self, labels: Iterable[str]) -> bytes:
        """The labelling interface: paste it into the project's settings."""
        view = Element("View")
        SubElement(view, "Image", name=self._names["to_name"], value=f"${self._data_key}", zoom="true")
        tag = "BrushLabels" if self._kind == "brush" else "PolygonLabels"
        tools = SubElement(view, tag, name=self._names["from_name"], toName=self._names["to_name"])
        for label in labels:
            SubElement(tools, "Label", value=label)
        indent(view)
        return tostring(view, encoding="utf-8") + b"\n"


def _percentages(ring: Polygon, size_hw: tuple[int, int]) -> list[list[float]]:
    height, width = size_hw
    pairs = zip(ring[0::2], ring[1::2], strict=True)
    return [[round(100 * x / width, _DIGITS), round(100 * y / height, _DIGITS)] for x, y in pairs]


def _as_read(instance: Instance) -> Instance:
    """With the source's polygons as they come back from percentages: a point between two pixels can go to the other."""
    polygons = own_polygons(instance)
    if polygons is None:
        return instance
    height, width = mask_of(instance).size_hw
    rings = (_percentages(ring, (height, width)) for ring in polygons)
    read = (tuple(v for x, y in ring for v in (x * width / 100, y * height / 100)) for ring in rings)
    return replace(instance, polygons=tuple(read))


def _served(record: ImageRecord) -> tuple[Path, str]:
    """The folder that the picture's id is relative to, and the id; where the path does not end with the id, the
    picture's own folder and name."""
    path = Path(record.path).absolute()
    names = PurePosixPath(record.image_id).parts
    within = len(names) if path.parts[-len(names) :] == names else 1
    return path.parents[within - 1], "/".join(path.parts[-within:])


def _json_lines(tasks: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """A JSON list, one task a line."""
    separator = b"[\n"
    for task in tasks:
        yield separator + json.dumps(task, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode(
            "ascii"
        )
        separator = b",\n"
    yield b"[]\n" if separator == b"[\n" else b"\n]\n"
