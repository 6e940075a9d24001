"""Is the object cut by the picture's border? What is outside cannot be seen; how much of the outline ends there can."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autolabel.core.types import Dropped, ImageInfo, Instance, Rle
from autolabel.ops.boxes import area_xyxy, clip_xyxy
from autolabel.ops.mask_shape import mask_shape
from autolabel.ops.settings import fraction, optional
from autolabel.refine.each import drop_each


class BorderRefiner:
    """Drops masks with more than `max_contact` of their outline on the picture's border (0 drops all that touch it),
    and those with more than `max_cut` of their prompt box outside the picture, as existing boxes may have it.
    Null is off. Instances of the source's own labels are left alone."""

    def __init__(self, *, max_contact: float | None, max_cut: float | None) -> None:
        self._max_contact = optional(fraction, "max_contact", max_contact)
        self._max_cut = optional(fraction, "max_cut", max_cut)

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        return drop_each(instances, self._why)

    def _why(self, instance: Instance, mask: Rle) -> str | None:
        if self._max_cut is not None:
            cut = cut_off(instance.box_xyxy, mask.size_hw)
            if cut > self._max_cut:
                return f"border_cut: {cut:.3f} > {self._max_cut:g} of the box is outside the picture"
        if self._max_contact is not None:
            shape = mask_shape(mask, instance.box_xyxy)
            contact = shape.border_px / max(shape.outline_px, 1)
            if contact > self._max_contact:
                return f"border: {contact:.3f} > {self._max_contact:g} of the outline is on the picture's border"
        return None


def cut_off(box_xyxy: Sequence[float], size_hw: tuple[int, int]) -> float:
    """The share of a box that is outside the picture."""
    box = np.array([list(box_xyxy)], np.float32)
    whole = float(area_xyxy(box)[0])
    return 1 - float(area_xyxy(clip_xyxy(box, size_hw))[0]) / whole if whole else 0.0
