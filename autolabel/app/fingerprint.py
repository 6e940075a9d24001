"""Everything that can change a record, as one flat mapping: what decides whether a run may be continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autolabel.app.compose import flat
from autolabel.app.refiners import refine_entries
from autolabel.core.protocols import Refiner
from autolabel.core.types import Category
from autolabel.store import codec

STAGES = ("labeler", "detect", "labels", "prompt", "segment", "images")
"""Groups whose settings count where the labeler has them, and those that always do."""
ALWAYS = {"labels", "images"}
BY_IDENTITY = {"weights", "device", "box_prior"}
"""Where a file lies and how a device is called may change; their sha256 and kind come from `identity`."""
BY_CONTENT = {"prompt.file", "prompt.run", "prompt.earlier.run"}
"""So may the place of files that prompts are read from."""


def fingerprint(
    config: Mapping[str, Any],
    identities: Mapping[str, Mapping[str, str]],
    refiners: Sequence[Refiner],
    categories: Sequence[Category],
) -> dict[str, str]:
    """Keys as a person would set them, values as text. The engine and the exports are not in it.

    `identities` are the labeler's: its groups of settings, and what decides each beside its settings."""
    stages = [stage for stage in STAGES if stage in ALWAYS or stage in identities]
    entries = [pair for stage in stages for pair in flat(stage, config[stage], BY_IDENTITY)]
    entries += [(key, repr(config[key])) for key in ("unit_size", "batch_size", "batch_mb")]
    entries += refine_entries(config["refine"], refiners).items()
    entries += [(f"{stage} ({key})", value) for stage, its in identities.items() for key, value in its.items()]
    entries += [
        ("classes", ", ".join(f"{c.id} {c.name}" for c in categories)),
        ("record version", str(codec.VERSION)),
    ]
    elsewhere = BY_CONTENT if identities.get("prompt") else frozenset()
    return {k: v for k, v in entries if k not in elsewhere}
