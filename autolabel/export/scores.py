"""The scores of an object, for annotation tools."""

from __future__ import annotations

import math

from autolabel.core.types import Instance


def scores_of(instance: Instance) -> dict[str, float]:
    """The scores that a model gave; none for labels that were there before."""
    found = {"score": instance.detector_score, "predicted_iou": instance.predicted_iou}
    if instance.origin == "label":
        return {}
    return {key: round(float(v), 6) for key, v in found.items() if v is not None and math.isfinite(v)}
