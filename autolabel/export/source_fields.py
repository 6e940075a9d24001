"""Fields that came with the source and are not ours: the `extra` of images, objects and classes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from autolabel.core.errors import ExportError


def unknown_fields(text: str, own: Iterable[str], where: str) -> dict[str, Any]:
    """The fields of an `extra` that are none of ours. Raises ExportError when it is not a JSON object."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ExportError(f"the source's fields of {where} are not JSON: {error}") from error
    if not isinstance(found, Mapping):
        raise ExportError(f"the source's fields of {where} are not a JSON object: {text[:80]!r}")
    ours = set(own)
    return {key: value for key, value in found.items() if key not in ours}


def fields_of(extra: str) -> Mapping[str, Any]:
    """The fields of an `extra` text. Raises ExportError when it is not a JSON object."""
    return unknown_fields(extra, (), "an image or object")
