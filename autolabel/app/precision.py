"""`segment.precision=auto`: on a GPU bfloat16, where the run's own pictures show that it leaves their masks as
they are; everywhere else float32.

How far bfloat16 moves a mask depends on weights and pictures, so it is measured on both, and never chosen by
speed. A run keeps what was decided, as a setting like any other: in its configuration, its fingerprint, and on
each further start.
"""

from __future__ import annotations

import gc
import logging
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from autolabel.app.build import build
from autolabel.app.labelers import segmenters
from autolabel.core.text import counted, one_line, printable
from autolabel.core.types import ImageRecord, ImageRef
from autolabel.engine.units import batches
from autolabel.ops.device import Precision, choose_device, runs_bf16
from autolabel.store.run import RunStore, mapping_of

if TYPE_CHECKING:
    from autolabel.engine.labeler import FrameLabeler

logger = logging.getLogger(__name__)

LEAST_MEAN = 0.995
"""Mean IoU of the objects' masks in bfloat16 with those in float32, at the least."""
NEAR, MOST_APART = 0.97, 0.005
"""The IoU that all but so large a share of the objects have to reach."""
FEWEST, ENOUGH = 400, 1000
"""Objects. With fewer, bfloat16 is not chosen; after so many no more pictures are tried."""
OF_ONE = 10
"""Objects of one picture that count, from all over it: what bfloat16 does depends on pictures."""
MOST_PICTURES, ONE_OF = 500, 20
"""Pictures tried: one of so many of the run, since all of them are computed three times. A run whose part has no room
for `FEWEST` objects is not worth a trial."""
TRYING, DIED = "trying", "float32: bfloat16 was tried, and the process ended in it"
"""What a run notes while it tries, and what a start notes that finds it: the one before died of it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Pictures of a run, labelled in float32 and with `settings` at bfloat16: objects compared, their mean IoU, how
    many are below `NEAR`. `problem` is what it ended with, "" where it did not."""

    settings: tuple[str, ...]
    pictures: int
    objects: int
    mean: float
    apart: int
    problem: str = ""

    @property
    def decides(self) -> Precision:
        near = self.mean >= LEAST_MEAN and self.apart <= MOST_APART * self.objects
        return "bfloat16" if near and self.objects >= FEWEST and not self.problem else "float32"

    def __str__(self) -> str:
        if self.problem:
            return f"{self.decides}: bfloat16 was tried and ended with {self.problem}"
        seen = f"{counted(self.objects, '{} object[|s]')} of {counted(self.pictures, '{} picture[|s]')}, labelled in bfloat16 too"
        if self.objects < FEWEST:
            return f"{self.decides}: {seen}, too few to tell ({FEWEST} would do)"
        return f"{self.decides}: {seen}: mean IoU {self.mean:.4f}, {self.apart} below {NEAR}"


Attempt = Callable[[Sequence[ImageRef]], Trial | None]
"""`tried` with these pictures, in the process that is to compute."""


def automatic(config: DictConfig) -> dict[str, str]:
    """The settings that are `auto`, as a person would set them (`segment.precision`, or that of a segmenter within
    another), and the device each is about. None for a labeler without segmenters."""
    return {
        f"{path}.precision": settings.device
        for path, settings in segmenters(config)
        if settings.get("precision") == "auto" and "device" in settings
    }


def undecided(config: DictConfig) -> list[str]:
    """Those of `automatic` for which bfloat16 would be faster here. On a CPU there are none: there, labels are always
    those of float32. Raises ConfigError for a device that is not there."""
    return [
        key
        for key, device in automatic(config).items()
        if pays(choose_device(device, key=f"{key.removesuffix('precision')}device"))
    ]


def pays(device: Any) -> bool:
    """Whether a trial is worth its time on this torch.device."""
    return device.type != "cpu" and runs_bf16(device)


def as_before(config: DictConfig, store: RunStore) -> None:
    """What was decided when this run was started, into `config`."""
    before = mapping_of(store, "fingerprint")
    for key in automatic(config):
        for precision in ("float32", "bfloat16"):
            if before.get(key) == repr(precision):
                OmegaConf.update(config, key, precision)


