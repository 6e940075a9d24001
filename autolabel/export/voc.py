"""Pascal VOC: a devkit year with boxes in XML and masks in PNGs.

    JPEGImages/               the pictures, as their image ids say
    Annotations/*.xml         boxes, 1-based and inclusive; every object, also one that others cover
    SegmentationClass/*.png   class numbers in the colours of VOC, 0 background, 255 void
    SegmentationObject/*.png  object k is the k-th of the XML
    ImageSets/Main/*.txt, ImageSets/Segmentation/*.txt, labelmap.txt

Readers of VOC do not rotate pictures and split lines of the lists at white space: pictures are written upright
by default, and a space in a name is written as %20. An image with more than 254 objects has no
SegmentationObject and is in none of the Segmentation lists: numbers never wrap.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from autolabel.core.errors import ExportError
from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import Category, ImageRecord, Instance, Rle, UInt8
from autolabel.export.atomic import Draft
from autolabel.export.classes import class_number, label_names
from autolabel.export.image_names import NAME_NOTES, named, picture_path, place_of
from autolabel.export.listing import LISTING_NOTES
from autolabel.export.names import with_suffix
from autolabel.export.painting import VOID_NOTES, paint, painting_of, regions, visible
from autolabel.export.pictures import PICTURE_NOTES, pictured
from autolabel.export.policy import POLICY_NOTES, prepared
from autolabel.export.reading import NOT_AS_WRITTEN, compare
from autolabel.export.reporting import noted, reported
from autolabel.export.source_fields import unknown_fields
from autolabel.export.splits import SIDES, Splits
from autolabel.ops.index_png import Ids, encode_index_png, voc_palette
from autolabel.ops.masks import bounds_xyxy, mask_of
from autolabel.ops.settings import one_of
from autolabel.ops.xml_json import Json, add_json

_VOID = 255
_MOST = 254
_FLAGS = {"pose": "Unspecified", "truncated": 0, "occluded": 0, "difficult": 0}

VOC_NOTES: dict[str, str] = {
    "too_many_objects": "{} [image has more than 254 objects; it has no SegmentationObject and is|images have more than 254 objects; they have no SegmentationObject and are] not in "
    "ImageSets/Segmentation",
    "not_jpg": "{} [picture is|pictures are] not .jpg, the only suffix that torchvision's readers look for",
    "names_changed": "{} class [name holds characters that XML cannot, or is there twice; it is|names hold characters that XML cannot, or are there twice; they are] changed",
    "labelmap_names_changed": "{} class [name holds|names hold] characters that labelmap.txt cannot; there they are %XX",
    "fields_left_out": "{} [field of the source has a name that XML cannot hold, or holds|fields of the source have names that XML cannot hold, or hold] an `object` that readers would take "
    "for one of the picture; [it is|they are] left out",
}


class VocExporter:
    """Writes the devkit; see configs/export/voc.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["copy", "link", "upright"],
        box: Literal["mask", "prompt"],
        void_border_px: int,
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest"],
        overlaps: Literal["score", "smallest"],
        min_area_px: int,
        crowd: Literal["void", "keep", "drop"],
        val_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: bool,
        group_by: str | None,
    ) -> None:
        self._from_prompt = one_of("box", box, ("mask", "prompt")) == "prompt"
        self._painting = painting_of(
            images=images,
            holes=holes,
            parts=parts,
            overlaps=overlaps,
            min_area_px=min_area_px,
            crowd=crowd,
            void="void",
            border_px=void_border_px,
        )
        self._splits = Splits(
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            stratify=stratify,
            group_by=group_by,
        )

    def check_classes(self, categories: Sequence[Category]) -> None:
        """Raises ExportError for more than the PNGs have numbers for."""
        if len(categories) > _MOST:
            raise ExportError(
                f"VOC numbers hold {_MOST} classes, the run has {len(categories)}; export coco instead"
            )

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the devkit into `directory`. The records are read three times: splits, names, annotations."""
        self.check_classes(run.categories)
        counts: Counter[str] = Counter()
        classes = _Classes(run.categories, counts)
        lists = _Lists()
        plan = self._splits.plan(run)
        with pictured(directory, run, counts) as draft:
            for record, path in named(run, self._path, counts):
                if not self._painting.pictures.write(record, f"JPEGImages/{path}", draft, counts):
                    continue
                segmented = self._write(record, path, classes, draft, counts)
                lists.add(plan.side(record), path, segmented=segmented)
                counts["images"] += 1
                counts["not_jpg"] += path.suffix != ".jpg"
            lists.write(draft)
            draft.write("labelmap.txt", [classes.labelmap()])
        tables = (LISTING_NOTES, PICTURE_NOTES, POLICY_NOTES, NAME_NOTES, VOID_NOTES, VOC_NOTES)
        notes = [*noted(counts, *tables), *plan.notes()]
        return reported(draft.files, counts + plan.counts, notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """SegmentationObject read by Pillow, as the devkit's Python readers do; object k is the XML's k-th."""
        place, crowded = place_of(run, self._path), set[str]()

        def read(record: ImageRecord) -> list[tuple[int, Rle]] | None:
            path = place(record)
            if not (directory / with_suffix("Annotations" / path, ".xml")).is_file():
                return None
            file = directory / with_suffix("SegmentationObject" / path, ".png")
            found = regions(_read_png(file)) if file.is_file() else {}
            objects = prepared(record, self._painting.own, Counter())
            if len(objects) > _MOST:
                crowded.add(record.image_id)
            return [(one.index, found[k]) for k, one in enumerate(objects, 1) if k in found]

        def why(record: ImageRecord, instance: Instance) -> str:
            many = record.image_id in crowded
            return "more than 254 objects: not in SegmentationObject" if many else self._why(instance)

        return compare(run, read, self._painting.policy, why)

    def _why(self, instance: Instance) -> str:
        if instance.crowd and self._painting.crowds_are_void:
            return "a crowd: written as void"
        if self._painting.border_px:
            return "void border"
        return "objects lie over the crowd" if instance.crowd else NOT_AS_WRITTEN

    def _path(self, record: ImageRecord) -> str:
        """Below JPEGImages. An id that comes from such a folder does not get a second one."""
        return picture_path(record, self._painting.pictures).removeprefix("JPEGImages/").replace(" ", "%20")

    def _write(
        self, record: ImageRecord, path: PurePosixPath, classes: _Classes, draft: Draft, counts: Counter[str]
    ) -> bool:
        """The annotation, and the PNGs. False when there is no room for the objects' numbers."""
        objects = prepared(record, self._painting.own, counts)
        counts["instances"] += len(objects)
        segmented = len(objects) <= _MOST
        counts["too_many_objects"] += not segmented
        xml = self._xml(record, path, objects, classes, counts, segmented=segmented and bool(objects))
        draft.write(with_suffix("Annotations" / path, ".xml"), [xml])
        numbers, class_numbers = self._maps(record, objects, classes, counts)
        draft.write(with_suffix("SegmentationClass" / path, ".png"), [_png(class_numbers)])
        if segmented:
            draft.write(with_suffix("SegmentationObject" / path, ".png"), [_png(numbers)])
        return segmented

    def _maps(
        self, record: ImageRecord, objects: list[Instance], classes: _Classes, counts: Counter[str]
    ) -> tuple[Ids, UInt8]:
        """(H, W) object numbers and (H, W) class numbers."""
        assert record.info is not None, "checked in labelled"
        order = {instance.index: k for k, instance in enumerate(objects, 1)}
        ids = np.zeros(record.info.size_hw, np.uint16)
        paint(ids, [(one, order[one.index]) for one in visible(record, objects, self._painting.policy, counts)])
        by_class = np.array([0, *(classes.number(one, record) for one in objects)], np.uint8)[ids]
        crowds = [order[one.index] for one in objects if one.crowd and self._painting.crowds_are_void]
        counts["void_crowds"] += len(crowds)
        void = np.isin(ids, crowds) | self._painting.border(ids, counts)
        ids[void] = by_class[void] = _VOID
        return ids, by_class

    def _xml(
        self,
        record: ImageRecord,
        path: PurePosixPath,
        objects: list[Instance],
        classes: _Classes,
        counts: Counter[str],
        *,
        segmented: bool,
    ) -> bytes:
        assert record.info is not None, "checked in labelled"
        top = Element("annotation")
        fields: dict[str, Json] = {
            "folder": str(PurePosixPath("JPEGImages", path.parent)),
            "filename": path.name,
            "size": {"width": record.info.width, "height": record.info.height, "depth": 3},
            "segmented": int(segmented),
        }
        _add_fields(top, fields | unknown_fields(record.extra, fields, repr(record.image_id)), counts)
        for instance in objects:
            self._add_object(SubElement(top, "object"), instance, record, classes, counts)
        indent(top, "\t")
        return tostring(top, encoding="utf-8") + b"\n"

    def _add_object(
        self, element: Element, instance: Instance, record: ImageRecord, classes: _Classes, counts: Counter[str]
    ) -> None:
        SubElement(element, "name").text = classes.name(instance, record)
        extra = unknown_fields(instance.extra, ("name", "bndbox"), f"an object of {record.image_id!r}")
        flags = {**_FLAGS, **{key: extra[key] for key in _FLAGS if key in extra}}
        if instance.crowd:
            flags["difficult"] = 1  # what evaluation leaves out
        _add_fields(element, flags, counts)
        box = zip(("xmin", "ymin", "xmax", "ymax"), self._box(instance, record), strict=True)
        add_json(element, "bndbox", dict(box))
        _add_fields(element, {key: extra[key] for key in extra if key not in _FLAGS}, counts)

    def _box(self, instance: Instance, record: ImageRecord) -> tuple[str, ...]:
        """1-based and inclusive: only the minima move."""
        assert record.info is not None, "checked in labelled"
        height, width = record.info.size_hw
        bounds = bounds_xyxy(mask_of(instance))
        assert bounds is not None, "prepared objects have pixels"
        x0, y0, x1, y1 = instance.box_xyxy if self._from_prompt else bounds
        x0, x1 = (min(max(x, 0), width) for x in (x0, x1))
        y0, y1 = (min(max(y, 0), height) for y in (y0, y1))
        return tuple(f"{value:.9g}" for value in (x0 + 1, y0 + 1, x1, y1))


