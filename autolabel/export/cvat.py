"""CVAT for images 1.1: one `annotations.xml` with a mask an object, streamed, and `labels.json` for a new task.

A mask holds its object pixel by pixel, holes and parts too. CVAT finds a picture by its name, so a task must be made
from the same tree of pictures; with `images: none` the names are the image ids. CVAT turns pictures upright by
itself. Smaller objects lie over larger ones, so that they can be clicked. Scores and plain fields of the source are
attributes; CVAT keeps those that the task's labels have, and labels.json has them all ("Raw" in the label
constructor).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, SubElement, tostring
from xml.sax.saxutils import escape, quoteattr

from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import Category, ImageRecord, Instance, Rle
from autolabel.export.atomic import Draft
from autolabel.export.classes import LABEL_NOTES, class_number, label_names
from autolabel.export.image_names import NAME_NOTES, named, picture_path
from autolabel.export.listing import LISTING_NOTES, labelled
from autolabel.export.pictures import PICTURE_NOTES, Pictures, pictured
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import InOrder, compare, read_objects
from autolabel.export.reporting import noted, reported
from autolabel.export.scores import scores_of
from autolabel.export.source_fields import fields_of
from autolabel.ops.cvat_file import CvatImage, read_cvat
from autolabel.ops.drawn import Drawn
from autolabel.ops.masks import area_px, decode_crop, mask_of
from autolabel.ops.row_rle import crop_runs
from autolabel.ops.xml_json import add_json, xml_text

FILE = "annotations.xml"
LABELS = "labels.json"
_ATTRIBUTES = ("score", "predicted_iou", "iscrowd")
_SHAPE_FIELDS = ("source", "occluded", "attributes", "z_order", "group_id")
_TYPES = ("any", "mask")
_PLAIN = (str, int, float)  # bool is an int

_NOTES = {
    "fields_left_out": "{} [field of the source has|fields of the source have] no place in the format and [is|are] left out",
    "renamed_images": "{} image [name holds|names hold] characters that XML cannot; they are written as %XX",
}


@dataclass(slots=True)
class _Seen:
    """Findings of the first reading: how many images are there, which are not, and each class's attributes."""

    images: int = 0
    left_out: set[str] = field(default_factory=set)
    attributes: dict[int, set[str]] = field(default_factory=dict)


class CvatExporter:
    """Writes the XML, and the pictures if wanted; see configs/export/cvat.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["none", "copy", "link", "upright"],
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["keep", "score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
    ) -> None:
        self._pictures = Pictures(mode=images)
        self._in_place = images == "none"
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write into `directory`; memory does not grow with the run but for the names of pictures that are copied."""
        counts: Counter[str] = Counter()
        labels = label_names(run.categories, counts)
        with pictured(directory, run, counts) as draft:
            seen = self._write_pictures(run, draft, counts)
            draft.write(FILE, self._file(run, labels, seen, counts))
            draft.write(LABELS, [_constructor(run.categories, labels, seen.attributes)])
        tables = (LISTING_NOTES, PICTURE_NOTES, POLICY_NOTES, NAME_NOTES, LABEL_NOTES, _NOTES)
        return reported(draft.files, counts, noted(counts, *tables))

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The XML read by cvat_file.py, written from the format's description."""

        def images() -> Iterator[tuple[str, tuple[Drawn, ...]]]:
            with (directory / FILE).open("rb") as stream:
                for item in read_cvat(stream):
                    if isinstance(item, CvatImage):
                        yield item.name, item.shapes

        names, found = self._named(run, Counter()), InOrder(images)

        def read(record: ImageRecord) -> Iterator[tuple[int, Rle]] | None:
            name = next(name for one, name in names if one.image_id == record.image_id)
            shapes = found.find(name)
            objects = prepared(record, self._policy, Counter())
            return None if shapes is None else read_objects(record, shapes, objects)

        return compare(run, read, self._policy)

    def _named(self, run: RecordReader, counts: Counter[str]) -> Iterator[tuple[ImageRecord, str]]:
        """Each labelled image and its name in the file."""
        if not self._in_place:
            yield from ((record, str(path)) for record, path in named(run, self._path, counts))
            return
        for record in labelled(run, counts):
            name = xml_text(record.image_id)
            counts["renamed_images"] += name != record.image_id
            yield record, name

    def _path(self, record: ImageRecord) -> str:
        """Below images/. An id that comes from such a folder does not get a second one."""
        return picture_path(record, self._pictures).removeprefix("images/")

    def _write_pictures(self, run: RecordReader, draft: Draft, counts: Counter[str]) -> _Seen:
        seen = _Seen()
        for record, name in self._named(run, counts):
            for instance in record.instances:
                seen.attributes.setdefault(instance.category_id, set()).update(_plain_fields(instance))
            if self._pictures.write(record, f"images/{name}", draft, counts):
                seen.images += 1
            else:
                seen.left_out.add(record.image_id)
        return seen

    def _file(
        self, run: RecordReader, labels: Mapping[int, str], seen: _Seen, counts: Counter[str]
    ) -> Iterator[bytes]:
        yield b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task>'
        yield f"<name>autolabel</name><size>{seen.images}</size><mode>annotation</mode>\n<labels>\n".encode()
        for category in run.categories:
            yield tostring(_label(category, labels[category.id], seen.attributes), encoding="utf-8") + b"\n"
        yield b"</labels></task></meta>\n"
        for record, name in self._named(run, Counter()):
            if record.image_id not in seen.left_out:
                yield self._image(record, name, counts["images"], labels, counts).encode()
                counts["images"] += 1
        yield b"</annotations>\n"

    def _image(
        self, record: ImageRecord, name: str, number: int, labels: Mapping[int, str], counts: Counter[str]
    ) -> str:
        assert record.info is not None, "checked in labelled"
        objects = prepared(record, self._policy, counts)
        counts["instances"] += len(objects)
        subset = {} if record.split is None else {"subset": record.split}
        head = {"id": number, "name": name, **subset, "width": record.info.width, "height": record.info.height}
        order = _z_order(objects)
        masks = [
            _mask(one, z, class_number(labels, one, record), counts) for one, z in zip(objects, order, strict=True)
        ]
        return f"<image {_attributes(head)}>\n{''.join(masks)}</image>\n"


