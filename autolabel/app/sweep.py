"""The runs of a sweep: one for each combination of values, each in a folder that says which. Labels nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from autolabel.app.overrides import as_hydra, key_of, parsed, quoted
from autolabel.core.errors import ConfigError
from autolabel.core.text import printable

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

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
    options = _alternatives(overrides)
    return [
        Job(chosen, tuple(one for one, others in zip(chosen, options, strict=True) if len(others) > 1))
        for chosen in product(*options)
    ]


def _alternatives(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """For each key, in order, one override for every value that was given: one alone where nothing is swept.

    A key that is set twice, however it is written, has what it was set to last. Raises ConfigError for a value that
    cannot be read.
    """
    found: dict[str, tuple[str, ...]] = {}
    for given in overrides:
        override = parsed(_as_sweep(given))
        key = override.get_key_element()
        found.pop(key, None)
        # `+a=1,2 a=3` is one run, which still needs the first to have the key: any value of it will do.
        found.update({other: found[other][:1] for other in found if key_of(other) == key_of(key)})
        found[key] = tuple(dict.fromkeys(f"{key}={value}" for value in _swept(override, given))) or (given,)
    return list(found.values())


def _swept(override: Override, given: str) -> Iterator[str]:
    """The values of a sweep as texts; none where there is one value alone."""
    from hydra.core.override_parser.types import ValueType

    if not override.is_sweep_override():
        return
    if not override.is_discrete_sweep() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise ConfigError(
            f"{given}: a sweep takes values one by one, with commas between them, or range(a,b,step)"
        )
    for value in override.sweep_string_iterator():
        # A step of 0.1 leads to 0.30000000000000004, which nobody meant.
        yield f"{float(value):.12g}" if override.is_range_sweep() else value


def _as_sweep(override: str) -> str:
    """Like `as_hydra`, with the values between the commas of what Hydra cannot read quoted one by one."""
    readable = as_hydra(override)
    key, _, value = override.partition("=")
    if readable == override or "," not in value:
        return readable
    values = value.split(",")
    if not all(values):
        raise ConfigError(f"{override}: there is no value before or after a comma")
    return f"{key}={','.join(map(quoted, values))}"


def folder_name(swept: Sequence[str]) -> str:
    """`detect.conf=0.2,segment=nano`, and where that does not make a good name, what is left of it and a digest."""
    return short_name(",".join(map(_legible, swept)), ",".join(swept))


def short_name(name: str, exact: str) -> str:
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
