"""The eight EXIF orientations, applied to pixels, boxes and points. Reads no files.

"Stored" is the picture as the file keeps it, "upright" as it is looked at. `stored_hw` is the stored height
and width. All coordinates are continuous pixels: the right edge of the picture is at x = width.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import Float32, Polygon, UInt8

# Orientation -> (swap x and y, then mirror x, then mirror y), each in the frame reached so far.
_STEPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_FLIP_CODE = {(True, False): 1, (False, True): 0, (True, True): -1}


def swaps_sides(orientation: int) -> bool:
    """Whether the upright picture has the stored one's width as its height."""
    return _STEPS[orientation][0]


def is_mirrored(orientation: int) -> bool:
    """Whether left and right change places on the way from the stored picture to the upright one."""
    return sum(_STEPS[orientation]) % 2 == 1


def upright_size(stored_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    h, w = stored_hw
    return (w, h) if swaps_sides(orientation) else (h, w)


def stored_size(upright_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    return upright_size(upright_hw, orientation)


def upright_image(stored: UInt8, orientation: int) -> UInt8:
    """Pixels (H, W) or (H, W, C), turned upright; contiguous. Orientation 1 gives the array itself."""
    swap, mirror_x, mirror_y = _STEPS[orientation]
    image = cv2.transpose(stored) if swap else stored
    return cv2.flip(image, _FLIP_CODE[mirror_x, mirror_y]) if mirror_x or mirror_y else image


def upright_points(points_xy: NDArray[np.floating], stored_hw: tuple[int, int], orientation: int) -> Float32:
    """Points (..., 2) of the stored picture as points of the upright one."""
    return _turned(points_xy, stored_hw, orientation).astype(np.float32)


def _turned(points_xy: NDArray[np.floating], stored_hw: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    swap, mirror_x, mirror_y = _STEPS[orientation]
    points = np.array(points_xy[..., ::-1] if swap else points_xy, dtype=np.float64)
    h, w = upright_size(stored_hw, orientation)
    if mirror_x:
        points[..., 0] = w - points[..., 0]
    if mirror_y:
        points[..., 1] = h - points[..., 1]
    return points


def upright_boxes(boxes_xyxy: NDArray[np.floating], stored_hw: tuple[int, int], orientation: int) -> Float32:
    """Boxes (N, 4) of the stored picture; a reversed box stays reversed, it is not mended here."""
    corners = upright_points(boxes_xyxy.reshape(-1, 2, 2), stored_hw, orientation)
    _, mirror_x, mirror_y = _STEPS[orientation]
    for axis, mirrored in enumerate((mirror_x, mirror_y)):
        if mirrored:  # the former right edge is now the left one
            corners[..., axis] = corners[:, ::-1, axis]
    return corners.reshape(-1, 4)


def upright_polygon(polygon: Polygon, stored_hw: tuple[int, int], orientation: int) -> Polygon:
    """A ring `(x0, y0, x1, y1, ...)` of the stored picture. Mirroring reverses its direction, not its points."""
    if orientation == 1:
        return polygon
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    return tuple(float(v) for v in upright_points(points, stored_hw, orientation).reshape(-1))


def upright_keypoints(
    keypoints: NDArray[np.float64], stored_hw: tuple[int, int], orientation: int
) -> NDArray[np.float64]:
    """Keypoints (P, 3) of x, y, v as COCO has them; 0, 0, 0 is none and stays so."""
    turned = keypoints.copy()
    there = keypoints.any(axis=1)
    turned[there, :2] = _turned(keypoints[there, :2], stored_hw, orientation)
    return turned
