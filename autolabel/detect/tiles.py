"""Any detector on overlapping tiles of a picture, for small objects on large pictures.

Every tile is shown to the inner detector as if it were the picture, and so is the whole picture. Then boxes become
objects by one rule: **two boxes of two views are one object when they are the same box in the area that both views
see.** So a box that ends at a tile's border finds the whole box of the neighbouring tile, two halves find each other
in the overlap, and two neighbours that only look alike somewhere else do not.

1. Of two boxes of one class from two views, the parts in the common area are compared; with an IoU of `match_iou` or
   more they are joined, the best pair first. No object takes two boxes of one view: that view saw two objects.
2. Of an object that some view sees whole, the whole box stays: that of the smallest view, then of the highest score.
   A box is cut when it comes within `EDGE` of the tile's side to a border of the tile that is none of the picture.
3. An object that is cut in every view gets the box around its parts.
4. A box that is cut, that found no partner, and of which `COVERED` lies in a whole object of its class is a part of
   that object and goes.

The score is the highest of the joined boxes. An object no larger than the overlap is whole in one tile at least.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from autolabel.core.errors import SettingError
from autolabel.core.protocols import Detector
from autolabel.core.types import Category, Detections, Float32, Frame
from autolabel.ops.boxes import area_xyxy, iou_xyxy, meet_xyxy
from autolabel.ops.returned import detections_of
from autolabel.ops.settings import count, flag, number
from autolabel.ops.views import frame_view
from autolabel.ops.windows import Window

EDGE = 0.01
"""How near to a border a box may be taken to be cut, as a fraction of the tile's side: detectors miss by some
pixels."""
COVERED = 0.8
"""The part of a cut box that must lie in a whole object for the box to be a part of it."""
PAIRS_AT_ONCE = 1 << 20
"""Pairs of boxes that are compared at once: 40 MB or so."""


class TiledDetector:
    """`inner` is shown tiles of `size` x `size` px that share `overlap` of their side with the next one, and with
    `whole_picture` the picture at once. Where one tile holds the picture, that is all."""

    def __init__(
        self, *, inner: Detector, size: int, overlap: float, whole_picture: bool, match_iou: float
    ) -> None:
        if inner.categories is None:
            raise SettingError("inner must find boxes; existing ones (detect=labels) need no tiles")
        self._inner = inner
        self._size = count("size", size, 32, 100_000)
        self._overlap = number("overlap", overlap, 0, 0.9)
        self._whole_picture = flag("whole_picture", whole_picture)
        self._match_iou = number("match_iou", match_iou, 0.05, 1)

    @property
    def categories(self) -> tuple[Category, ...] | None:
        return self._inner.categories

    @property
    def identity(self) -> Mapping[str, str]:
        return self._inner.identity

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Objects of each frame, best score first."""
        views = [self._views(frame.info.size_hw) for frame in frames]
        seen = [frame_view(f, w) for f, some in zip(frames, views, strict=True) for w in some]
        found = iter(detections_of(self._inner, seen, self.categories or (), key="detect.inner"))
        return [
            self._objects(frame, some, [next(found) for _ in some])
            for frame, some in zip(frames, views, strict=True)
        ]

    def _views(self, size_hw: tuple[int, int]) -> list[Window]:
        tiles = tile_windows(size_hw, self._size, self._overlap)
        height, width = size_hw
        return [*tiles, (0, 0, width, height)] if self._whole_picture and len(tiles) > 1 else tiles

    def _objects(self, frame: Frame, views: Sequence[Window], found: Sequence[Detections]) -> Detections:
        if len(views) == 1:
            return found[0]
        objects = joined(placed(views, found, frame.info.size_hw), views, self._match_iou)
        return replace(
            objects, notes=tuple(dict.fromkeys(chain.from_iterable(of_view.notes for of_view in found)))
        )


