"""Floors for the scores that came with an instance. Computes no score of its own."""

from __future__ import annotations

from collections.abc import Sequence

from autolabel.core.types import Dropped, ImageInfo, Instance, Rle
from autolabel.ops.settings import fraction, optional
from autolabel.refine.each import drop_each


class ScoreRefiner:
    """Drops instances below a floor; null is off. A score that a model does not give is not held against it,
    a NaN is. Instances of the source's own labels are left alone."""

    def __init__(
        self,
        *,
        min_detector_score: float | None,
        min_predicted_iou: float | None,
        min_object_score: float | None,
        min_stability: float | None,
    ) -> None:
        floors = {
            "detector_score": min_detector_score,
            "predicted_iou": min_predicted_iou,
            "object_score": min_object_score,
            "stability": min_stability,
        }
        self._floors = [(name, optional(fraction, f"min_{name}", floor)) for name, floor in floors.items()]

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        return drop_each(instances, self._why)

    def _why(self, instance: Instance, mask: Rle) -> str | None:
        for name, floor in self._floors:
            score = getattr(instance, name)
            if floor is not None and score is not None and not score >= floor:
                return f"min_{name}: {score:.3f} < {floor:g}"
        return None
