"""Where masks overlap, who owns the pixels? By default all of them, as COCO allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autolabel.core.errors import SettingError
from autolabel.core.types import Category, Dropped, ImageInfo, Instance, Rle
from autolabel.ops.masks import area_px, covered, mask_of
from autolabel.ops.ownership import without
from autolabel.ops.settings import number, one_of
from autolabel.refine.duplicates import best_first
from autolabel.refine.each import Refined

RULES = ("all", "score", "depth")


class OwnershipRefiner:
    """Gives pixels of several masks to one of them. `by`: `all` own them (off); `score`, the one of higher quality
    (detector score where a quality is missing); `depth`, the smaller one, which is in front of what is larger.

    `part_of` maps the name or id of a class to that of its whole, `{wheel: car}`: such a pair shares its pixels. Names
    need `for_classes`. A
    mask that keeps less than `min_visible` of its pixels, or none, is dropped. Instances of the source's own labels
    own all of theirs and keep them; crowds take no part.
    """

    def __init__(self, *, by: str, part_of: Mapping[Any, str | int] | None, min_visible: float) -> None:
        self._by = one_of("by", by, RULES)
        self._min_visible = number("min_visible", min_visible, 0, 1)
        pairs = {} if part_of is None else part_of
        if not isinstance(pairs, Mapping) or not all(_is_class(c) for pair in pairs.items() for c in pair):
            raise SettingError(f"part_of must be null or map a class to that of its whole, got {part_of!r}")
        self._part_of = dict(pairs)

    def for_classes(self, categories: Sequence[Category]) -> OwnershipRefiner:
        """The same rules, for a run with these classes: names become their ids. Raises ConfigError for a class that
        the run does not have."""
        ids = {category.name: category.id for category in categories}
        known = set(ids.values())

        def id_of(name: str | int) -> int:
            found = ids.get(name) if isinstance(name, str) else name
            if found not in known:
                raise SettingError(f"part_of: there is no class {name!r}; there are {', '.join(ids)}")
            return found

        part_of = {id_of(part): id_of(whole) for part, whole in self._part_of.items()}
        return OwnershipRefiner(by=self._by, part_of=part_of, min_visible=self._min_visible)

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        nothing: Refined = list(instances), []
        taking_part = [one for one in instances if one.mask is not None and not one.crowd]
        assert not any(isinstance(c, str) for pair in self._part_of.items() for c in pair), (
            "for_classes comes first"
        )
        if self._by == "all" or len(taking_part) < 2:
            return nothing
        return self._handed_out(instances, self._ranked(taking_part))

    def _ranked(self, instances: Sequence[Instance]) -> list[Instance]:
        """From the foremost to the last."""
        ranked = best_first(instances)
        if self._by == "depth":
            ranked.sort(key=lambda one: (one.origin == "model", area_px(mask_of(one))))
        return ranked

    def _handed_out(self, instances: Sequence[Instance], ranked: Sequence[Instance]) -> Refined:
        """From the foremost to the last: each gets what those before it left, and what is dropped takes nothing."""
        masks = [mask_of(one) for one in ranked]
        meets = covered(masks, masks) > 0
        left: dict[int, Rle] = {}
        reasons: dict[int, str] = {}
        for i, one in enumerate(ranked):
            front = [
                other
                for j, other in enumerate(ranked[:i])
                if meets[i, j] and other.index in left and self._takes_from(other, one)
            ]
            left[one.index] = without(masks[i], [left[other.index] for other in front])
            if reason := self._why(masks[i], left[one.index], front):
                reasons[one.index] = reason
                del left[one.index]
        kept = [_with(one, left.get(one.index)) for one in instances if one.index not in reasons]
        return kept, [Dropped(one, reasons[one.index]) for one in instances if one.index in reasons]

    def _takes_from(self, front: Instance, one: Instance) -> bool:
        a, b = front.category_id, one.category_id
        return one.origin == "model" and self._part_of.get(a) != b and self._part_of.get(b) != a

    def _why(self, before: Rle, after: Rle, owners: Sequence[Instance]) -> str | None:
        visible = 1.0 if after is before else area_px(after) / area_px(before)
        if visible and visible >= self._min_visible:
            return None
        who = ", ".join(str(owner.index) for owner in owners)
        return f"hidden: {visible:.3f} of it is left, the rest belongs to object {who}"


def _with(instance: Instance, mask: Rle | None) -> Instance:
    return instance if mask is None or mask is instance.mask else instance.with_mask(mask)


def _is_class(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""
