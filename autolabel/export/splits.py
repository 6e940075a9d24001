"""Which of train, val and test an image belongs to. Knows no files.

A split of the source is kept where its name says which of the three it is; other splits are counted. Every other
image draws a number in [0, 1) from its own name (or that of its group) and the seed: below `val_fraction` it is val,
from `1 - test_fraction` on it is test, else train. As nothing but the name decides, images that come and go move no
other one, but for those that are dealt:

    the set    where the draw left val (train) empty, the lowest (highest) draw is dealt there
    stratify   the same is done for every class

A dealt image, or group, goes back when others come that belong to its side, or take its place there. So the report
names them: no rule that looks at names alone can fill a side and never move anything. Within what chance leaves,
each class has the fractions of the whole; exact fractions could not be kept without moving images when others come.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from autolabel.core.errors import SettingError
from autolabel.core.protocols import RecordReader
from autolabel.core.text import counted, printable
from autolabel.core.types import ImageRecord
from autolabel.export.listing import labelled
from autolabel.export.names import id_bytes
from autolabel.export.reporting import noted
from autolabel.ops.settings import count, flag, fraction

Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")

_NAMES: dict[Side, str] = {
    "train": "train",
    "val": r"(?:val|valid|validation|dev|devel|eval|evaluation)(?![^\W\d_])",
    "test": "test",
}
"""How a split's name begins that is one of ours: `train2017`, `trainval`, `minival`, `test-dev`; no `validated`."""
_NAMED = {side: re.compile(rf"(?:mini[-_]?)?{name}", re.IGNORECASE) for side, name in _NAMES.items()}

_NOTES: dict[str, str] = {
    "splits_unknown": "{} [picture has|pictures have] a split in the source that is not called train, val (valid, validation, "
    "dev, eval) or test: val_fraction and test_fraction decide",
    "groups_divided": "{} [picture is|pictures are] in another split than [its|their] group, since the source says so",
}

_DEALT = (
    "{0} [picture or group was|pictures or groups were] dealt to train or val, which had none of the data set or of a "
    "class ({1}): [it|they] may change sides when others are added"
)

_Draw = tuple[float, str]
_ALL = -1
"""The stratum that every image is in."""


