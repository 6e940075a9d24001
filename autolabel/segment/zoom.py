"""Any segmenter, with small objects shown enlarged: a box that would be a few pixels wide for the model is encoded
again from a crop around it. Its mask comes back to its place in the picture as run lengths.

A model sees every picture at one size, so what counts is the part of the picture that a box takes. Boxes are judged
one by one: large ones are asked of the whole picture as before, which is not even encoded when there are none. Crops
of one picture that overlap are one crop as long as every box in it stays large enough, so a crowd of small objects
costs few encodings. All of them, of all pictures, go to the inner segmenter in one call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autolabel.core.errors import SettingError
from autolabel.core.protocols import Later, Segmenter
from autolabel.core.types import Float32, Frame, PromptedMask, Prompts
from autolabel.ops.boxes import box_problem
from autolabel.ops.points import PADDING
from autolabel.ops.settings import count, number
from autolabel.ops.views import View, ask_views
from autolabel.ops.windows import Window, window_pixels


class ZoomSegmenter:
    """`inner` sees boxes enlarged whose longer side takes less than `smaller_than` of the picture's side: 0.0625 is
    64 of the 1024 px that SAM 2 sees, 32 of the nano model's 512. There the box takes `fill` of the crop's side, at
    least `share` of that where crops are joined. No crop is smaller than `min_crop` px.

    Prompts without a box, with a positive click or the whole mask far from it, and those of a grid are asked as
    they are.
    """

    def __init__(self, *, inner: Segmenter, smaller_than: float, fill: float, share: float, min_crop: int) -> None:
        self._inner = inner
        self._smaller_than = number("smaller_than", smaller_than, 0, 1)
        self._fill = number("fill", fill, 0.01, 1)
        self._share = number("share", share, 0.01, 1)
        self._min_crop = count("min_crop", min_crop, 1, 100_000)
        if self._fill * self._share <= self._smaller_than:
            raise SettingError(
                f"fill x share = {self._fill * self._share:g} must be above smaller_than = "
                f"{self._smaller_than:g}, or boxes would not be enlarged"
            )

    @property
    def identity(self) -> Mapping[str, str]:
        return self._inner.identity

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        """The inner segmenter's answers, with the masks of small boxes from their crops."""
        return self.begin(frames, prompts)()

    def begin(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> Later:
        """Like `segment`; masks come late where the inner segmenter's do."""
        plans = [self._views(i, prompts[i], frame.info.size_hw) for i, frame in enumerate(frames)]
        given = ask_views(
            self._inner,
            frames,
            [_clicks_within(one, views) for one, views in zip(prompts, plans, strict=True)],
            [view for views in plans for view in views],
            key="segment.inner",
        )
        return lambda: [
            sorted((answer for _, answer in some), key=lambda answer: answer.prompt) for some in given()
        ]

    def _views(self, picture: int, prompts: Prompts, size_hw: tuple[int, int]) -> list[View]:
        """The whole picture for prompts that need no zoom, then the crops."""
        windows = {row: self._window(prompts, row, size_hw) for row in range(len(prompts))}
        plain = [row for row, window in windows.items() if window is None]
        crops = joined({row: window for row, window in windows.items() if window is not None}, self._share)
        return [View(picture, None, plain)] * bool(plain) + [View(picture, *crop) for crop in crops]

    def _window(self, prompts: Prompts, row: int, size_hw: tuple[int, int]) -> Window | None:
        """The crop of one prompt's own; None when it is asked of the whole picture."""
        boxes = prompts.boxes_xyxy
        if boxes is None or prompts.sieve is not None or box_problem(boxes[row], size_hw) is not None:
            return None
        height, width = size_hw
        w, h = (float(v) for v in boxes[row, 2:] - boxes[row, :2])
        if max(w / width, h / height) >= self._smaller_than:
            return None
        window = square_around(boxes[row], max(math.ceil(max(w, h) / self._fill), self._min_crop), size_hw)
        smaller = window != (0, 0, width, height)
        sound = smaller and _holds_clicks(window, prompts, row) and _meets_mask(window, prompts, row)
        return window if sound else None


def joined(windows: Mapping[int, Window], share: float) -> list[tuple[Window, list[int]]]:
    """The crops by row, those that overlap made one as long as it is at most 1/`share` as wide as each alone."""
    groups: list[tuple[Window, list[int]]] = []
    for row, window in windows.items():
        for i, (together, rows) in enumerate(groups):
            both = _around(together, window)
            if _meet(together, window) and share * _side(both) <= min(_side(windows[r]) for r in (*rows, row)):
                groups[i] = both, [*rows, row]
                break
        else:
            groups.append((window, [row]))
    return groups


def square_around(box_xyxy: Float32, side: int, size_hw: tuple[int, int]) -> Window:
    """The square of `side` px with the box in its middle, moved into the picture, and no larger than that."""
    height, width = size_hw
    w, h = min(side, width), min(side, height)
    centre = (box_xyxy[:2] + box_xyxy[2:]) / 2
    x0 = min(max(round(float(centre[0]) - w / 2), 0), width - w)
    y0 = min(max(round(float(centre[1]) - h / 2), 0), height - h)
    return x0, y0, x0 + w, y0 + h


def _side(window: Window) -> int:
    return max(window[2] - window[0], window[3] - window[1])


def _around(a: Window, b: Window) -> Window:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _meet(a: Window, b: Window) -> bool:
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])


def _holds_clicks(window: Window, prompts: Prompts, row: int) -> bool:
    """Whether every positive click is inside."""
    if prompts.points_xy is None or prompts.point_signs is None:
        return True
    return bool(_inside(prompts.points_xy[row], window)[prompts.point_signs[row] == 1].all())


def _meets_mask(window: Window, prompts: Prompts, row: int) -> bool:
    """Whether something of the mask is inside: models answer an empty one with a plausible mask."""
    mask = None if prompts.masks is None else prompts.masks[row]
    return mask is None or bool(window_pixels(mask, window).any())


def _inside(points_xy: Float32, window: Window) -> np.ndarray:
    low, high = np.array(window[:2]), np.array(window[2:])
    return np.asarray(((points_xy >= low) & (points_xy < high)).all(axis=-1))


def _clicks_within(prompts: Prompts, views: Sequence[View]) -> Prompts:
    """Without the negative clicks that are outside of their prompt's crop."""
    if prompts.points_xy is None or prompts.point_signs is None:
        return prompts
    signs = prompts.point_signs.copy()
    for window, rows in ((view.window, view.rows) for view in views if view.window is not None):
        signs[rows] = np.where(_inside(prompts.points_xy[rows], window), signs[rows], PADDING)
    return replace(prompts, point_signs=signs)
