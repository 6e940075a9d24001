"""What a format is given when it cannot, or shall not, hold all of a mask: holes, parts, overlaps, crowds, specks.

An exporter names in its constructor the policies that it supports. Every effect is counted, and told by object
for reading back; with the defaults nothing is changed. Knows no format and no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ExportError
from autolabel.core.types import ImageRecord, Instance, Rle
from autolabel.ops.components import fill_holes, keep_largest, split_parts
from autolabel.ops.masks import area_px, bounds_xyxy, decode_crop, encode_crop, is_empty, mask_of
from autolabel.ops.settings import count, one_of


@dataclass(frozen=True, slots=True)
class Policy:
    """`holes` and `parts` change an object's own mask. `overlaps` says who owns a pixel of several objects: all
    ("keep"), the one with the higher detector score, or the smaller one; crowds take no part in it. Objects
    with fewer than `min_area_px` pixels after all that are left out."""

    holes: Literal["keep", "fill"] = "keep"
    parts: Literal["keep", "largest", "split"] = "keep"
    overlaps: Literal["keep", "score", "smallest"] = "keep"
    min_area_px: int = 1
    crowd: Literal["keep", "drop"] = "keep"

    @property
    def shapes_stay(self) -> bool:
        """Whether no object is changed or left out for what it is by itself."""
        return self.holes == "keep" and self.parts == "keep" and self.crowd == "keep"


POLICY_NOTES: dict[str, str] = {
    "empty_masks": "{} [instance without a single pixel is|instances without a single pixel are] left out",
    "crowds_left_out": "{} crowd [region is|regions are] left out",
    "holes_filled": "{} [object has its|objects have their] holes filled",
    "smaller_parts_left_out": "{} [object is written with its|objects are written with their] largest part alone",
    "objects_split": "{} [object|objects] of several parts [is|are] written as one object a part",
    "overlaps_cut": "{} [object loses|objects lose] pixels to an object that [it shares|they share] them with",
    "overlap_px": "{} [pixel|pixels] of an object went to another one that [it is|they are] shared with",
    "hidden_objects": "{} [object is|objects are] wholly covered by others and left out",
    "below_min_area": "{} [object is|objects are] smaller than min_area_px and left out",
}
"""What `prepared` counts, as lines for the report."""

_REASONS = {"holes_filled": "hole filled", "smaller_parts_left_out": "part left out"}


def policy_of(**settings: Any) -> Policy:
    """Checked settings; those not named keep their defaults. Raises ConfigError."""
    kinds = get_type_hints(Policy)
    for name, value in settings.items():
        choices = get_args(kinds[name])
        if choices:
            one_of(name, value, choices)
    count("min_area_px", settings.get("min_area_px", 1), 1)
    assert set(settings) <= {f.name for f in fields(Policy)}, f"no such policy among {sorted(settings)}"
    return Policy(**settings)


@dataclass(slots=True)
class _Log:
    """Effects as they happen: how many of each, and by object in words."""

    counts: Counter[str]
    reasons: dict[int, list[str]] = field(default_factory=dict)

    def add(self, key: str, instance: Instance, reason: str) -> None:
        self.counts[key] += 1
        self.reasons.setdefault(instance.index, []).append(reason)


def prepared(record: ImageRecord, policy: Policy, counts: Counter[str]) -> list[Instance]:
    """The objects to write, in the order of the record, with the masks that the policy makes of them; none is
    empty. With parts="split" an index repeats. Raises ExportError for a mask of another size than its image."""
    return _applied(record, policy, _Log(counts))


def explained(record: ImageRecord, policy: Policy) -> tuple[list[Instance], Mapping[int, list[str]]]:
    """Like `prepared`, and in words what was done to each object that was changed or left out, by its index."""
    log = _Log(Counter())
    return _applied(record, policy, log), log.reasons


def _applied(record: ImageRecord, policy: Policy, log: _Log) -> list[Instance]:
    kept: list[Instance] = []
    size_hw, as_they_are = None if record.info is None else record.info.size_hw, policy.shapes_stay
    for instance in record.instances:
        mask = instance.mask
        if mask is None or is_empty(mask):
            log.add("empty_masks", instance, "not written: without a pixel")
        elif size_hw is not None and mask.size_hw != size_hw:
            raise ExportError(f"a mask of {record.image_id!r} is {mask.size_hw}, the image {size_hw}")
        elif as_they_are:
            kept.append(instance)
        else:
            kept += _own_changes(instance, mask, policy, log)
    if policy.overlaps != "keep" and len(kept) > 1:
        kept = _without_overlaps(kept, policy.overlaps, log)
    if policy.min_area_px > 1:
        kept = [instance for instance in kept if _large_enough(instance, policy.min_area_px, log)]
    return kept


def _own_changes(instance: Instance, mask: Rle, policy: Policy, log: _Log) -> list[Instance]:
    if instance.crowd and policy.crowd == "drop":
        log.add("crowds_left_out", instance, "not written: crowd")
        return []
    if policy.holes == "fill":
        instance = _changed(instance, fill_holes(mask, mask.size_hw[0] * mask.size_hw[1]), "holes_filled", log)
    return _of_parts(instance, policy.parts, log)


def _of_parts(instance: Instance, parts: str, log: _Log) -> list[Instance]:
    if parts == "keep" or instance.crowd:  # a crowd is many things by its nature
        return [instance]
    mask = mask_of(instance)
    if parts == "largest":
        return [_changed(instance, keep_largest(mask), "smaller_parts_left_out", log)]
    pieces = split_parts(mask)
    if len(pieces) == 1:
        return [instance]
    log.add("objects_split", instance, "split into its parts")
    return [instance.with_mask(piece) for piece in pieces]


def _changed(instance: Instance, mask: Rle, key: str, log: _Log) -> Instance:
    if mask is instance.mask:
        return instance
    log.add(key, instance, _REASONS[key])
    return instance.with_mask(mask)


def _without_overlaps(instances: list[Instance], rule: str, log: _Log) -> list[Instance]:
    """Painted from the last owner to the first, each object keeps the pixels on which it can still be seen."""
    places = [i for i, instance in enumerate(instances) if not instance.crowd]
    owner = np.zeros(mask_of(instances[0]).size_hw, np.int32)
    # Among equals the first in the record is painted last.
    for place in sorted(places, key=lambda i: (_precedence(instances[i], rule), -i)):
        crop, x0, y0 = decode_crop(mask_of(instances[place]))
        owner[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]][crop > 0] = place + 1
    kept = []
    for place, instance in enumerate(instances):
        seen = instance if instance.crowd else _visible(instance, owner, place + 1, log)
        kept += [] if seen is None else [seen]
    return kept


def _precedence(instance: Instance, rule: str) -> float:
    """The higher, the later painted. A score that is not a number goes first."""
    if rule == "smallest":
        return -area_px(mask_of(instance))
    return -np.inf if np.isnan(instance.detector_score) else instance.detector_score


def _visible(instance: Instance, owner: NDArray[np.int32], mark: int, log: _Log) -> Instance | None:
    mask = mask_of(instance)
    bounds = bounds_xyxy(mask)
    assert bounds is not None, "masks without a pixel are left out first"
    x0, y0, x1, y1 = bounds
    seen = owner[y0:y1, x0:x1] == mark
    hidden = area_px(mask) - int(np.count_nonzero(seen))
    if not hidden:
        return instance
    log.counts["overlap_px"] += hidden
    if not seen.any():
        log.add("hidden_objects", instance, "not written: covered by other objects")
        return None
    log.add("overlaps_cut", instance, f"overlap: {hidden} px belong to another object")
    return instance.with_mask(encode_crop(seen.view(np.uint8), x0, y0, mask.size_hw))


def _large_enough(instance: Instance, least_px: int, log: _Log) -> bool:
    found = area_px(mask_of(instance))
    if found < least_px:
        log.add("below_min_area", instance, f"not written: {found} px, under min_area_px")
    return found >= least_px
