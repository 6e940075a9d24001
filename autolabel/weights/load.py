"""What goes into a network: the tensors of a file, all of them, or the random numbers of a seed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autolabel.core.errors import SettingError, WeightsError


def seed_of(weights: str) -> int | None:
    """The seed of `random:SEED`; None for a name or a path. Raises SettingError."""
    if not weights.startswith("random:"):
        return None
    seed = weights.removeprefix("random:")
    if not re.fullmatch(r"[0-9]{1,18}", seed):
        raise SettingError(
            f"weights must be a name, a path or random:SEED with a whole number of at most 18 digits, got {weights!r}"
        )
    return int(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's random numbers are those of `seed`; the global generator neither decides them nor moves."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_strictly(model: Any, state: Mapping[str, Any], path: Path) -> None:
    """Fill `model` with the tensors of `path`. Raises WeightsError, with the names that are missing, unexpected or of
    another shape, where they do not fit its architecture."""
    own = model.state_dict()
    wrong = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape),
    }
    if any(wrong.values()):
        found = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in wrong.items() if names)
        raise WeightsError(f"{path} does not fit its architecture: {found}")
    model.load_state_dict(state)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
