"""An export compared with its run, object by object. How a format is read is the exporter's to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from autolabel.core.errors import ExportOutdated
from autolabel.core.protocols import Deviation, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, Instance, Rle
from autolabel.export.listing import labelled
from autolabel.export.policy import Policy, explained
from autolabel.ops.drawn import Drawn
from autolabel.ops.drawn import mask_of as drawn_mask
from autolabel.ops.masks import area_px, iou, mask_of, union

T = TypeVar("T")

Read = Callable[[ImageRecord], Iterable[tuple[int, Rle]] | None]
"""What the format's reader finds of an image: the masks with the index of the object that each is (an object may
have several), in any order; None when the image is not in the export."""

NOT_AS_WRITTEN, NOT_THERE = "not as written", "the image is not in the export"
"""The reasons of what should not be."""

Why = Callable[[ImageRecord, Instance], str]
"""Why the format changed, or left out, an object that it was given as `Instance`; called where that mask does not come
back. NOT_AS_WRITTEN where neither its settings nor its limits, which the export's report tells, account for that."""


Limit = Callable[[ImageRecord], str]
"""Why an image may not be in the export, though it can be read; else ""."""


def compare(
    run: RecordReader, read: Read, policy: Policy, why: Why | None = None, limit: Limit = lambda _: ""
) -> RoundTrip:
    """Every object of the run that has a pixel, against what is read; `iou` is with the run's own mask.

    The reason of a deviation names what the policy did, and then, in the words of `why`, what the format did.
    """
    objects = 0
    deviations: list[Deviation] = []
    for record in labelled(run):
        wanted = [i for i in record.instances if i.mask is not None and area_px(i.mask)]
        objects += len(wanted)
        if wanted:
            deviations += _of_image(record, wanted, read(record), policy, why, limit)
    return RoundTrip(objects, tuple(deviations))


def deviation(record: ImageRecord, instance: Instance, iou: float, words: Sequence[str]) -> Deviation:
    """The deviation of an object, with all that was done to it; expected when that says why it is not as it was."""
    expected = bool(words) and not {NOT_AS_WRITTEN, NOT_THERE} & set(words)
    return Deviation(record.image_id, instance.index, iou, "; ".join(words) or NOT_AS_WRITTEN, expected)


def in_turn(record: ImageRecord, objects: Sequence[Instance], found: Sequence[T]) -> Iterator[tuple[Instance, T]]:
    """The objects, each with what was written of it, in formats that keep nothing but the order. Raises ExportOutdated
    where there are more or fewer: which is which cannot be told then."""
    if len(objects) != len(found):
        raise ExportOutdated(f"{record.image_id!r} has {len(found)} objects there and {len(objects)} in the run")
    yield from zip(objects, found, strict=True)


def read_objects(
    record: ImageRecord, shapes: Sequence[Drawn], objects: Sequence[Instance]
) -> Iterator[tuple[int, Rle]]:
    """The masks of what was read, with the index of the object that each was written for: they are in one order."""
    assert record.info is not None, "checked in labelled"
    for instance, shape in in_turn(record, objects, shapes):
        mask = drawn_mask(shape, record.info.size_hw)
        if mask is not None:
            yield instance.index, mask


class InOrder(Generic[T]):
    """Finds things by name in a long sequence when they are asked for in its order; holds the names alone."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, T]]]) -> None:
        self._names = {name for name, _ in read()}
        self._things = iter(read())

    def find(self, name: str) -> T | None:
        if name not in self._names:
            return None
        return next(thing for found, thing in self._things if found == name)


def _of_image(
    record: ImageRecord,
    wanted: list[Instance],
    read: Iterable[tuple[int, Rle]] | None,
    policy: Policy,
    why: Why | None,
    limit: Limit,
) -> Iterator[Deviation]:
    kept, reasons = explained(record, policy)
    if read is None:
        written, missing = {i.index for i in kept}, limit(record) or NOT_THERE
        for one in wanted:
            words = [missing] if one.index in written else reasons.get(one.index, ())
            yield deviation(record, one, 0.0, words)
        return
    given = {i.index: i for i in kept}
    given_masks, found = _by_index((i.index, mask_of(i)) for i in kept), _by_index(read)
    for instance in wanted:
        index = instance.index
        value = _iou(found.get(index), mask_of(instance))
        if value == 1.0:
            continue
        words = list(reasons.get(index, ()))
        if index in given and _iou(found.get(index), given_masks[index]) < 1.0:
            words.append(NOT_AS_WRITTEN if why is None else why(record, given[index]))
            if index in found and not value:  # no reason makes another object of it
                words.append(NOT_AS_WRITTEN)
        yield deviation(record, instance, value, list(dict.fromkeys(words)))


def _by_index(masks: Iterable[tuple[int, Rle]]) -> Mapping[int, Rle]:
    grouped: dict[int, list[Rle]] = {}
    for index, mask in masks:
        grouped.setdefault(index, []).append(mask)
    return {index: one for index, group in grouped.items() if (one := union(group)) is not None}


def _iou(found: Rle | None, expected: Rle) -> float:
    if found is None or found.size_hw != expected.size_hw:
        return 0.0
    return iou(found, expected)
