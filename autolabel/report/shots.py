"""The pictures of a page: each file is read once, however many of its objects are shown, and all together keep to a
budget of bytes. Knows what is shown, not where on the page it stands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autolabel.core.errors import ImageError
from autolabel.core.types import ImageRecord, Instance
from autolabel.report.thumbnail import (
    MAX_SIDE,
    Thumbnail,
    Window,
    draw,
    missing,
    picture_of,
    window_around,
)

FULL = "left out: the page holds enough pictures"


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture to show: all of it, or the `window`, with these objects and their boxes if `boxes`."""

    record: ImageRecord
    instances: Sequence[Instance]
    window: Window | None = None
    boxes: bool = False


class Shots:
    """Asks for pictures first (`add`), takes them all (`take`), and hands them out by the number that `add` gave."""

    def __init__(self, max_bytes: int, max_side: int = MAX_SIDE) -> None:
        self._asked: list[Shot] = []
        self._taken: list[Thumbnail] = []
        self._max_bytes = max_bytes
        self._max_side = max_side
        self.bytes = 0
        self.shown = 0
        self.beyond_budget = 0
        self.unread = 0

    def add(self, shot: Shot) -> int:
        self._asked.append(shot)
        return len(self._asked) - 1

    def __getitem__(self, number: int) -> Thumbnail:
        return self._taken[number]

    def __len__(self) -> int:
        return len(self._asked)

    def take(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Read every file once. The budget goes to those that were asked for first."""
        by_picture: defaultdict[str, list[int]] = defaultdict(list)
        for number, shot in enumerate(self._asked):
            by_picture[shot.record.image_id].append(number)
        taken: dict[int, Thumbnail] = {}
        for numbers in by_picture.values():
            taken.update(self._one_picture(numbers))
            progress(len(numbers))
        self._taken = [self._within_budget(taken[n], self._asked[n]) for n in range(len(self._asked))]

    def _one_picture(self, numbers: Sequence[int]) -> dict[int, Thumbnail]:
        shots = {number: self._asked[number] for number in numbers}
        try:
            image_rgb = picture_of(shots[numbers[0]].record)
        except ImageError as error:
            self.unread += 1
            problem = f"{error.code}: {error.detail}"
            return {number: missing(shot.record, problem, shot.window) for number, shot in shots.items()}
        return {
            number: draw(image_rgb, shot.instances, window=shot.window, max_side=self._max_side, boxes=shot.boxes)
            for number, shot in shots.items()
        }

    def _within_budget(self, thumbnail: Thumbnail, shot: Shot) -> Thumbnail:
        if thumbnail.problem:
            return thumbnail
        size = len(thumbnail.picture) + len(thumbnail.overlay)
        if self.bytes + size > self._max_bytes:
            self.beyond_budget += 1
            return missing(shot.record, FULL, shot.window)
        self.bytes += size
        self.shown += 1
        return thumbnail


def whole(record: ImageRecord) -> Shot:
    """The picture with all objects that were kept."""
    return Shot(record, record.instances)


def close_up(record: ImageRecord, instance: Instance, *, boxes: bool = False) -> Shot:
    """One object and what is around it."""
    from autolabel.ops.masks import bounds_xyxy

    assert record.info is not None, "objects are found in decoded pictures alone"
    tight = None if instance.mask is None else bounds_xyxy(instance.mask)
    box = instance.box_xyxy if tight is None else _union(instance.box_xyxy, tight)
    return Shot(record, (instance,), window_around(box, record.info.size_hw), boxes)


def _union(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float, float]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
