"""How good is each mask expected to be? Sets `quality`, the IoU that the mask can be expected to have with the truth.

Stands behind what changes masks: the score is about the mask as it is then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from autolabel.core.types import Dropped, ImageInfo, Instance, Rle
from autolabel.ops.masks import is_empty
from autolabel.ops.quality import expected_iou, read_calibration, signals
from autolabel.ops.settings import fraction, optional, text
from autolabel.refine.each import drop_each

SHIPPED = "quality.json"


class QualityRefiner:
    """Scores each mask by the curves of `calibration`: `default`, or the path of a file that
    `autolabel evaluate --calibrate` wrote. Drops those under `min_quality`; null is off.

    A mask without a pixel has quality 0. Instances of the source's own labels get no score and are left alone.
    """

    def __init__(self, *, calibration: str, min_quality: float | None) -> None:
        text("calibration", calibration, "default or a path")
        self._min_quality = optional(fraction, "min_quality", min_quality)
        path = default_path() if calibration == "default" else Path(calibration).expanduser()
        self._calibration, sha256 = read_calibration(path)
        self._identity = {"calibration": sha256}

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides its numbers beside its config."""
        return self._identity

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]:
        asked = [i for i in instances if i.origin == "model" and i.mask is not None and not is_empty(i.mask)]
        qualities = expected_iou(signals(asked), self._calibration)
        by_index = {one.index: quality for one, quality in zip(asked, qualities, strict=True)}
        scored = [
            replace(one, quality=by_index.get(one.index, 0.0)) if one.origin == "model" and one.mask else one
            for one in instances
        ]
        return drop_each(scored, self._why)

    def _why(self, instance: Instance, mask: Rle) -> str | None:
        quality = instance.quality
        if self._min_quality is None or quality is None or quality >= self._min_quality:
            return None
        return f"min_quality: {quality:.3f} < {self._min_quality:g}"


def default_path() -> Path:
    """The calibration in the package. What it was fitted on is said in it, under `about`."""
    return Path(str(files("autolabel.refine"))) / SHIPPED
