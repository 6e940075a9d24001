"""Points as prompts: the most-inside point of a mask, grids, and what is wrong with a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import Float32, Int64, Prompts, Rle
from autolabel.ops.boxes import are_sound, box_problem
from autolabel.ops.masks import decode_crop, is_empty

PADDING = -1


def most_inside_xy(rle: Rle) -> tuple[float, float] | None:
    """The centre of the pixel that is farthest from the mask's outside, in pixels; None for an empty mask.

    The picture's border counts as outside. Of several such pixels the first in reading order.
    """
    crop, x0, y0 = decode_crop(rle)
    if not crop.size:
        return None
    x, y = farthest_inside(crop)
    return x0 + x + 0.5, y0 + y + 0.5


def farthest_inside(mask: np.ndarray) -> tuple[int, int]:
    """Column and row of the nonzero cell of `mask` (h, w) that is farthest from any zero and from the border."""
    framed = np.pad((mask != 0).astype(np.uint8), 1)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = divmod(int(distance.argmax()), distance.shape[1])
    return column, row


def centres_xy(boxes_xyxy: Float32) -> Float32:
    """Middles (N, 2) of boxes (N, 4)."""
    return ((boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2).astype(np.float32)


def grid_xy(per_side: int) -> NDArray[np.float64]:
    """`per_side` squared points (N, 2), evenly spaced in the unit square, in reading order.

    The points of `sam2.utils.amg.build_point_grid`, in float64.
    """
    offset = 1 / (2 * per_side)
    line = np.linspace(offset, 1 - offset, per_side)
    xs, ys = np.meshgrid(line, line)
    return np.stack([xs, ys], axis=-1).reshape(-1, 2)


def padded(points: list[Float32], signs: list[Int64]) -> tuple[Float32, Int64]:
    """Rows of different numbers of points (P_i, 2) and signs as (N, P, 2) and (N, P), padded with sign -1."""
    longest = max((len(row) for row in signs), default=0)
    xy = np.zeros((len(points), longest, 2), np.float32)
    filled = np.full((len(points), longest), PADDING, np.int64)
    for i, (row, sign) in enumerate(zip(points, signs, strict=True)):
        xy[i, : len(row)], filled[i, : len(row)] = row, sign
    return xy, filled


def prompt_problems(prompts: Prompts, size_hw: tuple[int, int]) -> dict[int, str]:
    """Why prompts cannot be asked of a picture of `size_hw`, by their row."""
    rows: Sequence[int] = range(len(prompts))
    if prompts.boxes_xyxy is not None and prompts.points_xy is None and prompts.masks is None:
        rows = np.flatnonzero(~are_sound(prompts.boxes_xyxy, size_hw)).tolist()
    found = ((row, prompt_problem(prompts, row, size_hw)) for row in rows)
    return window_problems(prompts, size_hw) | {row: problem for row, problem in found if problem is not None}


def window_problems(prompts: Prompts, size_hw: tuple[int, int]) -> dict[int, str]:
    """Why the windows of prompts are not parts of a picture of `size_hw`, or their boxes not in them, by their row."""
    windows, boxes, (h, w) = prompts.windows_xyxy, prompts.boxes_xyxy, size_hw
    if windows is None:
        return {}
    x0, y0, x1, y1 = windows.T
    bad = ~((x0 >= 0) & (y0 >= 0) & (x0 < x1) & (y0 < y1) & (x1 <= w) & (y1 <= h))
    problems = {
        row: f"bad_window: {windows[row].tolist()} is not a part of the {w}x{h} image"
        for row in np.flatnonzero(bad).tolist()
    }
    if boxes is not None:
        low, high = np.maximum(boxes[:, :2], windows[:, :2]), np.minimum(boxes[:, 2:], windows[:, 2:])
        apart = (low >= high).any(axis=1) & ~bad  # never true of NaN, which is not a box
        problems |= {
            row: f"bad_window: the box is not in {windows[row].tolist()}" for row in np.flatnonzero(apart).tolist()
        }
    return problems


def prompt_problem(prompts: Prompts, row: int, size_hw: tuple[int, int]) -> str | None:
    """Why a prompt cannot be asked of a picture of `size_hw`, as a drop reason, or None."""
    box = None if prompts.boxes_xyxy is None else prompts.boxes_xyxy[row]
    mask = None if prompts.masks is None else prompts.masks[row]
    points, signs = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    if prompts.points_xy is not None and prompts.point_signs is not None:
        real = prompts.point_signs[row] != PADDING
        points, signs = prompts.points_xy[row][real], prompts.point_signs[row][real]
    has_box = box is not None and not np.isnan(box).all()
    if not has_box and mask is None and not len(points):
        return "bad_prompt: it holds no box, no point and no mask"
    problem = box_problem(box, size_hw) if box is not None and has_box else None
    problem = problem or point_problem(points, signs, size_hw) or mask_problem(mask, size_hw)
    if problem is None and not has_box and mask is None and not (signs == 1).any():
        return "bad_point: every point is outside the object, and there is no box or mask"
    return problem


def point_problem(points_xy: Float32, signs: Int64, size_hw: tuple[int, int]) -> str | None:
    """Why points (P, 2) with signs (P,) cannot be asked."""
    h, w = size_hw
    for (x, y), sign in zip(points_xy.tolist(), signs.tolist(), strict=True):
        if sign not in (0, 1):
            return f"bad_point: [{x:.6g}, {y:.6g}] has no sign (1 inside, 0 outside)"
        if not (np.isfinite(x) and np.isfinite(y)):
            return f"bad_point: not finite [{x:.6g}, {y:.6g}]"
        if not (0 <= x < w and 0 <= y < h):
            return f"bad_point: outside the {w}x{h} image [{x:.6g}, {y:.6g}]"
    return None


def mask_problem(mask: Rle | None, size_hw: tuple[int, int]) -> str | None:
    if mask is None:
        return None
    if mask.size_hw != size_hw:
        return f"bad_mask: it is for {list(mask.size_hw)}, the picture is {list(size_hw)} (h, w)"
    return "bad_mask: no pixel is inside" if is_empty(mask) else None
