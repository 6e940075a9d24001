"""Images without an object to write: nothing was found in them, or all that was found was dropped. A trainer takes both
for background, and only the first are. One place for the exporters that have the setting; knows no format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from autolabel.core.text import counted
from autolabel.core.types import ImageRecord
from autolabel.export.policy import Policy, prepared
from autolabel.ops.settings import one_of

Choice = Literal["keep", "drop", "found_none"]

EMPTY_NOTES: dict[str, str] = {
    "images_empty": "{} [image in which nothing was found is|images in which nothing was found are] left out"
}
"""What `EmptyImages.count` counts, where `EmptyImages.note` does not tell of it."""

_DROPPED_BY = {
    "empty_masks": "empty_mask",
    "crowds_left_out": "crowd",
    "hidden_objects": "overlaps",
    "below_min_area": "min_area_px",
}
"""Effects of a policy that leave an object out, as reasons."""
_REASON = "emptied_by_"


@dataclass(frozen=True, slots=True)
class EmptyImages:
    """The setting `empty_images` of the exporter `key`: `keep` all, `drop` all, or keep those alone in which
    `found_none` (nothing) was found. `policy` is what the exporter makes objects ready with."""

    key: str
    choice: Choice
    policy: Policy

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        one_of("empty_images", self.choice, get_args(Choice))

    def is_left_out(self, record: ImageRecord) -> bool:
        """Whether a labelled image is not in the data set, for want of an object to write."""
        return self._leaves_out(record) and not prepared(record, self.policy, Counter())

    def count(self, record: ImageRecord, counts: Counter[str]) -> bool:
        """Count a labelled image without an object to write; whether it is in the data set all the same."""
        listed = not self._leaves_out(record)
        if not record.candidates:
            counts["images_empty"] += not listed
            return listed
        counts["images_emptied"] += 1
        effects: Counter[str] = Counter()
        prepared(record, self.policy, effects)
        reasons = Counter(verdict.reason.partition(":")[0] for verdict in record.verdicts if verdict.reason)
        reasons.update({word: effects[key] for key, word in _DROPPED_BY.items()})
        counts.update({_REASON + reason: number for reason, number in reasons.items() if number})
        return listed

    def note(self, counts: Mapping[str, int]) -> list[str]:
        """The line about images whose objects were all dropped, if there are any."""
        if not counts.get("images_emptied"):
            return []
        reasons = Counter({key.removeprefix(_REASON): n for key, n in counts.items() if key.startswith(_REASON)})
        words = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        what = (
            "written as [an image|images] without objects, background for a trainer; "
            f"export.{self.key}.empty_images=found_none leaves [it|them] out"
            if self.choice == "keep"
            else f"left out (export.{self.key}.empty_images={self.choice})"
        )
        return [
            counted(
                counts["images_emptied"],
                f"{{}} [image whose objects were all dropped ({words}) is|images whose objects were all dropped "
                f"({words}) are] {what}",
            )
        ]

    def _leaves_out(self, record: ImageRecord) -> bool:
        """Whether it would be left out, had it no object to write."""
        return self.choice == "drop" or (self.choice == "found_none" and bool(record.candidates))
