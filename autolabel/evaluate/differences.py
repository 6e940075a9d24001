"""What differs between two runs, object by object. Reads records alone; opens no picture and loads no model.

Pictures are joined by image id (those that have two: counterparts.py), objects within a picture one to one and
whatever their class: first those with the very same prompt box (the same question, however far its answers are apart),
then by falling mask IoU. What one run keeps may so meet what the other dropped. Memory holds one picture's objects at
a time.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from autolabel.core.errors import ConfigError
from autolabel.core.types import Category, ImageRecord, Instance
from autolabel.ops.masks import area_px, ious
from autolabel.ops.settings import number

Kind = Literal["added", "removed", "class_changed", "moved", "now_kept", "now_dropped"]
KINDS: tuple[Kind, ...] = ("added", "removed", "class_changed", "moved", "now_kept", "now_dropped")
"""`now_kept` and `now_dropped`: found by both runs, kept by one. A changed class goes before a moved mask."""

Meeting = Literal["compared", "only_before", "only_after", "other_picture", "other_status"]
"""`other_picture`: the same id, but the files' bytes differ. `other_status`: only one of the runs has labels."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One object. `before` and `after` are None where a run has nothing that fits; `share` is the part of the
    picture's pixels whose label differs, `reason` why a run dropped it."""

    kind: Kind
    before: Instance | None
    after: Instance | None
    iou: float | None
    share: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """One picture of either run. `identical` objects have equal masks and classes, `close` ones nearly so."""

    meeting: Meeting
    before: ImageRecord | None
    after: ImageRecord | None
    identical: int = 0
    close: int = 0
    differences: tuple[Difference, ...] = ()

    @property
    def record(self) -> ImageRecord:
        """The first run's, else the second's."""
        record = self.before or self.after
        assert record is not None
        return record


@dataclass(frozen=True, slots=True)
class Rules:
    """Masks of one object have an IoU of `match_iou` at least; below `moved_iou` its mask has moved. Class names
    by category id, for either run; `classes` false: they are two vocabularies, and classes are not compared."""

    match_iou: float
    moved_iou: float
    names_before: Mapping[int, str]
    names_after: Mapping[int, str]
    classes: bool = True

    def same_class(self, before: Instance, after: Instance) -> bool:
        return not self.classes or self.name(before=before) == self.name(after=after)

    def name(self, before: Instance | None = None, after: Instance | None = None) -> str:
        """The class of an object of either run."""
        one, names = (before, self.names_before) if before is not None else (after, self.names_after)
        return "" if one is None else names.get(one.category_id, str(one.category_id))


def rules(before: Sequence[Category], after: Sequence[Category], *, match_iou: float, moved_iou: float) -> Rules:
    """For runs with these classes. Raises ConfigError for thresholds out of range or the wrong way round."""
    match_iou, moved_iou = number("match_iou", match_iou, 0.01, 1), number("moved_iou", moved_iou, 0.01, 1)
    if moved_iou < match_iou:
        raise ConfigError(f"moved_iou must be at least match_iou = {match_iou:g}, got {moved_iou:g}")
    ours, theirs = ({c.id: c.name for c in categories} for categories in (before, after))
    shared = not ours or not theirs or not set(ours.values()).isdisjoint(theirs.values())
    return Rules(match_iou, moved_iou, ours, theirs, classes=shared)


def compare_runs(before: Iterable[ImageRecord], after: Iterable[ImageRecord], by: Rules) -> Iterator[Compared]:
    """Every picture of either run once. Both come in the order of the bytes of their image ids."""
    for one, other in joined(before, after):
        yield compare_pictures(one, other, by)


def joined(
    before: Iterable[ImageRecord], after: Iterable[ImageRecord]
) -> Iterator[tuple[ImageRecord | None, ImageRecord | None]]:
    """Merge join by image id: one picture of each run in memory."""
    left, right = _rising(before), _rising(after)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and _key(one) < _key(other)):
            yield one, None
            one = next(left, None)
        elif one is None or _key(other) < _key(one):
            yield None, other
            other = next(right, None)
        else:
            yield one, other
            one, other = next(left, None), next(right, None)


def compare_pictures(before: ImageRecord | None, after: ImageRecord | None, by: Rules) -> Compared:
    """One picture in both runs; objects are compared only where both have labels for the same pixels."""
    if before is None or after is None:
        return Compared("only_after" if before is None else "only_before", before, after)
    labelled = [record.status in ("ok", "empty") for record in (before, after)]
    if not all(labelled):
        same = before.status == after.status and before.code == after.code
        return Compared("compared" if same else "other_status", before, after)
    if _other_picture(before, after):
        return Compared("other_picture", before, after)
    return _objects(before, after, by)


def _objects(before: ImageRecord, after: ImageRecord, by: Rules) -> Compared:
    pixels = 1 if before.info is None else max(before.info.width * before.info.height, 1)
    left, right = list(before.instances), list(after.instances)
    identical = close = 0
    found: list[Difference] = []
    for one, other, iou in _paired(left, right, by):
        same = by.same_class(one, other)
        if same and iou >= by.moved_iou:
            identical += iou == 1.0
            close += iou != 1.0
        else:
            kind: Kind = "moved" if same else "class_changed"
            changed = _changed_px(one, other, iou) if same else max(_area(one), _area(other))
            found.append(Difference(kind, one, other, iou, changed / pixels))
    lost = {d.instance.index: d for d in after.dropped}
    for one, other, iou in _paired(left, [d.instance for d in lost.values()], by):
        reason = lost[other.index].reason
        found.append(Difference("now_dropped", one, other, iou, _area(one) / pixels, reason))
    had = {d.instance.index: d for d in before.dropped}
    for one, other, iou in _paired([d.instance for d in had.values()], right, by):
        reason = had[one.index].reason
        found.append(Difference("now_kept", one, other, iou, _area(other) / pixels, reason))
    found += [Difference("removed", one, None, None, _area(one) / pixels) for one in left]
    found += [Difference("added", None, one, None, _area(one) / pixels) for one in right]
    return Compared("compared", before, after, identical, close, tuple(found))


