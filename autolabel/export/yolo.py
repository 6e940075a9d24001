"""YOLO segmentation for the ultralytics loader: `images/<split>/`, `labels/<split>/`, `data.yaml`.

The trees mirror the image ids. One object is one row, always. `data.yaml` names no `path`, so the folder
can be moved, and no `download`, which that loader would run. Class numbers are positions in the list of
categories sorted by id.

Pictures are copied by default: that loader rewrites, in place and through a link, a JPEG that does not end
with its end marker, and somebody's pictures are not ours to change. With `link`, such a picture is copied
all the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ConfigError, ExportError, ImageError
from autolabel.core.protocols import ExportReport, RecordReader
from autolabel.core.types import ImageRecord, ImageRef, Instance, Polygon, Rle
from autolabel.export.atomic import Draft, replaced
from autolabel.export.names import TreeNames, safe_path
from autolabel.ops.masks import area_px
from autolabel.ops.polygons import yolo_iou, yolo_ring

YAML = "data.yaml"
_JPEG = (".jpg", ".jpeg", ".mpo")
_AS_IS = (*_JPEG, ".png", ".bmp", ".webp", ".tif", ".tiff")
"""What every build of the loader reads; the rest is written as PNG."""
_SMALLEST_PX = 10
"""The loader refuses pictures with a shorter side."""


class YoloExporter:
    """Writes the data set; see configs/export/yolo.yaml for the settings."""

    def __init__(
        self,
        *,
        images: Literal["copy", "link"],
        val_fraction: float,
        seed: int,
        keep_far_parts: bool,
        warn_iou: float,
    ) -> None:
        if images not in ("copy", "link"):
            raise ConfigError(f"export.yolo.images must be copy or link, got {images!r}")
        for key, value in (("val_fraction", val_fraction), ("warn_iou", warn_iou)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
                raise ConfigError(f"export.yolo.{key} must be in [0, 1], got {value!r}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ConfigError(f"export.yolo.seed must be a whole number, got {seed!r}")
        if not isinstance(keep_far_parts, bool):
            raise ConfigError(f"export.yolo.keep_far_parts must be true or false, got {keep_far_parts!r}")
        self._link = images == "link"
        self._val_fraction = float(val_fraction)
        self._seed = seed
        self._keep_far_parts = keep_far_parts
        self._warn_iou = float(warn_iou)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the data set into `directory`. The records are read twice: for the names, then for the rows."""
        classes = {c.id: n for n, c in enumerate(sorted(run.categories, key=lambda c: c.id))}
        plan = self._plan(run)
        tally = _Tally(self._warn_iou)
        with replaced(directory) as draft:
            for record in _labelled(run, tally):
                self._write(record, plan, classes, draft, tally)
            draft.write(YAML, [_data_yaml(run, draft, tally).encode()])
        tally.counts["renamed_for_a_shared_stem"] = plan.names.renamed
        return tally.report((*draft.files,))

    def _plan(self, run: RecordReader) -> _Plan:
        plan = _Plan(self._seed, self._val_fraction)
        for record in _labelled(run):
            plan.names.announce(_tree_path(record))
            plan.see(record)
        return plan

    def _write(
        self, record: ImageRecord, plan: _Plan, classes: dict[int, int], draft: Draft, tally: _Tally
    ) -> None:
        assert record.info is not None, "checked in _labelled"
        name, side = plan.names.name(_tree_path(record)), plan.side(record)
        if min(record.info.size_hw) < _SMALLEST_PX:
            tally.counts["images_too_small"] += 1
            return
        if not self._write_image(record, f"images/{side}/{name}", draft, tally):
            return
        rows = list(self._rows(record, classes, tally))
        tally.counts["same_row_twice"] += len(rows) - len(set(rows))
        label = PurePosixPath(name)
        draft.write(f"labels/{side}/{label.with_name(label.stem)}.txt", [row.encode() for row in rows])
        tally.counts["images"] += 1

    def _write_image(self, record: ImageRecord, path: str, draft: Draft, tally: _Tally) -> bool:
        """False when the picture cannot be read any more, or is not the one that was labelled."""
        assert record.info is not None, "checked in _labelled"
        source = Path(record.path)
        try:
            if _needs_png(record):
                draft.write(path, [_upright_png(record)])
                tally.counts["images_converted"] += 1
            elif self._link and _is_safe_to_link(source):
                draft.link(source, path, record.info.sha256)
            elif draft.copy(source, path) != (record.info.sha256 or draft.sha256(path)):
                draft.remove(path)
                tally.counts["images_changed"] += 1
                return False
        except (FileNotFoundError, PermissionError, ImageError):
            tally.counts["images_missing"] += 1
            return False
        except OSError as error:
            raise ExportError(f"{record.path!r} cannot be copied into the export: {error}") from error
        return True

    def _rows(self, record: ImageRecord, classes: dict[int, int], tally: _Tally) -> Iterator[str]:
        for instance in record.instances:
            if instance.category_id not in classes:
                raise ExportError(
                    f"{record.image_id!r} holds an object of class {instance.category_id}, "
                    "which the run does not name"
                )
            if instance.crowd:
                tally.counts["crowds_left_out"] += 1
            elif instance.mask is None or not area_px(instance.mask):
                tally.counts["empty_masks"] += 1
            else:
                points = self._points(instance, instance.mask, tally, record.image_id)
                yield f"{classes[instance.category_id]} {points}\n"

    def _points(self, instance: Instance, mask: Rle, tally: _Tally, image_id: str) -> str:
        own = _own_polygon(instance)
        if own is not None:
            text, found = _written(own, mask, "%.9g")
            # The person's own points, as long as this loader makes about the same mask of them.
            if found >= self._warn_iou:
                tally.counts["source_polygons"] += 1
                tally.measured(found, image_id)
                return text
        ring = yolo_ring(mask, keep_far_parts=self._keep_far_parts)
        tally.counts["bridged_objects"] += ring.bridge_px > 0
        tally.counts["parts_left_out"] += ring.left_out
        tally.counts["parts_left_out_px"] += ring.left_out_px
        text, found = _written(ring.points_xy, mask, "%.6f")
        tally.measured(found, image_id)
        return text