def _mask(instance: Instance, z_order: int, label: str, counts: Counter[str]) -> str:
    crop, x0, y0 = decode_crop(mask_of(instance))
    height, width = crop.shape
    extra = fields_of(instance.extra)
    values = _plain_fields(instance)
    counts["fields_left_out"] += len(set(extra) - {*_SHAPE_FIELDS, *values})
    origin = "auto" if instance.origin == "model" else "manual"
    head = {
        "label": label,
        "source": extra.get("source", origin) if isinstance(extra.get("source"), str) else origin,
        "occluded": int(str(extra.get("occluded")) in ("1", "True")),
        "rle": ",".join(map(str, crop_runs(crop).tolist())),
        "left": x0,
        "top": y0,
        "width": width,
        "height": height,
        "z_order": z_order,
    }
    crowd = {"iscrowd": "true"} if instance.crowd else {}
    words = {**values, **_words(scores_of(instance)), **crowd}
    lines = "".join(
        f"<attribute {_attributes({'name': key})}>{escape(xml_text(word))}</attribute>\n"
        for key, word in words.items()
    )
    return f"<mask {_attributes(head)}>\n{lines}</mask>\n"


def _plain_fields(instance: Instance) -> dict[str, str]:
    """The source's attributes, and its other fields of one word or number."""
    extra = fields_of(instance.extra)
    attributes = extra.get("attributes")
    plain = {key: value for key, value in extra.items() if key not in _SHAPE_FIELDS and isinstance(value, _PLAIN)}
    return {
        key: _word(value)
        for key, value in {**plain, **(attributes if isinstance(attributes, dict) else {})}.items()
    }


def _attributes(values: Mapping[str, object]) -> str:
    return " ".join(f"{key}={quoteattr(xml_text(str(value)))}" for key, value in values.items())


def _words(scores: Mapping[str, float]) -> dict[str, str]:
    return {key: f"{value:g}" for key, value in scores.items()}


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _z_order(objects: Sequence[Instance]) -> list[int]:
    """The largest is lowest."""
    areas = [area_px(mask_of(instance)) for instance in objects]
    ranked = sorted(range(len(objects)), key=lambda i: (-areas[i], i))
    return [rank for _, rank in sorted((i, rank) for rank, i in enumerate(ranked))]


def _label(category: Category, name: str, attributes: Mapping[int, set[str]]) -> Element:
    """The label's own colour and attributes where the source was CVAT, and ours."""
    element = Element("label")
    SubElement(element, "name").text = name
    for key, value in _own_label(category).items():
        if key != "attributes":
            add_json(element, key, value)
    holder = SubElement(element, "attributes")
    for attribute in _label_attributes(category, attributes):
        add_json(holder, "attribute", attribute)
    return element


def _own_label(category: Category) -> dict[str, Any]:
    """Masks must be allowed, whatever the label was for."""
    extra = fields_of(category.extra)
    color = extra.get("color")
    kind = extra.get("type") if extra.get("type") in _TYPES else "any"
    return {**({"color": color} if isinstance(color, str) else {}), "type": kind}


def _label_attributes(category: Category, attributes: Mapping[int, set[str]]) -> list[dict[str, str]]:
    """The attributes as in the XML: the values of a choice are lines."""
    stated = fields_of(category.extra).get("attributes")
    rows = stated.get("attribute", []) if isinstance(stated, dict) else []
    own = [
        row for row in (rows if isinstance(rows, list) else [rows]) if isinstance(row, dict) and row.get("name")
    ]
    known = {row["name"] for row in own}
    ours = [
        {"name": name, "mutable": "False", "input_type": "text", "default_value": "", "values": ""}
        for name in [*sorted(attributes.get(category.id, set()) - set(_ATTRIBUTES)), *_ATTRIBUTES]
        if name not in known
    ]
    return own + ours


def _constructor(
    categories: Sequence[Category], labels: Mapping[int, str], attributes: Mapping[int, set[str]]
) -> bytes:
    """The text that CVAT's label constructor takes as "Raw"."""
    rows = [
        {
            "name": labels[category.id],
            **_own_label(category),
            "attributes": [
                {
                    **attribute,
                    "mutable": str(attribute.get("mutable")) == "True",
                    "values": str(attribute.get("values", "")).split("\n"),
                }
                for attribute in _label_attributes(category, attributes)
            ],
        }
        for category in categories
    ]
    return json.dumps(rows, indent=1).encode("ascii")
