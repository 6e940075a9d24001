"""Does the mask fill the box that asked for it? A mask of something else in or around the box does not."""

from __future__ import annotations

from collections.abc import Sequence

from autolabel.core.types import Dropped, ImageInfo, Instance, Rle
from autolabel.ops.box_fit import tight_iou
from autolabel.ops.settings import fraction, optional
from autolabel.refine.each import drop_each


class BoxFitRefiner:
    """Drops a mask whose tight box and prompt box have an IoU below `min_iou`; null is off. Instances of the
    source's own labels are left alone."""

    def __init__(self, *, min_iou: float | None) -> None:
        self._min_iou = optional(fraction, "min_iou", min_iou)

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        return drop_each(instances, self._why)

    def _why(self, instance: Instance, mask: Rle) -> str | None:
        if self._min_iou is None:
            return None
        fit = tight_iou(mask, instance.box_xyxy)
        return None if fit >= self._min_iou else f"box_fit: {fit:.3f} < {self._min_iou:g}"
