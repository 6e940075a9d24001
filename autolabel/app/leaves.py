"""Settings by their dotted key, as a person sets them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any


def leaves(
    settings: Mapping[Any, Any], without: Collection[str] = (), prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """`a.b.c` and its value, for everything but sections with something in them; `without` settings of these names.
    An entry of a map that a person fills (`labels.rename`) is none of them, whatever its name."""
    for key, value in settings.items():
        if key in without and "_target_" in settings:
            continue
        if isinstance(value, Mapping) and value:
            yield from leaves(value, without, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
