"""`segment.precision=auto`: on a GPU bfloat16, where the run's own pictures show that it leaves their masks as they are;
everywhere else float32.

How far bfloat16 moves a mask depends on weights and pictures, so it is measured on both, and never chosen by speed. A run
keeps what was decided, as a setting like any other: in its configuration, its fingerprint, and on each further start.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from autolabel.app.compose import build
from autolabel.app.labelers import has_stages
from autolabel.core.protocols import Segmenter
from autolabel.core.types import Frame, ImageRef, PromptedMask, Prompts
from autolabel.engine.units import batches
from autolabel.ops.device import Precision, choose_device, runs_bf16
from autolabel.store.run import RunStore

if TYPE_CHECKING:
    from autolabel.engine.labeler import FrameLabeler

logger = logging.getLogger(__name__)

LEAST_MEAN = 0.995
"""Mean IoU of masks in bfloat16 with those in float32, at the least."""
NEAR, MOST_APART = 0.97, 0.005
"""The IoU that all but so large a share of the masks have to reach. Whatever another of the decoder's four masks, chosen
by a last digit, does to a label is among them."""
FEWEST_MASKS, ENOUGH_MASKS = 200, 400
"""With fewer the share cannot be told; after so many no more are asked."""
MOST_PICTURES, ONE_OF = 200, 20
"""Pictures tried, at most: so many, and one of so many of the run, since all of them are computed three times."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Pictures of a run, asked in float32 and in bfloat16: their masks, the mean IoU, how many are below `NEAR`."""

    pictures: int
    masks: int
    mean: float
    apart: int

    @property
    def decides(self) -> Precision:
        near = self.mean >= LEAST_MEAN and self.apart <= MOST_APART * self.masks
        return "bfloat16" if self.masks >= FEWEST_MASKS and near else "float32"

    def __str__(self) -> str:
        if not self.pictures:
            return f"{self.decides}: bfloat16 is tried on one of {ONE_OF} pictures, and not on a part of a run"
        seen = f"{self.masks} masks of {self.pictures} pictures, asked in bfloat16 too"
        if self.masks < FEWEST_MASKS:
            return f"{self.decides}: {seen}, are too few to tell ({FEWEST_MASKS} would do)"
        return f"{self.decides}: {seen}: mean IoU {self.mean:.4f}, {self.apart} below {NEAR}"


def automatic(config: DictConfig) -> dict[str, str]:
    """The settings that are `auto`, as a person would set them (`segment.precision`, or that of a segmenter within
    another), and the device each is about. None for a labeler without segmenters."""
    found = {}
    waiting: list[tuple[str, Any]] = [("segment", config.segment)] if has_stages(config) else []
    while waiting:
        path, settings = waiting.pop()
        if settings.get("precision") == "auto" and "device" in settings:
            found[f"{path}.precision"] = settings.device
        waiting += [(f"{path}.{key}", inner) for key, inner in settings.items() if isinstance(inner, DictConfig)]
    return found


def undecided(config: DictConfig) -> list[str]:
    """Those of `automatic` for which bfloat16 would be faster here. On a CPU there are none: there, labels are always
    those of float32."""
    return [key for key, device in automatic(config).items() if pays(choose_device(device, key=key))]


def pays(device: Any) -> bool:
    """Whether a trial is worth its time on this torch.device."""
    return device.type != "cpu" and runs_bf16(device)


def as_before(config: DictConfig, store: RunStore) -> None:
    """What was decided when this run was started, into `config`."""
    before: Mapping[str, str] = json.loads(store.meta("fingerprint") or "{}")
    for key in automatic(config):
        for precision in ("float32", "bfloat16"):
            if before.get(key) == repr(precision):
                OmegaConf.update(config, key, precision)


def sample(refs: Mapping[str, ImageRef]) -> tuple[ImageRef, ...]:
    """The pictures to try, from all over the run: the first ones may be frames of one video."""
    count = min(MOST_PICTURES, len(refs) // ONE_OF)
    return tuple(islice(refs.values(), 0, None, len(refs) // count))[:count] if count else ()


def tried(
    config: DictConfig, labeler: Callable[[], FrameLabeler], refs: Sequence[ImageRef]
) -> tuple[list[str], Trial]:
    """The settings that are open here, and the pictures as `labeler` labels them, in float32, beside bfloat16."""
    import torch

    from autolabel.engine.labeler import PipelineLabeler

    settings, pictures = undecided(config), 0
    ious: list[float] = []
    if settings and refs:
        try:
            exact = labeler()
            assert isinstance(exact, PipelineLabeler), "no other labeler has segmenters"
            both = Both(exact.segmenter, build(with_precision(config, settings, "bfloat16").segment), ious)
            trying = replace(exact, segmenter=both, refiners=())
            for some in batches(refs, exact.batch_size):
                trying.label([exact.load(ref) for ref in some])
                pictures += len(some)
                if len(ious) >= ENOUGH_MASKS:
                    break
        except torch.OutOfMemoryError:
            logger.warning("precision: the networks of float32 and bfloat16 do not fit on the device together")
    return settings, Trial(pictures, len(ious), sum(ious) / max(1, len(ious)), sum(iou < NEAR for iou in ious))


def with_precision(config: DictConfig, settings: Sequence[str], precision: Precision) -> DictConfig:
    changed: DictConfig = config.copy()
    for key in settings:
        OmegaConf.update(changed, key, precision)
    return changed


@dataclass(frozen=True, slots=True)
class Both:
    """A Segmenter that answers as `exact` does, and adds to `ious` how near `quick` is to each answer."""

    exact: Segmenter
    quick: Segmenter
    ious: list[float] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, str]:
        return self.exact.identity

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        answers = self.exact.segment(frames, prompts)
        for found, others in zip(answers, self.quick.segment(frames, prompts), strict=True):
            self.ious.extend(nearness(found, others))
        return answers


def nearness(answers: Sequence[PromptedMask], others: Sequence[PromptedMask]) -> Iterator[float]:
    """IoU of the masks that answer the same prompt of one picture; 0 for a mask that only one of the two has. Where a
    prompt has many, as of a grid of points, each goes with the others' mask of the same rank."""
    from autolabel.ops.masks import iou

    by_prompt: dict[int, tuple[list[PromptedMask], list[PromptedMask]]] = {}
    for side, masks in enumerate((answers, others)):
        for one in masks:
            by_prompt.setdefault(one.prompt, ([], []))[side].append(one)
    for pair in by_prompt.values():
        for a, b in zip_longest(*pair):
            yield 0.0 if a is None or b is None else iou(a.mask, b.mask)
