"""Everything that can change a record, as one flat mapping: what decides whether a run may be continued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autolabel.app.leaves import leaves
from autolabel.app.refiners import refine_entries
from autolabel.core.protocols import Refiner
from autolabel.core.types import Category
from autolabel.ops.settings import texts
from autolabel.store import codec

STAGES = ("labeler", "detect", "labels", "prompt", "segment", "images")
"""Groups whose settings count where the labeler has them, and those that always do."""
ALWAYS = {"labels", "images"}
PLACES = frozenset({"weights", "device", "box_prior", "file", "run"})
"""Settings that say where something lies, or how it is called. That may change where the component's `identity` says
what is there: the sha256 of a file, the kind of a device."""


def fingerprint(
    config: Mapping[str, Any],
    identities: Mapping[str, Mapping[str, str]],
    refiners: Sequence[Refiner],
    categories: Sequence[Category],
) -> dict[str, str]:
    """Keys as a person would set them, values as text. The engine and the exports are not in it.

    `identities` are the labeler's: its groups of settings, and what decides each beside its settings. Raises
    ConfigError for an identity that does not hold texts."""
    stages = [stage for stage in STAGES if stage in ALWAYS or stage in identities]
    entries = [pair for stage in stages for pair in _entries(stage, config[stage], identities.get(stage, {}))]
    entries += [(key, repr(config[key])) for key in ("unit_size", "batch_size", "batch_mb")]
    entries += refine_entries(config["refine"], refiners).items()
    entries += [
        ("classes", ", ".join(f"{c.id} {c.name}" for c in categories)),
        ("record version", str(codec.VERSION)),
    ]
    return dict(entries)


def _entries(stage: str, settings: Any, identity: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The entries of one group: its settings, but for places of which the identity says what is there, and the
    identity. Raises ConfigError for one that is not texts: read back from the run, it would be another."""
    texts(f"{stage}: the identity of {settings.get('_target_')}", identity)
    pairs = {key: repr(value) for key, value in leaves({stage: settings})}
    for name in PLACES & {key.partition(" ")[0] for key in identity}:
        called_so = pairs.keys() - dict(leaves({stage: settings}, {name})).keys()
        # Of two files, that of a component and that of one within it, the identity may tell one alone.
        if len({pairs[key] for key in called_so}) == 1:
            pairs = {key: value for key, value in pairs.items() if key not in called_so}
    yield from pairs.items()
    yield from ((f"{stage} ({key})", value) for key, value in identity.items() if value)
