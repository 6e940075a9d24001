"""Annotations as a label file states them, turned into boxes and masks of the upright picture.

Existing masks are rasterised as the tool does for which the file was written, in the frame it was written in, and
then turned: turning pixels is exact, turning polygons and drawing them again is not. Opens no picture; its size and
orientation are enough.
"""

from __future__ import annotations

import json
import operator

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ImageError
from autolabel.core.types import Float32, ImageInfo, Labels, Polygon, Rle
from autolabel.ops import masks
from autolabel.ops.boxes import scale_normalized
from autolabel.ops.orientation import (
    stored_size,
    upright_boxes,
    upright_image,
    upright_keypoints,
    upright_polygon,
)
from autolabel.ops.polygons import yolo_rasterize

_ROUNDING_PX = 1


def keypoints_in(extra: str) -> NDArray[np.float64] | None:
    """(P, 3) of x, y, v, from the JSON text of an object's other fields; v is 0 (not labelled), 1 (covered) or 2
    (visible). None where there are none as COCO writes them."""
    flat = json.loads(extra).get("keypoints") if '"keypoints"' in extra else None
    if not isinstance(flat, list) or len(flat) % 3 or not all(isinstance(v, int | float) for v in flat):
        return None
    try:
        rows = np.array(flat, np.float64).reshape(-1, 3)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return rows if np.isfinite(rows).all() else None


class Canvas:
    """The frame the labels were written in: its size, and the way from there to the upright picture. `assumed`: no size
    tells it, as that of a square or of a picture on its head, and it was taken as upright. YOLO's is upright, by its
    loader.

    Raises ImageError `size_mismatch` when the label file declares another picture size.
    """

    def __init__(self, labels: Labels, info: ImageInfo) -> None:
        self.normalized, self.convention = labels.normalized, labels.convention
        declared = labels.size_hw or info.size_hw
        frames = (info.size_hw, 1), (stored_size(info.size_hw, info.orientation), info.orientation)
        # Where the sides differ by a pixel only the exact size tells the two frames apart.
        exact, near = ([f for f in frames if same(declared, f[0])] for same in (operator.eq, _close))
        fits = exact or near
        if not fits:
            stated, actual = (f"{w}x{h}" for h, w in (declared, info.size_hw))
            raise ImageError("size_mismatch", f"the labels are for {stated} px, the picture is {actual}")
        self.size_hw, self.orientation = fits[0]
        told = info.orientation == 1 or labels.convention == "yolo"
        self.assumed = not told and (labels.size_hw is None or len(fits) > 1)

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
        return masks.encode(upright_image(masks.decode(mask), self.orientation))

    def extra(self, text: str) -> str:
        """An object's other fields, with its COCO `keypoints` upright."""
        keypoints = keypoints_in(text) if self.orientation != 1 else None
        if keypoints is None:
            return text
        fields = json.loads(text)
        stated = fields["keypoints"]
        number = int if all(isinstance(value, int) for value in stated) else float
        turned = [number(v) for v in upright_keypoints(keypoints, self.size_hw, self.orientation).reshape(-1)]
        turned[2::3] = stated[2::3]
        fields["keypoints"] = turned
        return json.dumps(fields, separators=(",", ":"))

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


def is_point(box_xyxy: Float32) -> bool:
    """COCO writes no box as [0, 0, 0, 0]."""
    return bool((box_xyxy[:2] == box_xyxy[2:]).all())


def _close(a_hw: tuple[int, int], b_hw: tuple[int, int]) -> bool:
    return all(abs(a - b) <= _ROUNDING_PX for a, b in zip(a_hw, b_hw, strict=True))


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
