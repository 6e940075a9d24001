"""An export compared with its run, object by object. How a format is read is the exporter's to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from autolabel.core.errors import ExportOutdated
from autolabel.core.protocols import Deviation, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, Instance, Rle
from autolabel.export.policy import Policy, explained, labelled, mask_of, union
from autolabel.ops.masks import area_px, iou

T = TypeVar("T")

Read = Callable[[ImageRecord], Iterable[tuple[int, Rle]] | None]
"""What the format's reader finds of an image: the masks with the index of the object that each is (an object may
have several), in any order; None when the image is not in the export."""

Why = Callable[[ImageRecord, Instance], str]
"""Why the format changed an object that it was given as `Instance`; called where that mask does not come back."""


def compare(run: RecordReader, read: Read, policy: Policy, why: Why | None = None) -> RoundTrip:
    """Every object of the run that has a pixel, against what is read; `iou` is with the run's own mask.

    The reason of a deviation names what the policy did, and then, in the words of `why`, what the format did.
    """
    objects = 0
    deviations: list[Deviation] = []
    for record in labelled(run):
        wanted = [i for i in record.instances if i.mask is not None and area_px(i.mask)]
        objects += len(wanted)
        if wanted:
            deviations += _of_image(record, wanted, read(record), policy, why)
    return RoundTrip(objects, tuple(deviations))


def in_turn(record: ImageRecord, objects: Sequence[Instance], found: Sequence[T]) -> Iterator[tuple[Instance, T]]:
    """The objects, each with what was written of it, in formats that keep nothing but the order. Raises ExportOutdated
    where there are more or fewer: which is which cannot be told then."""
    if len(objects) != len(found):
        raise ExportOutdated(f"{record.image_id!r} has {len(found)} objects there and {len(objects)} in the run")
    yield from zip(objects, found, strict=True)


def _of_image(
    record: ImageRecord,
    wanted: list[Instance],
    read: Iterable[tuple[int, Rle]] | None,
    policy: Policy,
    why: Why | None,
) -> Iterator[Deviation]:
    if read is None:
        yield from (Deviation(record.image_id, i.index, 0.0, "the image is not in the export") for i in wanted)
        return
    kept, reasons = explained(record, policy)
    given = {i.index: i for i in kept}
    given_masks, found = _by_index((i.index, mask_of(i)) for i in kept), _by_index(read)
    for instance in wanted:
        index = instance.index
        value = _iou(found.get(index), mask_of(instance))
        if value == 1.0:
            continue
        words = list(reasons.get(index, ()))
        if index in given and _iou(found.get(index), given_masks[index]) < 1.0:
            words.append("not as written" if why is None else why(record, given[index]))
        yield Deviation(record.image_id, index, value, "; ".join(words) or "not as written")


def _by_index(masks: Iterable[tuple[int, Rle]]) -> Mapping[int, Rle]:
    grouped: dict[int, list[Rle]] = {}
    for index, mask in masks:
        grouped.setdefault(index, []).append(mask)
    return {index: one for index, group in grouped.items() if (one := union(group)) is not None}


def _iou(found: Rle | None, expected: Rle) -> float:
    if found is None or found.size_hw != expected.size_hw:
        return 0.0
    return iou(found, expected)