@dataclass(slots=True)
class _Plan:
    """Which side each image is on, and its name there."""

    seed: int
    val_fraction: float
    names: TreeNames = field(default_factory=TreeNames)
    _drawn: int = 0
    _sides: set[str] = field(default_factory=set)
    _low: tuple[float, str] = (2.0, "")
    _high: tuple[float, str] = (-1.0, "")

    def see(self, record: ImageRecord) -> None:
        side = _own_side(record.split)
        if side is not None:
            self._sides.add(side)
            return
        draw = self._draw(record.image_id)
        self._drawn += 1
        self._low, self._high = min(self._low, draw), max(self._high, draw)

    def side(self, record: ImageRecord) -> str:
        own = _own_side(record.split)
        if own is not None:
            return own
        draw = self._draw(record.image_id)
        # Neither side is empty when there are two images: the extreme draws are dealt first.
        if 0 < self.val_fraction < 1:
            if draw == self._high and "train" not in self._sides:
                return "train"
            if draw == self._low and "val" not in self._sides and (self._drawn > 1 or "train" in self._sides):
                return "val"
        return "val" if draw[0] < self.val_fraction else "train"

    def _draw(self, image_id: str) -> tuple[float, str]:
        """A number in [0, 1) that only the seed and the image decide."""
        digest = hashlib.sha256(f"{self.seed}:{image_id}".encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64, image_id


class _Tally:
    """What the report says, counted while writing."""

    def __init__(self, warn_iou: float) -> None:
        self.counts: Counter[str] = Counter()
        self.extra: list[str] = []
        self._warn_iou = warn_iou
        self._lowest = (1.0, "")

    def measured(self, found: float, image_id: str) -> None:
        self.counts["instances"] += 1
        self.counts["below_warn_iou"] += found < self._warn_iou
        self._lowest = min(self._lowest, (found, image_id))

    def report(self, files: tuple[str, ...]) -> ExportReport:
        lines = {
            "images_left_out": "{} images that failed or were skipped are not in the set",
            "images_missing": "{} pictures can no longer be read and are left out",
            "images_changed": "{} pictures changed since they were labelled and are left out",
            "images_too_small": "{} pictures have a side under 10 px, which the loader refuses, and are left out",
            "images_converted": "{} pictures are written as upright PNG, since readers differ on their format",
            "renamed_for_a_shared_stem": "{} pictures shared a name without suffix; the suffix is kept in it",
            "empty_masks": "{} instances without a single pixel are left out",
            "crowds_left_out": "{} crowd regions are left out; the format has no word for them",
            "same_row_twice": "{} rows are equal to another of their image; the loader drops them",
            "bridged_objects": "{} objects of several parts are joined by lines one pixel wide",
            "parts_left_out": "{} far parts smaller than the line they would need are left out of their object",
            "below_warn_iou": f"{{}} objects come back from the loader with an IoU below {self._warn_iou:g}",
        }
        notes = [text.format(self.counts[key]) for key, text in lines.items() if self.counts[key]]
        if self._lowest[0] < 1.0:
            notes.append(f"lowest IoU through the loader: {self._lowest[0]:.3f} in {self._lowest[1]!r}")
        counts = {key: value for key, value in sorted(self.counts.items()) if value}
        return ExportReport(files, self.counts["images"], self.counts["instances"], counts, (*notes, *self.extra))


def _labelled(run: RecordReader, tally: _Tally | None = None) -> Iterator[ImageRecord]:
    for record in run.records():
        if record.status not in ("ok", "empty"):
            if tally is not None:
                tally.counts["images_left_out"] += 1
            continue
        if record.info is None:
            raise ExportError(f"{record.image_id!r} is labelled but its size is not known; label it again")
        yield record


def _own_side(split: str | None) -> str | None:
    """The source's own split, as this format calls it; None when it is none of the three."""
    word = (split or "").lower()
    return next((side for side in ("train", "val", "test") if word.startswith(side)), None)


def _tree_path(record: ImageRecord) -> str:
    """Where the picture goes below its split. The loader finds labels by replacing the last `/images/` of a
    path, so no folder of the tree may be called that."""
    path = PurePosixPath(safe_path(record.image_id))
    folders = (f"{part}_" if part == "images" else part for part in path.parts[:-1])
    return str(PurePosixPath(*folders, f"{path.name}.png" if _needs_png(record) else path.name))


def _needs_png(record: ImageRecord) -> bool:
    """Formats that not every reader takes, and turned pictures that not every reader turns."""
    assert record.info is not None, "checked in _labelled"
    suffix = PurePosixPath(record.image_id).suffix.lower()
    turned = record.info.orientation != 1 and suffix not in (*_JPEG, ".png")
    # The loader stacks the pages of a TIFF into channels.
    pages = suffix in (".tif", ".tiff") and "multi_frame" in record.info.notes
    return suffix not in _AS_IS or turned or pages


def _upright_png(record: ImageRecord) -> bytes:
    import cv2

    from autolabel.ops.images import load_frame

    assert record.info is not None, "checked in _labelled"
    height, width = record.info.size_hw
    ref = ImageRef(record.image_id, record.path)
    frame = load_frame(ref, max_pixels=height * width, min_side=1)
    if frame.info.size_hw != record.info.size_hw:
        raise ImageError("changed", f"{record.path!r} has another size than when it was labelled")
    return cv2.imencode(".png", np.ascontiguousarray(frame.image_rgb[..., ::-1]))[1].tobytes()


def _is_safe_to_link(source: Path) -> bool:
    """False for a JPEG without its end marker, which the loader would rewrite. Raises OSError."""
    with source.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return True
        file.seek(-2, 2)
        return file.read() == b"\xff\xd9"


def _own_polygon(instance: Instance) -> NDArray[np.float64] | None:
    """The source's own polygon where one row can hold it: a single one."""
    if instance.origin != "label" or instance.polygons is None or len(instance.polygons) != 1:
        return None
    (polygon,) = instance.polygons
    return _as_points(polygon)


def _as_points(polygon: Polygon) -> NDArray[np.float64] | None:
    if len(polygon) < 6 or len(polygon) % 2 or not all(map(math.isfinite, polygon)):
        return None
    return np.array(polygon, np.float64).reshape(-1, 2)


def _written(points_xy: NDArray[np.float64], mask: Rle, form: str) -> tuple[str, float]:
    """The row's numbers, and the IoU of what the loader makes of them."""
    height, width = mask.size_hw
    fractions = np.clip(points_xy / np.array([width, height]), 0.0, 1.0)
    words = [form % value for value in fractions.ravel().tolist()]
    read = np.array(words, np.float32).reshape(-1, 2)
    return " ".join(words), yolo_iou(read, mask)


def _data_yaml(run: RecordReader, draft: Draft, tally: _Tally) -> str:
    sides = [side for side in ("train", "val", "test") if _has_images(draft.files, side)]
    folder = {side: f"images/{side}" for side in sides}
    for side, other in (("train", "val"), ("val", "train")):
        if side not in sides:
            folder[side] = f"images/{other if other in sides else side}"
            draft.folder(folder[side])
            tally.extra.append(f"no picture is left for {side}: {YAML} names {folder[side]} for it")
    lines = [f"{side}: {folder[side]}" for side in ("train", "val", "test") if side in folder]
    names = sorted(run.categories, key=lambda category: category.id)
    # A JSON string is a YAML string; a name may hold a colon or a quote.
    words = [f"  {n}: {json.dumps(c.name, ensure_ascii=False)}" for n, c in enumerate(names)]
    return "\n".join([*lines, "names:" if words else "names: {}", *words, ""])


def _has_images(files: Iterable[str], side: str) -> bool:
    return any(file.startswith(f"images/{side}/") for file in files)