class Splits:
    """`group_by`: null, "folder", or a regular expression whose first group in the image id is the group's name
    (an id that it does not match is a group of its own). A group is on one side as a whole."""

    def __init__(
        self,
        *,
        val_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: bool,
        group_by: str | None,
    ) -> None:
        self._fractions = (
            fraction("val_fraction", val_fraction),
            fraction("test_fraction", test_fraction),
        )
        if val_fraction + test_fraction > 1.0:
            raise SettingError(
                "val_fraction and test_fraction must not exceed 1 together, "
                f"got {val_fraction!r} and {test_fraction!r}"
            )
        self._pattern = _pattern(group_by)
        self._folder = group_by == "folder"
        self._seed = count("seed", seed)
        self._stratify = flag("stratify", stratify)

    def plan(self, run: RecordReader) -> SplitPlan:
        """Reads the records once. Memory grows with classes, and with groups that the source splits, alone."""
        plan = SplitPlan(self)
        if self._pattern is not None or self._folder:
            for record in labelled(run):
                plan.adopt(record)
        for record in labelled(run):
            plan.see(record)
        plan.deal()
        return plan

    def group(self, record: ImageRecord) -> str:
        """The name that draws the number."""
        if self._folder:
            return posixpath.dirname(record.image_id)
        found = self._pattern.search(record.image_id) if self._pattern is not None else None
        return record.image_id if found is None or found[1] is None else found[1]

    def draw(self, name: str) -> _Draw:
        """A number in [0, 1) that only the seed and the name decide."""
        digest = hashlib.sha256(id_bytes(f"{self._seed}:{name}")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64, name

    def drawn_side(self, draw: _Draw) -> Side:
        val, test = self._fractions
        return "val" if draw[0] < val else "test" if draw[0] >= 1.0 - test else "train"

    def strata(self, record: ImageRecord) -> set[int]:
        """The classes whose sides are looked after in this image."""
        return {_ALL, *(i.category_id for i in record.instances)} if self._stratify else {_ALL}

    @property
    def deals_val(self) -> bool:
        """Whether both train and val are wanted at all."""
        val, test = self._fractions
        return val > 0 and val + test < 1


@dataclass(slots=True)
class _Stratum:
    """What the draw left of one class: the sides it is on, and its lowest and highest draw."""

    sides: set[Side] = field(default_factory=set)
    low: _Draw = (2.0, "")
    high: _Draw = (-1.0, "")

    def see(self, draw: _Draw, side: Side) -> None:
        self.sides.add(side)
        self.low, self.high = min(self.low, draw), max(self.high, draw)


class SplitPlan:
    """The side of every image of a run. Create it through `Splits.plan`."""

    def __init__(self, splits: Splits) -> None:
        self._splits = splits
        self._strata: dict[int, _Stratum] = {}
        self._adopted: dict[str, Side] = {}
        self._dealt: dict[_Draw, Side] = {}
        self.counts: Counter[str] = Counter()

    def adopt(self, record: ImageRecord) -> None:
        """A group goes where the source has the first of its pictures that it splits."""
        own = own_side(record.split)
        if own is not None:
            group = self._splits.group(record)
            self.counts["groups_divided"] += self._adopted.setdefault(group, own) != own

    def see(self, record: ImageRecord) -> None:
        known = self._known(record)
        self.counts["splits_unknown"] += bool(record.split) and own_side(record.split) is None
        draw = self._splits.draw(self._splits.group(record))
        for name in self._splits.strata(record):
            stratum = self._strata.setdefault(name, _Stratum())
            if known is None:
                stratum.see(draw, self._splits.drawn_side(draw))
            else:
                stratum.sides.add(known)

    def side(self, record: ImageRecord) -> Side:
        known = self._known(record)
        if known is not None:
            return known
        draw = self._splits.draw(self._splits.group(record))
        return self._dealt.get(draw) or self._splits.drawn_side(draw)

    def _known(self, record: ImageRecord) -> Side | None:
        own = own_side(record.split)
        return own if own is not None or not self._adopted else self._adopted.get(self._splits.group(record))

    def notes(self) -> list[str]:
        """What is to be said of the splits, the first of the draws that were dealt by their names."""
        names = [printable(name) for _, name in self._dealt]
        some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        return noted(self.counts, _NOTES) + ([counted(len(names), _DEALT, some)] if names else [])

    def deal(self) -> None:
        """Move draws so that a class stands on both sides; what concerns the whole set goes first."""
        if not self._splits.deals_val:
            return
        dealt: dict[_Draw, Side] = {}
        for _, stratum in sorted(self._strata.items()):
            if stratum.high[0] < 0:
                continue  # the source splits all of it
            if "train" not in stratum.sides:
                dealt.setdefault(stratum.high, "train")
            if "val" not in stratum.sides and (stratum.low != stratum.high or "train" in stratum.sides):
                dealt.setdefault(stratum.low, "val")
        self._dealt = {draw: side for draw, side in dealt.items() if self._splits.drawn_side(draw) != side}
        self.counts["splits_dealt"] = len(self._dealt)


def own_side(split: str | None) -> Side | None:
    """The source's own split, as the three are called here; None when it is none of them."""
    return next((side for side, name in _NAMED.items() if name.match(split or "")), None)


def _pattern(group_by: str | None) -> re.Pattern[str] | None:
    if group_by is None or group_by == "folder":
        return None
    if not isinstance(group_by, str):
        raise SettingError(f'group_by must be null, "folder" or a pattern, got {group_by!r}')
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise SettingError(f"group_by is not a regular expression: {error}: {group_by!r}") from error
    if not pattern.groups:
        raise SettingError(f"group_by needs a group in parentheses that names the key, got {group_by!r}")
    return pattern
