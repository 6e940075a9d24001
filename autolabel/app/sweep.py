"""The runs of a sweep: one for each combination of values, each in a folder that says which. Labels nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from autolabel.app.compose import alternatives
from autolabel.core.text import printable

LONGEST_NAME = 120
"""Bytes of a folder's name; file systems take 255, and exports put temporary files beside theirs."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: all its overrides, and `swept`, those that other runs of the sweep have otherwise."""

    overrides: tuple[str, ...]
    swept: tuple[str, ...]

    @property
    def text(self) -> str:
        """For the screen."""
        return printable(" ".join(self.swept))

    @property
    def folder(self) -> str:
        """A name that is the same whatever the other runs are, so that the same values continue the same run."""
        return folder_name(self.swept)


def jobs(overrides: Sequence[str]) -> list[Job]:
    """Every combination, the last key changing fastest. Raises ConfigError for a value that cannot be read."""
    options = alternatives(overrides)
    return [
        Job(chosen, tuple(one for one, others in zip(chosen, options, strict=True) if len(others) > 1))
        for chosen in product(*options)
    ]


def folder_name(swept: Sequence[str]) -> str:
    """`detect.conf=0.2,segment=nano`, and where that does not make a good name, what is left of it and a digest."""
    return fitting(",".join(map(_legible, swept)), ",".join(swept))


def fitting(name: str, exact: str) -> str:
    """`name` where it is short enough and all of `exact`; else cut, with a digest that keeps it apart from others."""
    if name == exact and len(name.encode(errors="surrogateescape")) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(exact.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name.encode(errors='replace')[:LONGEST_NAME].decode(errors='ignore')}-{digest}"


def _legible(override: str) -> str:
    """The override without what a shell or a file system would take for something else: `x=[a,b]` is `x=a+b`."""
    key, _, value = override.partition("=")
    bare = re.sub(r"[\[\]{}()'\"\\]", "", value).replace(",", "+")
    return "=".join(
        "".join(c if c.isalnum() or c in "._+-=" else "_" for c in part).strip("_") for part in (key, bare)
    )