class _Classes:
    """Class numbers from 1 in the order of the category ids, and names that XML can hold."""

    def __init__(self, categories: Iterable[Category], counts: Counter[str]) -> None:
        ordered = sorted(categories, key=lambda category: category.id)
        self._numbers = {category.id: number for number, category in enumerate(ordered, 1)}
        self._names = label_names(ordered, counts)
        counts["labelmap_names_changed"] += sum(_line_name(name) != name for name in self._names.values())

    def number(self, instance: Instance, record: ImageRecord) -> int:
        return class_number(self._numbers, instance, record)

    def name(self, instance: Instance, record: ImageRecord) -> str:
        return class_number(self._names, instance, record)

    def labelmap(self) -> bytes:
        """Name, colour, parts and actions, as CVAT and datumaro write them; the line is the class number."""
        colours = (",".join(map(str, rgb)) for rgb in voc_palette().tolist())
        names = ["background", *(_line_name(name) for name in self._names.values())]
        lines = [f"{name}:{rgb}::\n" for name, rgb in zip(names, colours, strict=False)]
        return "".join(["# label:color_rgb:parts:actions\n", *lines]).encode()


class _Lists:
    """The stems of each side, in the order of the run."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {
            f"{kind}/{side}": [] for kind in ("Main", "Segmentation") for side in (*SIDES, "trainval")
        }

    def add(self, side: str, path: PurePosixPath, *, segmented: bool) -> None:
        for kind in ("Main", "Segmentation") if segmented else ("Main",):
            for name in (side, "trainval") if side != "test" else (side,):
                self._lines[f"{kind}/{name}"].append(f"{with_suffix(path, '')}\n")

    def write(self, draft: Draft) -> None:
        for name, lines in self._lines.items():
            draft.write(f"ImageSets/{name}.txt", [line.encode() for line in lines])


def _line_name(name: str) -> str:
    """For labelmap.txt: no colon, no comment; and a percent sign that is one."""
    text = re.sub("%(?=[0-9A-Fa-f]{2})", "%25", name).replace(":", "%3A")
    return f"%23{text[1:]}" if text.startswith("#") else text


def _add_fields(parent: Element, fields: Mapping[str, Json], counts: Counter[str]) -> None:
    for tag, value in fields.items():
        counts["fields_left_out"] += _has_object({tag: value}) or not add_json(parent, tag, value)


def _has_object(value: Json) -> bool:
    """Whether an element `object` would come of it: objects are told by their place in the XML, and many readers look
    for them at any depth."""
    if isinstance(value, Mapping):
        return "object" in value or any(map(_has_object, value.values()))
    return isinstance(value, list) and any(map(_has_object, value))


def _png(ids: Ids) -> bytes:
    """With the colours of VOC."""
    return encode_index_png(ids.astype(np.uint8), voc_palette())


def _read_png(path: Path) -> UInt8:
    """The numbers, not the colours, as Pillow has them."""
    from PIL.PngImagePlugin import PngImageFile

    return np.asarray(PngImageFile(io.BytesIO(path.read_bytes())))
