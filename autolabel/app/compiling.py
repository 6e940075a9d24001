"""`segment.compile_mode=auto`: compiled where that pays for itself within the run.

Compiled networks give other last digits, so a run keeps what was decided, as a setting like any other: in its
configuration, its fingerprint, and on each further start. How many pictures there are decides, and no timing
(decision 0017).
"""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf

from autolabel.app.labelers import segmenters
from autolabel.core.text import counted
from autolabel.ops.device import choose_device, has_bf16_without_amx, runs_bf16
from autolabel.segment.compiling import can_compile
from autolabel.store.run import RunStore, mapping_of

logger = logging.getLogger(__name__)

ENOUGH, ENOUGH_FOR_NANO = 2000, 10_000
"""Pictures of a run that pay for compiling about twice. SAM 2.1 tiny in bfloat16 took 111 CPU s to compile, the nano
model 124 (docs/log.md), and then 0.2 and 0.03 s less for a picture of ten boxes (benchmarks/results, 2026-11-24)."""
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
            pays = here and pictures >= enough(settings) and is_faster(path, settings) and can_compile()
        else:
            pays = before.get(key) == repr(COMPILED)
        OmegaConf.update(config, key, COMPILED if pays else PLAIN)
        if pays and before is None:
            logger.info(counted(pictures, f"{key}=auto is {COMPILED}: {{}} picture[|s] pay for it"))


def enough(settings: DictConfig) -> int:
    return ENOUGH_FOR_NANO if settings.get("architecture") == "nano" else ENOUGH


def is_faster(path: str, settings: DictConfig) -> bool:
    """Whether a compiled network was measured to be faster: bfloat16 by a CPU with AMX. In float32 SAM 2.1 is not; no
    GPU was measured. Raises ConfigError for a device that is not there."""
    if settings.get("precision") not in ("fast", "bfloat16"):
        return False
    kind = choose_device(settings.device, key=f"{path}.device").type
    return kind == "cpu" and runs_bf16(kind) and not has_bf16_without_amx()
