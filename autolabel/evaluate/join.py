"""Which picture of the truth is which picture of the run: by image id, else by a file name that occurs once."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

from autolabel.core.errors import SourceError
from autolabel.core.types import ImageRef, Problem

_SHOWN = 3
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Joined:
    """The truth's pictures by the run's image ids. `by_name` says that file names were needed; `unused` pictures of
    the truth are not in the run, `broken` ones cannot be read."""

    refs: Mapping[str, ImageRef]
    by_name: bool
    unused: int
    broken: tuple[Problem, ...]


def join(image_ids: Sequence[str], truth: Iterable[ImageRef]) -> Joined:
    """Image ids where any of them is in the truth, else file names.

    Raises SourceError when no picture has labels, when none is found, and when a file name could be several.
    """
    listed = list(truth)
    broken = tuple(ref.problem for ref in listed if ref.problem is not None)
    labelled = [ref for ref in listed if ref.problem is None and ref.labels is not None]
    if listed and not labelled:
        why = f"; the first: {broken[0].detail}" if broken else ""
        raise SourceError(f"the truth has {len(listed)} pictures and no labels that can be read{why}")
    by_id = {ref.image_id: ref for ref in labelled}
    found = {image_id: by_id[image_id] for image_id in image_ids if image_id in by_id}
    by_name = not found and bool(image_ids) and bool(labelled)
    if by_name:
        found = _by_name(image_ids, labelled)
    return Joined(found, by_name, len(labelled) - len(found), broken)


def _by_name(image_ids: Sequence[str], labelled: Sequence[ImageRef]) -> dict[str, ImageRef]:
    ours = _grouped((image_id, image_id) for image_id in image_ids)
    theirs = _grouped((ref.image_id, ref) for ref in labelled)
    shared = ours.keys() & theirs.keys()
    if not shared:
        raise SourceError(
            f"no picture of the run is in the truth, neither by its id nor by its file name: the run has "
            f"{image_ids[0]!r}, the truth {labelled[0].image_id!r}"
        )
    twice = sorted(name for name in shared if len(ours[name]) > 1 or len(theirs[name]) > 1)
    if twice:
        shown = ", ".join(repr(name) for name in twice[:_SHOWN])
        more = f" and {len(twice) - _SHOWN} more" if len(twice) > _SHOWN else ""
        raise SourceError(
            f"the image ids of run and truth differ, and these file names occur more than once: {shown}{more}; "
            f"give a truth with the run's ids (the run has {image_ids[0]!r}, the truth {labelled[0].image_id!r})"
        )
    return {image_id: theirs[name][0] for name in shared for image_id in ours[name]}


def _grouped(rows: Iterable[tuple[str, Value]]) -> dict[str, list[Value]]:
    groups: dict[str, list[Value]] = {}
    for name, value in rows:
        # Pascal VOC's lists have no place for a space, so that exports write `a%20b.jpg`.
        groups.setdefault(unquote(posixpath.basename(name)), []).append(value)
    return groups
