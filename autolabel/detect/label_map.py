"""Which of a detector's classes are labelled, and under which names and ids: the `labels=` setting.

A map is a pure function from the classes that there are to the classes of the run; `MappedDetector` applies it to
what any detector finds, existing labels too. A class that is left out is not looked for: its boxes are not detections
and get no record, as with a detector that never knew the class. What is left out is said once, when a run starts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autolabel.core.errors import ConfigError, SettingError
from autolabel.core.protocols import Detector, FindsNew, InstanceModel
from autolabel.core.types import Category, Detections, Frame, Instances
from autolabel.ops.names import nearest
from autolabel.ops.returned import detections_of, instances_of
from autolabel.ops.settings import one_of

logger = logging.getLogger(__name__)

_IDS = ("kept", "contiguous")


@dataclass(frozen=True, slots=True)
class Mapped:
    """The classes of a run, and for each class id of the detector the id it gets; ids that are left out miss."""

    categories: tuple[Category, ...]
    ids: Mapping[int, int]


class LabelMap:
    """`keep` (null: all) and `drop` choose among the names that the detector or the source has, `rename` gives one
    class another name, `merge` makes one class of several. All of them speak of the old names; what has the name of
    several classes speaks of all of them, which stay apart but for `merge`.

    `ids` are `kept` (a merged class has the lowest id of its members) or `contiguous`: 1, 2, 3 in that order.
    """

    def __init__(
        self,
        *,
        keep: list[str] | None,
        drop: list[str],
        rename: dict[str, str] | None,
        merge: dict[str, list[str]] | None,
        ids: str,
    ) -> None:
        self._keep = None if keep is None else _names("keep", keep)
        self._drop = _names("drop", drop)
        if self._keep == ():
            raise SettingError("keep must be null or name a class; nothing would be labelled")
        self._new = {**_renamed(rename), **_merged(merge)}
        twice = set(_renamed(rename)) & set(_merged(merge))
        if twice:
            raise SettingError(f"rename and merge both name {', '.join(sorted(twice))}")
        self._joined = frozenset(merge or {})
        self._ids = one_of("ids", ids, _IDS)

    @property
    def changes_nothing(self) -> bool:
        """Whether every class stays as it is."""
        return self._keep is None and not self._drop and not self._new and self._ids == "kept"

    def apply(self, categories: Sequence[Category]) -> Mapped:
        """The classes that come of `categories`. Raises ConfigError for a name that is not there, for a new name that
        is taken, and when no class is left."""
        self._check(categories)
        chosen = [
            c for c in categories if (self._keep is None or c.name in self._keep) and c.name not in self._drop
        ]
        if not chosen:
            raise ConfigError("labels: keep and drop leave no class to be labelled")
        self._check_new_names(chosen)
        groups: dict[int | str, list[Category]] = {}
        for category in sorted(chosen, key=lambda category: category.id):
            groups.setdefault(self._group(category), []).append(category)
        made = [self._one_class(members) for members in groups.values()]
        if self._ids == "contiguous":
            made = [replace(category, id=number) for number, category in enumerate(made, start=1)]
        ids = {c.id: one.id for one, members in zip(made, groups.values(), strict=True) for c in members}
        return Mapped(tuple(made), ids)

    def _group(self, category: Category) -> int | str:
        """What classes that become one have in common. Two of one name, as in COCO files with several supercategories,
        stay two."""
        new = self._new.get(category.name)
        return new if new in self._joined else category.id

    def _one_class(self, members: Sequence[Category]) -> Category:
        """Other fields of the members stay where they agree; they come by their ids."""
        first, extras = members[0], {member.extra for member in members}
        name = self._new.get(first.name, first.name)
        return Category(first.id, name, extras.pop() if len(extras) == 1 else "")

    def _check(self, categories: Sequence[Category]) -> None:
        known = [category.name for category in categories]
        named = {"keep": self._keep or (), "drop": self._drop, "rename and labels.merge": tuple(self._new)}
        for key, names in named.items():
            for name in names:
                if name not in known:
                    raise ConfigError(f"labels.{key}: there is no class {name!r}; {nearest(name, known)}")

    def _check_new_names(self, chosen: Sequence[Category]) -> None:
        """Two classes become one only where `merge` says so, and no name becomes that of two."""
        stays = {c.name for c in chosen if c.name not in self._new}
        for old, new in self._new.items():
            same = [str(c.id) for c in chosen if c.name == old]
            if len(same) > 1 and new not in self._joined:
                raise ConfigError(
                    f"labels.rename: the classes {' and '.join(same)} are both called {old!r}; which of them is to "
                    f"be {new!r}? labels.merge={{{new}: [{old}]}} makes one class of them"
                )
            others = [c.name for c in chosen if c.name != old and self._new.get(c.name) == new]
            if new in stays or (others and new not in self._joined):
                both = ", ".join(sorted({old, *(others or [new])}))
                raise ConfigError(
                    f"labels: {old!r} would become {new!r}, which is another class too; to make one class of "
                    f"several, list them all: labels.merge={{{new}: [{both}]}}"
                )


class _InMap:
    """A component whose classes are those of a map of `categories`, which are its own or the source's."""

    def __init__(self, identity: Mapping[str, str], labels: LabelMap, categories: Sequence[Category]) -> None:
        self.identity = identity
        self._of_inner = categories
        self._mapped = labels.apply(categories)
        left_out = [c.name for c in categories if c.id not in self._mapped.ids]
        if left_out:
            logger.info("labels: left out: %s", ", ".join(left_out))

    @property
    def categories(self) -> tuple[Category, ...]:
        return self._mapped.categories


