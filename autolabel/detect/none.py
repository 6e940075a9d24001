"""No detector: what there is, the prompts find out. One class for everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autolabel.core.types import Category, Detections, Frame
from autolabel.ops.settings import text


class NoDetector:
    """Finds nothing. `category` is the name of the class that objects found by prompts get."""

    identity: Mapping[str, str] = {}

    def __init__(self, *, category: str) -> None:
        self._categories = (Category(1, text("category", category, "a name")),)

    @property
    def categories(self) -> tuple[Category, ...] | None:
        return self._categories

    @property
    def class_of_new(self) -> int:
        """The class of objects that only prompts find."""
        return self._categories[0].id

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [Detections.none() for _ in frames]
