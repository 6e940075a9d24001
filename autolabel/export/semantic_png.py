"""Class-id PNGs for the ultralytics task `semantic`: `images/<split>/`, `masks/<split>/`, `data.yaml`.

A pixel's number is its class, 255 is not labelled. Objects of one class melt into one region. Class numbers are
positions in the list of categories sorted by id, as in the other formats of that loader, and the background
comes after them; with a single class, 0 is the background and 1 the class, which is how that trainer wants it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ExportError
from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import Category, ImageRecord, Instance, Rle, UInt8
from autolabel.export.classes import class_number, utf8
from autolabel.export.image_names import NAME_NOTES, named, place_of
from autolabel.export.listing import LISTING_NOTES
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
from autolabel.export.painting import VOID_NOTES, paint, painting_of, visible
from autolabel.export.pictures import PICTURE_NOTES, pictured
from autolabel.export.policy import POLICY_NOTES, prepared
from autolabel.export.reading import NOT_AS_WRITTEN, compare
from autolabel.export.reporting import noted, reported
from autolabel.export.splits import Splits
from autolabel.export.ultralytics_reader import read_class_mask
from autolabel.ops.index_png import encode_index_png
from autolabel.ops.masks import decode_crop, encode, encode_crop, is_empty, mask_of, union
from autolabel.ops.settings import one_of

_IGNORE = 255
_BACKGROUND = "background"

MELTED = "another object of its class lies there"
"""Why an object has more pixels than the policy leaves to it alone."""

SEMANTIC_NOTES: dict[str, str] = {
    **LOADER_NOTES,
    "melted_objects": "{} [object shares its class with another one of its image and is|objects share their class with another one of their image and are] not told apart",
}


class SemanticPngExporter:
    """Writes the data set; see configs/export/semantic_png.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["copy", "link", "upright"],
        background: Literal["class", "ignore"],
        ignore_border_px: int,
        holes: Literal["keep", "fill"],
        parts: Literal["keep", "largest"],
        overlaps: Literal["score", "smallest"],
        min_area_px: int,
        crowd: Literal["ignore", "keep", "drop"],
        val_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: bool,
        group_by: str | None,
    ) -> None:
        self._has_background = one_of("background", background, ("class", "ignore")) == "class"
        self._painting = painting_of(
            images=images,
            holes=holes,
            parts=parts,
            overlaps=overlaps,
            min_area_px=min_area_px,
            crowd=crowd,
            void="ignore",
            border_px=ignore_border_px,
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
        _classes(categories, has_background=self._has_background)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the data set into `directory`. The records are read three times: splits, names, masks."""
        counts: Counter[str] = Counter()
        classes = _classes(run.categories, has_background=self._has_background)
        sides = set[str]()
        plan = self._splits.plan(run)
        with pictured(directory, run, counts) as draft:
            for record, place in named(run, side_path(plan, self._painting.pictures), counts):
                if not count_refused(record, counts) and self._painting.pictures.write(
                    record, f"images/{place}", draft, counts
                ):
                    png = encode_index_png(self._map(record, classes, counts))
                    draft.write(with_suffix("masks" / place, ".png"), [png])
                    counts["images"] += 1
                    sides.add(plan.side(record))
            folders, extra = side_folders(sides)
            for folder in folders.values():
                draft.folder(folder)
            draft.write(YAML, [data_yaml(folders, classes.names, "masks_dir: masks")])
        tables = (LISTING_NOTES, PICTURE_NOTES, POLICY_NOTES, NAME_NOTES, VOID_NOTES, SEMANTIC_NOTES)
        notes = (*noted(counts, *tables), *plan.notes(), *extra)
        return reported(draft.files, counts + plan.counts, notes)

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """Masks as the ultralytics loader reads them. The format does not tell objects of one class apart: an
        object is what of its class lies in its own mask, and what lies in no object's mask at all."""
        place = place_of(run, side_path(self._splits.plan(run), self._painting.pictures))
        classes = _classes(run.categories, has_background=self._has_background)
        found: dict[int, Rle] = {}
        drawn: dict[int, Rle] = {}  # as `found` where the file is right; of the same image, once it is asked for

        def read(record: ImageRecord) -> list[tuple[int, Rle]] | None:
            file = directory / with_suffix("masks" / place(record), ".png")
            found.clear()
            drawn.clear()
            if file.is_file():
                found.update(_objects(record, read_class_mask(file), classes))
            return list(found.items()) if file.is_file() else None

        def why(record: ImageRecord, instance: Instance) -> str:
            reason = self._why(instance)
            if reason != NOT_AS_WRITTEN or instance.index not in found:
                return reason
            if not drawn:
                drawn.update(_objects(record, self._drawn(record, classes), classes))
            return MELTED if drawn.get(instance.index) == found[instance.index] else NOT_AS_WRITTEN

        return compare(run, read, self._painting.policy, why, refused)

    def _drawn(self, record: ImageRecord, classes: _Classes) -> UInt8:
        """(H, W) class numbers of what the policy leaves of the objects."""
        assert record.info is not None, "checked in labelled"
        ids = np.full(record.info.size_hw, classes.background, np.uint8)
        given = prepared(record, self._painting.policy, Counter())
        paint(ids, [(one, self._number(one, record, classes)) for one in given])
        return ids

    def _why(self, instance: Instance) -> str:
        if instance.crowd:
            return "a crowd: not labelled" if self._painting.crowds_are_void else "objects lie over the crowd"
        return "border that is not labelled" if self._painting.border_px else NOT_AS_WRITTEN

    def _map(self, record: ImageRecord, classes: _Classes, counts: Counter[str]) -> UInt8:
        """(H, W) class numbers."""
        assert record.info is not None, "checked in labelled"
        objects = prepared(record, self._painting.own, counts)
        counts["instances"] += len(objects)
        shared = Counter(instance.category_id for instance in objects)
        counts["melted_objects"] += sum(n for n in shared.values() if n > 1)
        ids = np.full(record.info.size_hw, classes.background, np.uint8)
        seen = visible(record, objects, self._painting.policy, counts)
        paint(ids, [(one, self._number(one, record, classes)) for one in seen])
        counts["void_crowds"] += sum(one.crowd and self._painting.crowds_are_void for one in seen)
        ids[self._painting.border(ids, counts)] = _IGNORE
        return ids

    def _number(self, instance: Instance, record: ImageRecord, classes: _Classes) -> int:
        number = class_number(classes.numbers, instance, record)
        return _IGNORE if instance.crowd and self._painting.crowds_are_void else number


@dataclass(frozen=True, slots=True)
class _Classes:
    """`names` in the order of their numbers; the number of each category id, and of what no object covers."""

    names: tuple[str, ...]
    numbers: dict[int, int]
    background: int


def _classes(categories: Sequence[Category], *, has_background: bool) -> _Classes:
    ordered = sorted(categories, key=lambda category: category.id)
    names = tuple(utf8(category.name) for category in ordered)
    numbers = {category.id: number for number, category in enumerate(ordered)}
    if has_background and len(names) == 1:
        found = _Classes(names, {category.id: 1 for category in ordered}, 0)
    elif not has_background:
        binary = len(names) == 1  # the trainer's 0 would be the background
        found = _Classes(names, {id_: number + binary for id_, number in numbers.items()}, _IGNORE)
    elif _BACKGROUND in (words := [name.strip().lower() for name in names]):
        found = _Classes(names, numbers, words.index(_BACKGROUND))
    else:
        found = _Classes((*names, _BACKGROUND), numbers, len(names))
    if len(found.names) > _IGNORE:
        raise ExportError(
            f"semantic_png numbers hold {_IGNORE} classes, this would be {len(found.names)}; export instance_png instead"
        )
    return found


def _objects(record: ImageRecord, ids: UInt8, classes: _Classes) -> Iterator[tuple[int, Rle]]:
    objects = [
        (one, class_number(classes.numbers, one, record)) for one in record.instances if one.mask is not None
    ]
    unclaimed: dict[int, NDArray[np.bool_]] = {classes.background: np.zeros(ids.shape, bool)}
    seen: list[list[Rle]] = []
    for one, number in objects:
        crop, x0, y0 = decode_crop(mask_of(one))
        window = (slice(y0, y0 + crop.shape[0]), slice(x0, x0 + crop.shape[1]))
        seen.append([encode_crop(crop & (ids[window] == number), x0, y0, ids.shape)])
        if number != classes.background:
            unclaimed.setdefault(number, ids == number)[window][crop > 0] = False
    strays = {number: [encode(pixels)] for number, pixels in unclaimed.items() if pixels.any()}
    for (one, number), own in zip(objects, seen, strict=True):
        found = union([*own, *strays.get(number, [])])
        if found is not None and not is_empty(found):
            yield one.index, found