class MappedDetector(_InMap):
    """What `inner` finds, in the classes of a map of `categories` (the detector's, else the source's)."""

    def __init__(self, inner: Detector, labels: LabelMap, categories: Sequence[Category]) -> None:
        super().__init__(inner.identity, labels, categories)
        self._inner = inner

    @property
    def class_of_new(self) -> int | None:
        """The inner detector's, by the map. One class that is left of several is nobody's class."""
        number = self._inner.class_of_new if isinstance(self._inner, FindsNew) else None
        return None if number is None else self._mapped.ids[number]

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [self._one(found) for found in detections_of(self._inner, frames, self._of_inner)]

    def _one(self, found: Detections) -> Detections:
        rows = [i for i, number in enumerate(found.category_ids.tolist()) if number in self._mapped.ids]
        kept = found.select(rows)
        numbers = [self._mapped.ids[number] for number in kept.category_ids.tolist()]
        return replace(kept, category_ids=np.array(numbers, np.int64))


class MappedModel(_InMap):
    """What `inner` finds in one step, in the classes of a map of its own."""

    def __init__(self, inner: InstanceModel, labels: LabelMap) -> None:
        super().__init__(inner.identity, labels, inner.categories)
        self._inner = inner

    def find(self, frames: Sequence[Frame]) -> list[Instances]:
        return [self._one(some) for some in instances_of(self._inner, frames, self._of_inner)]

    def _one(self, some: Instances) -> Instances:
        kept = [one for one in some.found if one.category_id in self._mapped.ids]
        mapped = (
            replace(one, index=index, category_id=self._mapped.ids[one.category_id])
            for index, one in enumerate(kept)
        )
        return replace(some, found=tuple(mapped))


def _names(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SettingError(f"{key} must be a list of names such as [person, car], got {value!r}")
    return tuple(value)


def _map(key: str, value: object) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) and name for name in value):
        raise SettingError(f"{key} must be a map of names, got {value!r}")
    return value


def _renamed(rename: object) -> dict[str, str]:
    """Old name to new name."""
    found = {}
    for old, new in _map("rename", rename).items():
        if not isinstance(new, str) or not new.strip():
            raise SettingError(f"rename.{old} must be the new name, got {new!r}")
        found[old] = new
    return found


def _merged(merge: object) -> dict[str, str]:
    """Old name to new name, of all members. Raises ConfigError for a name in two classes."""
    found: dict[str, str] = {}
    for new, olds in _map("merge", merge).items():
        for old in _names(f"merge.{new}", olds):
            if old in found:
                raise SettingError(f"merge: {old!r} is in {found[old]!r} and in {new!r}")
            found[old] = new
    return found
