"""What `autolabel evaluate` left in the run directory, read with care: a file from elsewhere is data, and a number
that is missing or no number is a dash on the page, never an error.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolabel.ops.export_mark import RECORDS
from autolabel.report.sampling import Lowest, lot

ERROR_KINDS = ("wrong_class", "poor_mask", "duplicate", "false")
"""Kinds of error of which the run itself has an object to show."""
_MAX_BYTES = 64 << 20
_VERSIONS = (1, 2)
"""Of 1 the confusions are not read: they were a matrix."""


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object that may hold anything."""

    fields: Mapping[str, Any]

    def at(self, *keys: str) -> Document:
        """The object inside; an empty one when there is none."""
        here: Any = self.fields
        for key in keys:
            here = here.get(key) if isinstance(here, Mapping) else None
        return Document(here if isinstance(here, Mapping) else {})

    def number(self, key: str) -> float | None:
        """A finite number; True is none."""
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value)

    def whole(self, key: str) -> int | None:
        value = self.number(key)
        return None if value is None else int(value)

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def rows(self, key: str) -> list[Document]:
        """The objects of a list."""
        value = self.fields.get(key)
        found = value if isinstance(value, list) else []
        return [Document(row) for row in found if isinstance(row, Mapping)]

    def texts(self, key: str) -> list[str]:
        value = self.fields.get(key)
        return [str(one) for one in value] if isinstance(value, list) else []

    def items(self) -> Iterator[tuple[str, Document]]:
        """The objects inside, by name."""
        for key, value in self.fields.items():
            if isinstance(value, Mapping):
                yield str(key), Document(value)


@dataclass(frozen=True, slots=True)
class Error:
    """An object that was judged to be wrong."""

    image_id: str
    index: int
    kind: str
    iou: float | None
    class_found: str
    class_truth: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """`problem` says why there are no numbers although there are files."""

    document: Document
    errors: tuple[Error, ...] = ()
    problem: str = ""


def read_evaluation(folder: Path, records: str, examples: int, seed: int) -> Evaluated | None:
    """The evaluation in `folder`, with some errors of each kind by lot; None when there is none. `records` is the
    digest of the run's records as they are now."""
    path = folder / "evaluation.json"
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > _MAX_BYTES:
            return Evaluated(Document({}), problem=f"{path.name} is larger than {_MAX_BYTES >> 20} MiB")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return Evaluated(Document({}), problem=f"{path.name} cannot be read: {error}")
    if not isinstance(found, dict) or found.get("version") not in _VERSIONS:
        return Evaluated(Document({}), problem=f"{path.name} is of a version that this program does not read")
    if found.get(RECORDS) not in (None, records):
        return Evaluated(Document({}), problem=f"{path.name} is of records that changed since: evaluate again")
    return Evaluated(Document(found), tuple(_errors(folder / "objects.jsonl", examples, seed)))


def _errors(path: Path, examples: int, seed: int) -> Iterator[Error]:
    chosen: defaultdict[str, Lowest[Error]] = defaultdict(lambda: Lowest(examples))
    for error in _judged(path):
        place = f"{error.image_id}/{error.index}"
        chosen[error.kind].add(lot(seed, place), place, error)
    for kind in ERROR_KINDS:
        yield from chosen[kind].items() if kind in chosen else ()


def _judged(path: Path) -> Iterator[Error]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                error = _error(line)
                if error is not None:
                    yield error
    except OSError:
        return


def _error(line: str) -> Error | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("kind") not in ERROR_KINDS:
        return None
    image_id, index = row.get("image_id"), row.get("index")
    if not isinstance(image_id, str) or not isinstance(index, int):
        return None
    one = Document(row)
    return Error(image_id, index, row["kind"], one.number("iou"), one.text("class_found"), one.text("class_truth"))
