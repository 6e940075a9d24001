"""Everything that can change a record, as one flat mapping: what decides whether a run may be continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autolabel.app.compose import flat
from autolabel.app.refiners import refine_entries
from autolabel.core.protocols import Detector, Prompter, Refiner, Segmenter
from autolabel.core.types import Category
from autolabel.store import codec

STAGES = ("detect", "labels", "prompt", "segment", "images")
BY_IDENTITY = {"weights", "device"}
"""Where weights lie and how a device is called may change; their sha256 and kind come from `identity`."""
BY_CONTENT = {"prompt.file", "prompt.run", "prompt.earlier.run"}
"""So may the place of files that prompts are read from."""


def fingerprint(
    config: Mapping[str, Any],
    detector: Detector,
    prompter: Prompter,
    segmenter: Segmenter,
    refiners: Sequence[Refiner],
    categories: Sequence[Category],
) -> dict[str, str]:
    """Keys as a person would set them, values as text. The engine and the exports are not in it."""
    entries = [pair for stage in STAGES for pair in flat(stage, config[stage])]
    entries += [("unit_size", repr(config["unit_size"])), ("batch_size", repr(config["batch_size"]))]
    entries += refine_entries(config["refine"], refiners).items()
    entries += [(f"detect ({key})", value) for key, value in detector.identity.items()]
    entries += [(f"prompt ({key})", value) for key, value in prompter.identity.items()]
    entries += [(f"segment ({key})", value) for key, value in segmenter.identity.items()]
    entries += [
        ("classes", ", ".join(f"{c.id} {c.name}" for c in categories)),
        ("record version", str(codec.VERSION)),
    ]
    elsewhere = BY_CONTENT if prompter.identity else frozenset()
    return {k: v for k, v in entries if k.rpartition(".")[2] not in BY_IDENTITY and k not in elsewhere}
