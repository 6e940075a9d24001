"""Which picture of the truth is which picture of the run: by image id, else by a file name that occurs once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from autolabel.core.errors import SourceError
from autolabel.core.text import counted
from autolabel.core.types import ImageRef, Problem
from autolabel.evaluate.counterparts import file_name

_SHOWN = 3
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Joined:
    """The truth's pictures by the run's image ids. `by_name` says that file names were needed; `unused` pictures of
    the truth are not in the run, `broken` ones cannot be read. Of the run, `unlabelled` pictures are in the truth but
    have no labels there, and `absent` ones are not in it."""

    refs: Mapping[str, ImageRef]
    by_name: bool
    unused: int
    unlabelled: int
    absent: int
    broken: tuple[Problem, ...]


def join(image_ids: Sequence[str], truth: Iterable[ImageRef]) -> Joined:
    """Image ids where any of them is in the truth, with labels or without, else file names.

    Raises SourceError when no picture has labels, when none of the run's has, and when a file name could be several.
    """
    listed = list(truth)
    broken = tuple(ref.problem for ref in listed if ref.problem is not None)
    labelled = [ref for ref in listed if ref.problem is None and ref.labels is not None]
    why = f"; the first: {broken[0].detail}" if broken else ""
    if listed and not labelled:
        raise SourceError(
            counted(len(listed), "the ground truth has {} picture[|s] and no labels that can be read{}", why)
        )
    known = {ref.image_id: ref for ref in listed}
    by_name = bool(image_ids and listed) and known.keys().isdisjoint(image_ids)
    if by_name:
        found = _by_name(image_ids, labelled)
    else:
        by_id = {ref.image_id: ref for ref in labelled}
        found = {image_id: by_id[image_id] for image_id in image_ids if image_id in by_id}
    if image_ids and labelled and not found:
        raise SourceError(
            f"the ground truth has labels of other pictures ({labelled[0].image_id!r}), but none of the run's that can be "
            f"read ({image_ids[0]!r}){why}"
        )
    named = {file_name(ref.image_id): ref for ref in listed} if by_name else known
    others = [named.get(file_name(i) if by_name else i) for i in image_ids if i not in found]
    unlabelled = sum(ref is not None and ref.problem is None for ref in others)
    return Joined(found, by_name, len(labelled) - len(found), unlabelled, others.count(None), broken)


def _by_name(image_ids: Sequence[str], labelled: Sequence[ImageRef]) -> dict[str, ImageRef]:
    ours = _grouped((image_id, image_id) for image_id in image_ids)
    theirs = _grouped((ref.image_id, ref) for ref in labelled)
    shared = ours.keys() & theirs.keys()
    if not shared:
        raise SourceError(
            f"no picture of the run is in the ground truth, neither by its id nor by its file name: the run has "
            f"{image_ids[0]!r}, the ground truth {labelled[0].image_id!r}"
        )
    twice = sorted(name for name in shared if len(ours[name]) > 1 or len(theirs[name]) > 1)
    if twice:
        shown = ", ".join(repr(name) for name in twice[:_SHOWN])
        more = f" and {len(twice) - _SHOWN} more" if len(twice) > _SHOWN else ""
        raise SourceError(
            f"the image ids of run and ground truth differ, and these file names occur more than once: {shown}{more}; "
            f"give a ground truth with the run's ids (the run has {image_ids[0]!r}, the ground truth {labelled[0].image_id!r})"
        )
    return {image_id: theirs[name][0] for name in shared for image_id in ours[name]}


def _grouped(rows: Iterable[tuple[str, Value]]) -> dict[str, list[Value]]:
    groups: dict[str, list[Value]] = {}
    for name, value in rows:
        groups.setdefault(file_name(name), []).append(value)
    return groups
