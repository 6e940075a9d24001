"""Clicks all over the picture, and over enlarged parts of it: everything that is there, without a detector.

The questions and filters of `sam2.automatic_mask_generator.SAM2AutomaticMaskGenerator`, by other names:
`points_per_side`, `crop_layers` (crop_n_layers), `crop_overlap` (crop_overlap_ratio), `crop_points_downscale`
(crop_n_points_downscale_factor), `three_masks` (multimask_output), `min_predicted_iou` (pred_iou_thresh),
`min_stability` (stability_score_thresh, at its offset of 1), `box_iou` (box_nms_thresh), `crop_iou`
(crop_nms_thresh). Of its own: `min_area_px`, `max_area_fraction` and `mask_iou`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autolabel.core.protocols import About
from autolabel.core.types import NO_OBJECT, Detections, Frame, Prompts, Sieve
from autolabel.ops.points import grid_xy
from autolabel.ops.settings import count, flag, fraction, optional
from autolabel.ops.windows import crop_windows


class GridPrompter:
    """`points_per_side` squared clicks on the picture; in crop layer i, 2**i by 2**i overlapping parts of it are
    asked as pictures of their own, each with a grid that is coarser by `crop_points_downscale` ** i. What becomes of
    the answers: `Sieve`. Detections are left alone."""

    identity: Mapping[str, str] = {}
    about: About = "everything"

    def __init__(
        self,
        *,
        points_per_side: int,
        crop_layers: int,
        crop_overlap: float,
        crop_points_downscale: int,
        three_masks: bool,
        min_predicted_iou: float,
        min_stability: float,
        min_area_px: int,
        max_area_fraction: float,
        box_iou: float,
        crop_iou: float,
        mask_iou: float | None,
    ) -> None:
        self._layers = count("crop_layers", crop_layers, 0, 4)
        self._overlap = fraction("crop_overlap", crop_overlap)
        sides = count("points_per_side", points_per_side, 1, 512)
        downscale = count("crop_points_downscale", crop_points_downscale, 1, 16)
        self._grids = [grid_xy(max(int(sides / downscale**i), 1)) for i in range(self._layers + 1)]
        self._sieve = Sieve(
            flag("three_masks", three_masks),
            fraction("min_predicted_iou", min_predicted_iou),
            fraction("min_stability", min_stability),
            count("min_area_px", min_area_px, 1, 2**31),
            fraction("max_area_fraction", max_area_fraction),
            fraction("box_iou", box_iou),
            fraction("crop_iou", crop_iou),
            optional(fraction, "mask_iou", mask_iou),
        )

    def prompt(
        self, frames: Sequence[Frame], detections: Sequence[Detections], asked: Sequence[Sequence[int]]
    ) -> list[Prompts]:
        return [self._one(frame.info.size_hw) for frame in frames]

    def _one(self, size_hw: tuple[int, int]) -> Prompts:
        points, windows = [], []
        for layer, window in crop_windows(size_hw, self._layers, self._overlap):
            x0, y0, x1, y1 = window
            points.append(self._grids[layer] * (x1 - x0, y1 - y0) + (x0, y0))
            windows.append(np.tile(np.array(window, np.int64), (len(points[-1]), 1)))
        xy = np.concatenate(points).astype(np.float32)[:, None]
        return Prompts(
            points_xy=xy,
            point_signs=np.ones(xy.shape[:2], np.int64),
            objects=np.full(len(xy), NO_OBJECT, np.int64),
            windows_xyxy=np.concatenate(windows) if self._layers else None,
            sieve=self._sieve,
        )
