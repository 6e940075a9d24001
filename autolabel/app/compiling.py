"""`segment.compile_mode=auto`: compiled where that pays for itself within the run, seen to work before it begins.

Compiled networks give other last digits, so a run keeps what was decided, as a setting like any other: in its
configuration, its fingerprint, and on each further start. How many pictures there are decides, and no timing
(decision 0017).
"""

from __future__ import annotations

import gc
import logging
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from autolabel.app.build import build
from autolabel.app.labelers import segmenters
from autolabel.core.text import counted, one_line, printable
from autolabel.core.types import Frame, ImageInfo, ImageRef, Prompts
from autolabel.ops.device import choose_device, has_bf16_without_amx, runs_bf16
from autolabel.store.run import RunStore, mapping_of

logger = logging.getLogger(__name__)

ENOUGH = 2000
"""Pictures of a run that pay for compiling. SAM 2.1 tiny in bfloat16 takes about 70 CPU s to compile, and then 0.2 s
less a picture of ten boxes; the nano model 0.03 s (benchmarks/results/cpu_amx_x86_64_2026-11-24.md)."""
COMPILED, PLAIN = "default", "none"


def settle_compiling(config: DictConfig, store: RunStore, *, pictures: int, here: bool) -> None:
    """A word for each `compile_mode=auto`, into `config`. `here` is whether this process computes all of the run: what
    others can do is not known, and parts that decide differently could not be merged."""
    before = mapping_of(store, "fingerprint") if store.has_records else None
    for path, settings in segmenters(config):
        if settings.get("compile_mode") != "auto" or "device" not in settings:
            continue
        key = f"{path}.compile_mode"
        if before is None:
            pays = here and pictures >= ENOUGH and is_faster(path, settings) and can_compile(settings)
        else:
            pays = before.get(key) == repr(COMPILED)
        OmegaConf.update(config, key, COMPILED if pays else PLAIN)
        if pays and before is None:
            logger.info(counted(pictures, f"{key}=auto is {COMPILED}: {{}} picture[|s] pay for it"))


def is_faster(path: str, settings: DictConfig) -> bool:
    """Whether a compiled network was measured to be faster: bfloat16 by a CPU with AMX. In float32 SAM 2.1 is not; no
    GPU was measured. Raises ConfigError for a device that is not there."""
    if settings.get("precision") not in ("fast", "bfloat16"):
        return False
    kind = choose_device(settings.device, key=f"{path}.device").type
    return kind == "cpu" and runs_bf16(kind) and not has_bf16_without_amx()


def can_compile(settings: DictConfig) -> bool:
    """Whether such a segmenter, compiled, answers one box. What it compiles here, the run's own finds ready."""
    from autolabel.app.weights import Bar
    from autolabel.weights import progress_to

    trial = settings.copy()
    trial.compile_mode = COMPILED
    try:
        with Bar() as bar, progress_to(bar):
            ask_one_box(build(trial))
    except Exception as error:  # noqa: BLE001 - a compiler has many ways to fail; what is wrong without it, the run says
        logger.info("compile_mode=auto is %s: compiling ended with %s", PLAIN, printable(one_line(error)))
        return False
    finally:
        gc.collect()  # a second network would stay beside the run's own
    return True


def ask_one_box(segmenter: Any) -> None:
    frame = Frame(ImageRef("grey", "grey"), np.full((64, 64, 3), 128, np.uint8), ImageInfo(64, 64))
    segmenter.segment([frame], [Prompts(np.array([[8, 8, 56, 56]], np.float32))])
