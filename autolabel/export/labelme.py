"""LabelMe: one JSON beside each picture, in the tree of the image ids. No picture is put inside a JSON.

A "mask" shape holds its object pixel by pixel, holes and parts too. With polygons each part is a shape, and the
parts of one object share a `group_id`. Polygons run along pixel edges, where LabelMe draws them; its converter
(`shapes_to_label`) also paints their outline, so that they come out half a pixel larger there (a disc of 30 px: IoU
0.958). LabelMe turns pictures upright by itself, so they stay as they are. Scores
and fields of the source are fields of the shape, which LabelMe keeps; a score is shown in the description.

LabelMe reads `imagePath` as a Windows path, where a backslash parts folders: in names that are written it is %5C.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, Instance, Rle
from autolabel.export.classes import LABEL_NOTES, class_number, label_names
from autolabel.export.image_names import NAME_NOTES, named, picture_path, place_of
from autolabel.export.listing import LISTING_NOTES
from autolabel.export.names import with_suffix
from autolabel.export.outlines import OUTLINE_NOTES, Outlines
from autolabel.export.pictures import PICTURE_NOTES, Pictures, pictured
from autolabel.export.policy import POLICY_NOTES, policy_of, prepared
from autolabel.export.reading import compare, read_objects
from autolabel.export.reporting import noted, reported
from autolabel.export.scores import scores_of
from autolabel.export.source_fields import fields_of
from autolabel.ops.drawn import joined
from autolabel.ops.export_mark import MANIFEST
from autolabel.ops.index_png import encode_index_png
from autolabel.ops.labelme_file import parse_labelme
from autolabel.ops.masks import decode_crop, mask_of
from autolabel.ops.settings import one_of
from autolabel.ops.storage import is_url

_VERSION = "5.5.0"
_OWN_SHAPE = ("label", "points", "shape_type", "group_id", "mask", "flags", "description", "parts")
_BACKSLASH = {
    "backslashes": "{} [picture has a backslash in its path, and LabelMe will not find it|pictures have a backslash in their path, and LabelMe will not find them]; use images: copy"
}
_OWN_TOP = ("version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth")


class LabelMeExporter:
    """Writes pictures and JSONs; see configs/export/labelme.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["copy", "link", "upright", "none"],
        shape: Literal["mask", "polygon"],
        simplify_iou: float | None,
        warn_iou: float = 0.98,
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest", "split"],
        overlaps: Literal["keep", "score", "smallest"],
        min_area_px: int,
        crowd: Literal["keep", "drop"],
    ) -> None:
        self._as_masks = one_of("shape", shape, ("mask", "polygon")) == "mask"
        self._outlines = Outlines(simplify_iou=simplify_iou, warn_iou=warn_iou)
        self._pictures = Pictures(mode=images)
        self._in_place = images == "none"
        self._policy = policy_of(holes=holes, parts=parts, overlaps=overlaps, min_area_px=min_area_px, crowd=crowd)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the tree into `directory`. The records are read twice: for the names, then for the shapes."""
        counts: Counter[str] = Counter()
        names = label_names(run.categories, counts)
        with pictured(directory, run, counts) as draft:
            for record, path in named(run, self._path, counts, (MANIFEST,)):
                if not self._pictures.write(record, str(path), draft, counts):
                    continue
                image_path = self._image_path(record, path, directory)
                counts["backslashes"] += "\\" in image_path
                text = self._file(record, image_path, names, counts)
                draft.write(with_suffix(path, ".json"), [text])
                counts["images"] += 1
        tables = (LISTING_NOTES, PICTURE_NOTES, POLICY_NOTES, NAME_NOTES, LABEL_NOTES, OUTLINE_NOTES, _BACKSLASH)
        notes = (*noted(counts, *tables), *self._outlines.notes())
        return reported(draft.files, counts, notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """The JSONs read by labelme_file.py: masks through Pillow, polygons filled as pycocotools does."""
        place = place_of(run, self._path, (MANIFEST,))

        def read(record: ImageRecord) -> Iterator[tuple[int, Rle]] | None:
            assert record.info is not None, "checked in labelled"
            file = directory / with_suffix(place(record), ".json")
            if not file.is_file():
                return None
            shapes = joined(parse_labelme(file.read_text("utf-8")).shapes, record.info.size_hw)
            return read_objects(record, shapes, prepared(record, self._policy, Counter()))

        return compare(run, read, self._policy, lambda _, instance: self._outlines.why(instance))

    def _path(self, record: ImageRecord) -> str:
        return picture_path(record, self._pictures).replace("\\", "%5C")

    def _image_path(self, record: ImageRecord, path: PurePosixPath, directory: Path) -> str:
        """The picture from the JSON's own folder. Readers follow `..` on the disk, where a linked folder has other ones
        above it than its name says."""
        if not self._in_place:
            return path.name
        if is_url(record.path):
            return record.path
        picture = Path(record.path)
        return os.path.relpath(picture.parent.resolve() / picture.name, directory.resolve() / path.parent)

    def _file(self, record: ImageRecord, image_path: str, names: Mapping[int, str], counts: Counter[str]) -> bytes:
        assert record.info is not None, "checked in labelled"
        extra = fields_of(record.extra)
        top = {
            "version": _VERSION,
            "flags": _flags(extra.get("flags")),
            "shapes": self._shapes(record, names, counts),
            "imagePath": image_path,
            "imageData": None,
            "imageHeight": record.info.height,
            "imageWidth": record.info.width,
            **{key: value for key, value in extra.items() if key not in _OWN_TOP},
        }
        # ASCII, so that a name with stray bytes can be written too.
        return json.dumps(top, ensure_ascii=True, allow_nan=False, indent=1).encode("ascii")

    def _shapes(self, record: ImageRecord, names: Mapping[int, str], counts: Counter[str]) -> list[dict[str, Any]]:
        objects = prepared(record, self._policy, counts)
        counts["instances"] += len(objects)
        groups = itertools.count(_first_free_group(objects))
        found = []
        for instance in objects:
            label = class_number(names, instance, record)
            shapes = [_mask(instance)] if self._as_masks else self._polygons(instance, counts)
            group = next(groups) if len(shapes) > 1 else None
            found += [{"label": label, **shape, "group_id": group, **_fields(instance)} for shape in shapes]
        return found

    def _polygons(self, instance: Instance, counts: Counter[str]) -> list[dict[str, Any]]:
        outlines = self._outlines.of(instance, counts)
        return [
            {"shape_type": "polygon", "points": [[x, y] for x, y in zip(ring[0::2], ring[1::2], strict=True)]}
            for ring in outlines
        ]


def _mask(instance: Instance) -> dict[str, Any]:
    """A PNG of 0 and 1 between two corners, both inclusive."""
    crop, x0, y0 = decode_crop(mask_of(instance))
    height, width = crop.shape
    corners = [[float(x0), float(y0)], [float(x0 + width - 1), float(y0 + height - 1)]]
    png = base64.b64encode(encode_index_png(crop)).decode("ascii")
    return {"shape_type": "mask", "points": corners, "mask": png}


def _fields(instance: Instance) -> dict[str, Any]:
    extra, scores = fields_of(instance.extra), scores_of(instance)
    own = extra.get("description")
    shown = f"score {scores['score']:.3f}" if "score" in scores else ""
    return {
        "description": own if isinstance(own, str) and own else shown,
        "flags": {**_flags(extra.get("flags")), **({"iscrowd": True} if instance.crowd else {})},
        **{key: value for key, value in extra.items() if key not in _OWN_SHAPE},
        **scores,
    }


def _flags(value: object) -> dict[str, bool]:
    """LabelMe refuses a file whose flags are not all true or false."""
    return {k: v for k, v in value.items() if isinstance(v, bool)} if isinstance(value, dict) else {}


def _first_free_group(objects: Sequence[Instance]) -> int:
    """Past the groups of the source, whose numbers people may have noted."""
    own = [fields_of(instance.extra).get("group_id") for instance in objects]
    return max((group for group in own if isinstance(group, int)), default=-1) + 1
