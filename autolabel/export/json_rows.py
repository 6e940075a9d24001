"""JSON text, written piece by piece: arrays of one item a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

_TO_JSON = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def json_bytes(value: object) -> bytes:
    """ASCII, so that a name with stray bytes can be written too."""
    return _TO_JSON(value).encode("ascii")


def json_array(items: Iterable[bytes]) -> Iterator[bytes]:
    """A JSON array, one item a line."""
    separator = b"[\n"
    for item in items:
        yield separator
        yield item
        separator = b",\n"
    yield b"[]" if separator == b"[\n" else b"\n]"