def tile_windows(size_hw: tuple[int, int], size: int, overlap: float) -> list[Window]:
    """Tiles of one size that cover the picture, in reading order: as few as share `overlap` of their side with the
    next one, spread evenly. None is larger than the picture."""
    height, width = size_hw
    return [
        (x, y, min(x + size, width), min(y + size, height))
        for y in _starts(height, size, overlap)
        for x in _starts(width, size, overlap)
    ]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [0]
    step = max(math.floor(size * (1 - overlap)), 1)
    gaps = math.ceil((length - size) / step)
    return [(length - size) * i // gaps for i in range(gaps + 1)]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes of all views in pixels of the picture, parallel (N,): the number of the view, whether a border of the
    view cuts the box."""

    xyxy: Float32
    scores: Float32
    category_ids: np.ndarray
    view: np.ndarray
    cut: np.ndarray


def placed(views: Sequence[Window], found: Sequence[Detections], size_hw: tuple[int, int]) -> Boxes:
    """What each view found, moved to its place in the picture."""
    height, width = size_hw
    parts = []
    for window, detections in zip(views, found, strict=True):
        x0, y0, x1, y1 = window
        boxes = detections.boxes_xyxy + np.array([x0, y0, x0, y0], np.float32)
        margin = EDGE * np.array([x1 - x0, y1 - y0] * 2)
        inner_border = np.array(window) != np.array([0, 0, width, height])
        cut = ((np.abs(boxes - np.array(window, np.float32)) <= margin) & inner_border).any(axis=1)
        parts.append((boxes.astype(np.float32), cut))
    counts = [len(detections) for detections in found]
    return Boxes(
        np.concatenate([boxes for boxes, _ in parts]).reshape(-1, 4),
        np.concatenate([detections.scores for detections in found]),
        np.concatenate([detections.category_ids for detections in found]),
        np.repeat(np.arange(len(views)), counts),
        np.concatenate([cut for _, cut in parts]),
    )


def joined(boxes: Boxes, views: Sequence[Window], match_iou: float) -> Detections:
    """The objects that the boxes of all views are of, best score first."""
    windows = np.array(views, np.float32)
    groups = _groups(boxes, _matches(boxes, windows, match_iou))
    sizes = area_xyxy(windows)[boxes.view]
    xyxy = np.array([_box(boxes, members, sizes) for members in groups], np.float32).reshape(-1, 4)
    scores = np.array([boxes.scores[members].max() for members in groups], np.float32)
    ids = np.array([boxes.category_ids[members[0]] for members in groups], np.int64)
    is_cut = np.array([boxes.cut[members].all() for members in groups], bool)
    alone = np.array([len(members) == 1 for members in groups], bool)
    stays = np.flatnonzero(~_parts_of_whole(xyxy, ids, alone & is_cut, ~is_cut))
    order = stays[np.argsort(-scores[stays], kind="stable")]
    return Detections(xyxy[order], scores[order], ids[order])


def _box(boxes: Boxes, members: np.ndarray, sizes: Float32) -> Float32:
    """The box of an object: the whole one of the smallest view, the best scored of equals; else around all parts."""
    whole = members[~boxes.cut[members]]
    if len(whole):
        best: Float32 = boxes.xyxy[whole[np.lexsort((-boxes.scores[whole], sizes[whole]))[0]]]
        return best
    parts = boxes.xyxy[members]
    return np.concatenate([parts[:, :2].min(axis=0), parts[:, 2:].max(axis=0)])


def _matches(boxes: Boxes, windows: Float32, match_iou: float) -> list[tuple[int, int]]:
    """Pairs of boxes of two views that are the same box where both views see, the best first."""
    found: list[tuple[float, int, int]] = []
    rows_of = [np.flatnonzero(boxes.view == number) for number in range(len(windows))]
    for a, b in np.argwhere(np.triu(meet_xyxy(windows, windows) > 0, 1)):
        low, high = np.maximum(windows[a, :2], windows[b, :2]), np.minimum(windows[a, 2:], windows[b, 2:])
        mine, theirs = (np.clip(boxes.xyxy[rows_of[v]], np.tile(low, 2), np.tile(high, 2)) for v in (a, b))
        iou = iou_xyxy(mine, theirs)
        same = boxes.category_ids[rows_of[a]][:, None] == boxes.category_ids[rows_of[b]][None]
        for i, j in np.argwhere((iou >= match_iou) & same):
            found.append((-float(iou[i, j]), int(rows_of[a][i]), int(rows_of[b][j])))
    return [(i, j) for _, i, j in sorted(found)]


def _groups(boxes: Boxes, matches: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The rows of each object; no two of one view."""
    group = {row: [row] for row in range(len(boxes.xyxy))}
    for i, j in matches:
        ours, theirs = group[i], group[j]
        if ours is theirs or {int(boxes.view[r]) for r in ours} & {int(boxes.view[r]) for r in theirs}:
            continue
        ours += theirs
        for row in theirs:
            group[row] = ours
    return [np.array(sorted(members)) for row, members in group.items() if min(members) == row]


def _parts_of_whole(xyxy: Float32, ids: np.ndarray, asked: np.ndarray, is_whole: np.ndarray) -> np.ndarray:
    """Which of the `asked` boxes (N,), none of them whole, lie in a whole object of their class."""
    areas = np.maximum(area_xyxy(xyxy), np.float32(1e-6))
    rows, whole = np.flatnonzero(asked), np.flatnonzero(is_whole)
    found = np.zeros(len(xyxy), bool)
    for some in np.array_split(rows, len(rows) * len(whole) // PAIRS_AT_ONCE + 1):
        covered = meet_xyxy(xyxy[some], xyxy[whole]) / areas[some, None]
        found[some] = ((covered >= COVERED) & (ids[some, None] == ids[whole])).any(axis=1)
    return found
