"""Boxes that already exist, as a Detector: the annotations of the source, turned upright. Imports no model.

Nothing is mended: a reversed or empty box comes out as it is, so that the labeler drops it with its reason.
Only an object that has a mask and no box gets the box of its mask. A crowd region is no object that a box could
ask for: its mask stays, whatever the settings, and a crowd of a box alone comes out without a mask. Existing masks are rasterised as the tool
does for which the file was written, in the frame it was written in, and then turned: turning pixels is exact,
turning polygons and drawing them again is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from autolabel.core.errors import ConfigError, ImageError
from autolabel.core.types import Category, Detections, Float32, Frame, Labels, Polygon, Rle, UInt8
from autolabel.ops import masks
from autolabel.ops.boxes import box_problem, scale_normalized
from autolabel.ops.orientation import stored_size, upright_boxes, upright_image, upright_polygon
from autolabel.ops.polygons import yolo_rasterize

_ROUNDING_PX = 1
Value = TypeVar("Value")


class LabelsDetector:
    """Scores are 1.0. `keep_masks` hands existing masks on, to be kept as they are; without it every mask is made
    anew and the existing one goes along as `replaced`. Frames without labels have no detections."""

    def __init__(self, *, keep_masks: bool) -> None:
        if not isinstance(keep_masks, bool):
            raise ConfigError(f"detect.keep_masks must be true or false, got {keep_masks!r}")
        self._keep_masks = keep_masks

    @property
    def categories(self) -> tuple[Category, ...] | None:
        return None

    @property
    def identity(self) -> Mapping[str, str]:
        return {}

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Raises ImageError `size_mismatch` when a label file declares another picture size, and `bad_label`
        when a mask does not fit the picture."""
        return [self._one(frame) for frame in frames]

    def _one(self, frame: Frame) -> Detections:
        labels = frame.ref.labels
        if labels is None or not len(labels):
            return Detections.none()
        canvas = _Canvas(labels, frame)
        found = [None if shape is None else canvas.mask(shape) for shape in labels.shapes]
        kept = [self._keep_masks or crowd for crowd in labels.crowd]
        polygons = [canvas.polygons(shape) for shape in labels.shapes]
        return Detections(
            self._boxes(canvas.boxes(labels.boxes_xyxy), found, kept, frame.info.size_hw),
            np.ones(len(labels), np.float32),
            labels.category_ids,
            _where(kept, found),
            _where(kept, polygons),
            labels.source_ids,
            labels.crowd,
            labels.extras,
            _where([not keep for keep in kept], found),
        )

    @staticmethod
    def _boxes(
        boxes_xyxy: Float32, found: Sequence[Rle | None], kept: Sequence[bool], size_hw: tuple[int, int]
    ) -> Float32:
        """The tight box of the mask where there is no box, and where a mask to be made anew has a box that nobody
        could answer: a bad box is no reason to lose an object that has a mask."""
        boxes = boxes_xyxy.copy()
        for row, mask in enumerate(found):
            unusable = _is_point(boxes[row]) or (not kept[row] and box_problem(boxes[row], size_hw) is not None)
            if mask is not None and unusable:
                boxes[row] = masks.bounds_xyxy(mask) or boxes[row]
        return boxes


class _Canvas:
    """The frame the labels were written in: its size, and the way from there to the upright picture."""

    def __init__(self, labels: Labels, frame: Frame) -> None:
        upright = frame.info.size_hw
        stored = stored_size(upright, frame.info.orientation)
        self.normalized, self.convention = labels.normalized, labels.convention
        self.size_hw, self.orientation = upright, 1
        if labels.size_hw is None or _close(labels.size_hw, upright):
            return
        if not _close(labels.size_hw, stored):
            declared = f"{labels.size_hw[1]}x{labels.size_hw[0]}"
            actual = f"{frame.info.width}x{frame.info.height}"
            raise ImageError("size_mismatch", f"the labels are for {declared} px, the picture is {actual}")
        self.size_hw, self.orientation = stored, frame.info.orientation

    def boxes(self, boxes_xyxy: Float32) -> Float32:
        pixels = scale_normalized(boxes_xyxy, self.size_hw) if self.normalized else boxes_xyxy
        return upright_boxes(pixels, self.size_hw, self.orientation)

    def polygons(self, shape: tuple[Polygon, ...] | Rle | None) -> tuple[Polygon, ...] | None:
        if shape is None or isinstance(shape, Rle):
            return None
        return tuple(upright_polygon(self._pixels(ring), self.size_hw, self.orientation) for ring in shape)

    def mask(self, shape: tuple[Polygon, ...] | Rle) -> Rle:
        """The upright mask. Raises ImageError `bad_label`."""
        mask = self._stored_mask(shape)
        if self.orientation == 1:
            return mask
        return masks.encode(upright_image(_unpack(mask), self.orientation))

    def _stored_mask(self, shape: tuple[Polygon, ...] | Rle) -> Rle:
        if isinstance(shape, Rle):
            return _checked(shape, self.size_hw)
        if self.convention == "coco":
            try:
                return masks.from_polygons(shape, self.size_hw)
            except ValueError as e:
                raise ImageError("bad_label", str(e)) from e
        rings = [np.array(ring, np.float32).reshape(-1, 2) for ring in shape]
        return masks.encode(np.maximum.reduce([yolo_rasterize(ring, self.size_hw) for ring in rings]))

    def _pixels(self, ring: Polygon) -> Polygon:
        if not self.normalized:
            return ring
        h, w = self.size_hw
        return tuple(value * (h if at % 2 else w) for at, value in enumerate(ring))


def _close(a_hw: tuple[int, int], b_hw: tuple[int, int]) -> bool:
    return all(abs(a - b) <= _ROUNDING_PX for a, b in zip(a_hw, b_hw, strict=True))


def _where(wanted: Sequence[bool], values: Sequence[Value | None]) -> tuple[Value | None, ...]:
    return tuple(value if want else None for want, value in zip(wanted, values, strict=True))


def _is_point(box_xyxy: Float32) -> bool:
    """COCO writes no box as [0, 0, 0, 0]."""
    return bool((box_xyxy[:2] == box_xyxy[2:]).all())


def _checked(rle: Rle, size_hw: tuple[int, int]) -> Rle:
    if rle.size_hw != size_hw:  # before anything of the claimed size is allocated
        raise ImageError("bad_label", f"a mask is for {list(rle.size_hw)}, the picture is {list(size_hw)} (h, w)")
    try:
        runs = masks.run_lengths(rle)
    except ValueError as e:
        raise ImageError("bad_label", f"a mask's RLE is damaged: {e}") from e
    if (runs > size_hw[0] * size_hw[1]).any():
        raise ImageError("bad_label", "a mask's RLE is damaged: a run is longer than the picture")
    return rle


def _unpack(rle: Rle) -> UInt8:
    """(H, W) of 0 and 1."""
    h, w = rle.size_hw
    runs = masks.run_lengths(rle)
    return np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs).reshape(w, h).T