def _paired(before: list[Instance], after: list[Instance], by: Rules) -> list[tuple[Instance, Instance, float]]:
    """Objects that are one, and their masks' IoU; they leave the two lists."""
    pairs = matched(before, after, by)
    found = [(before[i], after[j], iou) for i, j, iou in pairs]
    for objects, taken in ((before, {i for i, _, _ in pairs}), (after, {j for _, j, _ in pairs})):
        objects[:] = [one for n, one in enumerate(objects) if n not in taken]
    return found


def matched(before: Sequence[Instance], after: Sequence[Instance], by: Rules) -> list[tuple[int, int, float]]:
    """Positions of objects that are one, and the IoU of their masks (0 where one has no mask): greedily the same
    box first, then the highest IoU; among equals the same class, then the lowest index."""
    options = []
    for i, j, iou, same_box in _overlaps(before, after, by.match_iou):
        # Nothing in the order tells the runs apart: swapped runs give swapped pairs.
        indices = sorted((before[i].index, after[j].index))
        options.append((not same_box, -iou, not by.same_class(before[i], after[j]), indices, i, j))
    taken: tuple[set[int], set[int]] = set(), set()
    pairs = []
    for _, minus_iou, _, _, i, j in sorted(options):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            pairs.append((i, j, -minus_iou))
    return sorted(pairs)


def _overlaps(
    before: Sequence[Instance], after: Sequence[Instance], match_iou: float
) -> Iterator[tuple[int, int, float, bool]]:
    """Positions of two that may be one object, the IoU of their masks, and whether their boxes are the same."""
    with_mask = [[n for n, one in enumerate(objects) if one.mask is not None] for objects in (before, after)]
    table = np.zeros((len(before), len(after)))
    table[np.ix_(*with_mask)] = ious(
        [one.mask for one in before if one.mask is not None], [one.mask for one in after if one.mask is not None]
    )
    left, right = (np.array([o.box_xyxy for o in objects]).reshape(-1, 4) for objects in (before, after))
    same_box = (left[:, None] == right[None]).all(axis=2)
    for i, j in np.argwhere((table >= match_iou) | same_box).tolist():
        yield i, j, float(table[i, j]), bool(same_box[i, j])


def _area(one: Instance) -> int:
    return 0 if one.mask is None else area_px(one.mask)


def _changed_px(one: Instance, other: Instance, iou: float) -> float:
    """Pixels in one of the masks alone: with `both = iou / (1 + iou) * sum`, `sum - 2 * both`."""
    total = _area(one) + _area(other)
    return total * (1 - iou) / (1 + iou)


def _other_picture(before: ImageRecord, after: ImageRecord) -> bool:
    one, other = before.info, after.info
    if one is None or other is None:
        return one is not other
    bytes_differ = bool(one.sha256 and other.sha256) and one.sha256 != other.sha256
    return bytes_differ or one.size_hw != other.size_hw


def _key(record: ImageRecord) -> bytes:
    return os.fsencode(record.image_id)


def _rising(records: Iterable[ImageRecord]) -> Iterator[ImageRecord]:
    last: bytes | None = None
    for record in records:
        key = _key(record)
        assert last is None or last < key, "records come in the order of their image ids"
        last = key
        yield record


@dataclass(slots=True)
class DifferenceTally:
    """Counts of a whole comparison, and the `examples` strongest differences of each kind (by `share`)."""

    by: Rules
    examples: int
    meetings: Counter[Meeting] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    classes: dict[str, Counter[Kind]] = field(default_factory=dict)
    renamed: Counter[tuple[str, str]] = field(default_factory=Counter)
    identical: int = 0
    close: int = 0
    _heaps: dict[Kind, list[tuple[float, int, Compared, Difference]]] = field(default_factory=dict)
    _seen: int = 0

    def add(self, picture: Compared) -> None:
        self.meetings[picture.meeting] += 1
        self.identical += picture.identical
        self.close += picture.close
        for one in picture.differences:
            self._count(one)
            # The counter keeps the first of equals, and records from being compared.
            self._seen += 1
            entry = (one.share, -self._seen, picture, one)
            heap = self._heaps.setdefault(one.kind, [])
            if len(heap) < self.examples:
                heapq.heappush(heap, entry)
            elif heap:
                heapq.heappushpop(heap, entry)

    def _count(self, one: Difference) -> None:
        self.kinds[one.kind] += 1
        name = self.by.name(one.before, one.after)
        self.classes.setdefault(name, Counter())[one.kind] += 1
        if one.kind == "class_changed":
            self.renamed[name, self.by.name(after=one.after)] += 1

    def strongest(self, kind: Kind) -> list[tuple[Compared, Difference]]:
        """The largest share first."""
        return [(picture, one) for _, _, picture, one in sorted(self._heaps.get(kind, []), reverse=True)]
