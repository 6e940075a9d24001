"""Other views of a picture: a part of it as if it were the picture, or its mirror image, and prompts to match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autolabel.core.protocols import Segmenter
from autolabel.core.types import Frame, PromptedMask, Prompts, Rle
from autolabel.ops.boxes import clip_xyxy
from autolabel.ops.masks import decode_crop, encode_crop
from autolabel.ops.orientation import upright_boxes, upright_image, upright_points
from autolabel.ops.returned import answers_of
from autolabel.ops.windows import Window, cut, paste


@dataclass(frozen=True, slots=True)
class View:
    """What is encoded once: a window of picture number `picture`, None for all of it, and the prompts asked of it."""

    picture: int
    window: Window | None
    rows: Sequence[int]


Seen = list[list[tuple[Window | None, PromptedMask]]]
"""For each picture the answers to its prompts, and the window that each was seen in."""


def ask_views(
    segmenter: Segmenter,
    frames: Sequence[Frame],
    prompts: Sequence[Prompts],
    views: Sequence[View],
    key: str = "segment",
) -> Callable[[], Seen]:
    """Asks what `views` ask of the pictures, in one call. What is returned gives the answers view by view, their masks
    and numbers those of the picture: for any thread, once, and without pixels. Raises ComponentError, then or there."""
    seen = [_seen(frames[v.picture], prompts[v.picture].select(v.rows), v.window) for v in views]
    given = answers_of(segmenter, [frame for frame, _ in seen], [some for _, some in seen], key) if seen else list
    sizes = [frame.info.size_hw for frame in frames]

    def settle() -> Seen:
        answers: Seen = [[] for _ in sizes]
        for view, masks in zip(views, given(), strict=True):
            size_hw = sizes[view.picture]
            answers[view.picture] += [(view.window, _in_picture(mask, view, size_hw)) for mask in masks]
        return answers

    return settle


def _seen(frame: Frame, prompts: Prompts, window: Window | None) -> tuple[Frame, Prompts]:
    return (frame, prompts) if window is None else (frame_view(frame, window), prompts_view(prompts, window))


def _in_picture(mask: PromptedMask, view: View, size_hw: tuple[int, int]) -> PromptedMask:
    number = view.rows[mask.prompt]
    if view.window is None:
        return mask if number == mask.prompt else replace(mask, prompt=number)
    return replace(mask, prompt=number, mask=paste(mask.mask, view.window, size_hw))


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


_MIRRORED = 2
"""EXIF's number for left and right exchanged."""


def frame_mirrored(frame: Frame) -> Frame:
    """Left and right exchanged, copied."""
    return Frame(frame.ref, upright_image(frame.image_rgb, _MIRRORED), frame.info)


def prompts_mirrored(prompts: Prompts, size_hw: tuple[int, int]) -> Prompts:
    """The same questions about the mirror image of a picture of that size."""
    boxes, points = prompts.boxes_xyxy, prompts.points_xy
    return replace(
        prompts,
        boxes_xyxy=None if boxes is None else upright_boxes(boxes, size_hw, _MIRRORED),
        points_xy=None if points is None else upright_points(points, size_hw, _MIRRORED),
        masks=None if prompts.masks is None else tuple(m and mask_mirrored(m) for m in prompts.masks),
    )


def mask_mirrored(rle: Rle) -> Rle:
    """Left and right exchanged."""
    crop, x0, y0 = decode_crop(rle)
    return encode_crop(crop[:, ::-1], rle.size_hw[1] - x0 - crop.shape[1], y0, rle.size_hw)
