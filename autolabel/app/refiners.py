"""The refiners that a configuration names, for the classes of a run, and their part of its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from autolabel.app.compose import build_all, flat
from autolabel.core.protocols import Refiner
from autolabel.core.types import Category


def build_refiners(config: DictConfig | None, categories: Sequence[Category]) -> list[Refiner]:
    """In the order they are written. One that has `for_classes` gets to know the run's."""
    built = build_all("refine", config).values()
    return [one.for_classes(categories) if hasattr(one, "for_classes") else one for one in built]


def refine_entries(config: Any, refiners: Sequence[Refiner]) -> dict[str, str]:
    """Settings as a person would set them, values as text. A setting of the name of an `identity` is where a file
    lies: its content counts instead."""
    identity: dict[str, str] = {}
    for refiner in refiners:
        given: Mapping[str, str] = getattr(refiner, "identity", {})
        identity.update(given)
    return {
        **dict(flat("refine", config, identity)),
        **{f"refine ({key})": value for key, value in identity.items()},
    }


def is_of_refine(key: str) -> bool:
    """Whether an entry of a fingerprint is one of `refine_entries`."""
    return key.split(".")[0] == "refine" or key.startswith("refine (")