def sample(refs: Mapping[str, ImageRef]) -> list[ImageRef]:
    """The pictures to try, drawn from the whole run and in the order that they are drawn in: of a list by folders
    the first ones are alike. The same ones each time. None where they would be few."""
    count = min(MOST_PICTURES, len(refs) // ONE_OF)
    if count * OF_ONE < FEWEST:
        return []
    order = random.Random(0).sample(range(len(refs)), count)
    wanted = set(order)
    drawn = {number: ref for number, ref in enumerate(refs.values()) if number in wanted}
    return [drawn[number] for number in order]


def settle(config: DictConfig, store: RunStore, refs: Mapping[str, ImageRef], attempt: Attempt | None) -> None:
    """What a trial of a new run decides, into `config`, and what was seen into the store. Where there is none, or it
    cannot be made, `auto` stays, which is float32."""
    died = attempt is not None and store.meta("precision") == TRYING
    some = [] if attempt is None or died else sample(refs)
    store.set_meta(precision=DIED if died else TRYING if some else "")
    if attempt is None or not some:
        return
    told = ""
    try:
        trial = attempt(some)
    except Exception as error:  # noqa: BLE001 - its process died, say: what the run has no way around, it says itself
        told = f"float32: bfloat16 could not be tried: {printable(one_line(error))}"
    else:
        if trial is not None:
            told = str(trial)
            for key in trial.settings:
                OmegaConf.update(config, key, trial.decides)
    finally:
        store.set_meta(precision=told)  # also when somebody said stop
    logger.info("precision: %s", told)


def tried(config: DictConfig, labeler: Callable[[], FrameLabeler], refs: Sequence[ImageRef]) -> Trial | None:
    """What becomes of the pictures in bfloat16, beside what `labeler` makes of them, in float32; None where nothing is
    undecided here. Raises nothing but ConfigError for a device that is not there."""
    import torch

    settings = undecided(config)
    if not settings:
        return None
    sys.stderr.write(counted(len(refs), "precision: bfloat16 is tried on up to {} picture[|s] first\n"))
    ious: list[float] = []
    pictures, problem = 0, ""
    try:
        for count, some in _compared(config, settings, labeler(), refs):
            pictures += count
            ious += some
            if len(ious) >= ENOUGH:
                break
    except Exception as error:  # noqa: BLE001 - whatever is wrong with bfloat16, float32 may do; else the run says so itself
        problem = printable(one_line(error))
    # A network within a cycle of references would stay on the device beside the run's own.
    gc.collect()
    with suppress(Exception):  # a device in which something broke says so at each call
        torch.cuda.empty_cache()
    mean = sum(ious) / max(1, len(ious))
    return Trial(tuple(settings), pictures, len(ious), mean, sum(iou < NEAR for iou in ious), problem)


def _compared(
    config: DictConfig, settings: Sequence[str], exact: FrameLabeler, refs: Sequence[ImageRef]
) -> Iterator[tuple[int, list[float]]]:
    """Batch by batch, how many pictures it has, and what `nearness` says of them."""
    from autolabel.engine.labeler import PipelineLabeler

    assert isinstance(exact, PipelineLabeler), "no other labeler has segmenters"
    quick = config.copy()
    for key in settings:
        OmegaConf.update(quick, key, "bfloat16")
    other = replace(exact, segmenter=build(quick.segment))
    for loaded in batches(map(exact.load, refs), exact.batch_limit):
        records = zip(exact.label(loaded), other.label(loaded), strict=True)
        yield len(loaded), [iou for pair in records for iou in nearness(*pair)]


def nearness(record: ImageRecord, other: ImageRecord) -> list[float]:
    """For each object of two labellings of a picture, the IoU of its masks; 0 for one that only one of the two has.
    Masks that came with the picture are left out, and of many objects `OF_ONE` stay."""
    from autolabel.ops.masks import iou

    mine, others = (
        {i.index: i.mask for i in one.instances if i.origin == "model" and i.mask is not None}
        for one in (record, other)
    )
    pairs = [(mine[index], others.get(index), others) for index in mine]
    pairs += [(others[index], None, mine) for index in others if index not in mine]
    few = min(len(pairs), OF_ONE)
    found = []
    for mask, same, there in (pairs[k * len(pairs) // few] for k in range(few)):
        near = 0.0 if same is None else iou(mask, same)
        if near < NEAR:  # what prompts find is numbered as it was found: it may be another one's number now
            best = max((iou(mask, one) for one in there.values()), default=0.0)
            near = best if best >= NEAR else near
        found.append(near)
    return found
