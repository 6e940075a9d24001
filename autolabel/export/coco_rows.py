"""Ids and JSON text of COCO's files, whichever they are. Memory grows by 8 bytes for an id of the source alone."""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from autolabel.core.errors import ExportError


class Ids:
    """Numbers of which some are brought along: first `announce` every own id, then take them from `numbers` in
    the same order."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self._own = array("q")

    def announce(self, *own_ids: int | None) -> None:
        if self.keep:
            self._own.extend([own_id for own_id in own_ids if own_id is not None])

    @property
    def brought(self) -> bool:
        """Whether any own id was announced; else the numbers are 1, 2, 3, ..."""
        return bool(self._own)

    @property
    def repeated(self) -> int:
        """How many announced ids were there before."""
        own = np.sort(np.frombuffer(self._own, np.int64)) if self._own else np.zeros(0, np.int64)
        return int((own[1:] == own[:-1]).sum())

    def numbers(self) -> Number:
        """Gives an own id the first time that it is asked for; else, and where there is none, the next one above
        the largest. Never twice the same."""
        twice = self._twice()
        new = itertools.count(max(0, max(self._own, default=0)) + 1)
        given: set[int] = set()
        keep = self.keep

        def number(own_id: int | None) -> int:
            if own_id is None or not keep or own_id in given:
                return next(new)
            if own_id in twice:
                given.add(own_id)
            return own_id

        return number

    def _twice(self) -> set[int]:
        own = np.sort(np.frombuffer(self._own, np.int64)) if self._own else np.zeros(0, np.int64)
        return set(own[1:][own[1:] == own[:-1]].tolist())


Number = Callable[[int | None], int]

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
