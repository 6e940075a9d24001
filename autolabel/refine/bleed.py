"""Does the mask run out of the box that asked for it? The part outside is cut off, or the mask goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autolabel.core.types import Dropped, ImageInfo, Instance, Rle
from autolabel.ops.boxes import clip_xyxy
from autolabel.ops.mask_shape import mask_shape
from autolabel.ops.masks import decode_crop, encode_crop
from autolabel.ops.settings import flag, fraction, number, optional
from autolabel.refine.each import Refined, drop_each

Box = tuple[float, float, float, float]


class BleedRefiner:
    """Looks at what lies outside the prompt box, widened on each side by `margin` times its size. More than
    `max_fraction` of the mask there: dropped (null: off). `clip` cuts off what lies there of the others.
    Instances of the source's own labels are left alone."""

    def __init__(self, *, margin: float, max_fraction: float | None, clip: bool) -> None:
        self._margin = number("margin", margin, 0, 10)
        self._max_fraction = optional(fraction, "max_fraction", max_fraction)
        self._clip = flag("clip", clip)

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        nothing: Refined = list(instances), []
        if self._max_fraction is None and not self._clip:
            return nothing
        kept, dropped = drop_each(instances, self._why)
        return [self._clipped(one) for one in kept] if self._clip else kept, dropped

    def _why(self, instance: Instance, mask: Rle) -> str | None:
        shape = mask_shape(mask, self._allowed(instance))
        outside = 1 - shape.inside_px / max(shape.area_px, 1)
        if self._max_fraction is not None and outside > self._max_fraction:
            return f"bleed: {outside:.3f} > {self._max_fraction:g} of the mask is outside its box"
        if self._clip and not shape.inside_px:
            return "bleed: all of the mask is outside its box"
        return None

    def _clipped(self, instance: Instance) -> Instance:
        mask = instance.mask
        if mask is None or instance.origin != "model":
            return instance
        clipped = inside_box(mask, self._allowed(instance))
        return instance if clipped is mask else instance.with_mask(clipped)

    def _allowed(self, instance: Instance) -> Box:
        x0, y0, x1, y1 = instance.box_xyxy
        dx, dy = self._margin * (x1 - x0), self._margin * (y1 - y0)
        return x0 - dx, y0 - dy, x1 + dx, y1 + dy


def inside_box(mask: Rle, box_xyxy: Box) -> Rle:
    """The pixels whose centres lie in the box; the same object when all do."""
    crop, x, y = decode_crop(mask)
    box = clip_xyxy(np.array([list(box_xyxy)], np.float32), mask.size_hw)[0]
    x0, y0, x1, y1 = (np.ceil(box - 0.5).astype(int) - [x, y, x, y]).tolist()
    cut = np.zeros_like(crop)
    window = slice(max(y0, 0), max(y1, 0)), slice(max(x0, 0), max(x1, 0))
    cut[window] = crop[window]
    return mask if cut.sum() == crop.sum() else encode_crop(cut, x, y, mask.size_hw)
