"""A part of a picture as if it were the picture: its frame, and prompts in its coordinates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autolabel.core.types import Frame, Prompts
from autolabel.ops.boxes import clip_xyxy
from autolabel.ops.windows import Window, cut


def frame_view(frame: Frame, window: Window) -> Frame:
    """The window's pixels, not copied."""
    x0, y0, x1, y1 = window
    info = replace(frame.info, width=x1 - x0, height=y1 - y0)
    return Frame(frame.ref, frame.image_rgb[y0:y1, x0:x1], info)


def prompts_view(prompts: Prompts, window: Window) -> Prompts:
    """The same questions in the window's pixels: boxes clipped to it, masks cut. Points keep their place, also
    where that is outside."""
    x0, y0, x1, y1 = window
    corner = np.array([x0, y0], np.float32)
    boxes, points = prompts.boxes_xyxy, prompts.points_xy
    return replace(
        prompts,
        boxes_xyxy=None if boxes is None else clip_xyxy(boxes - np.tile(corner, 2), (y1 - y0, x1 - x0)),
        points_xy=None if points is None else points - corner,
        masks=None if prompts.masks is None else tuple(m and cut(m, window) for m in prompts.masks),
        windows_xyxy=None,
    )
