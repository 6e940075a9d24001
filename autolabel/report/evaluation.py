"""What `autolabel evaluate` left in the run directory, read with care: a file from elsewhere is data, and a number
that is missing or no number is a dash on the page, never an error.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autolabel.core.errors import StoreCorrupt
from autolabel.ops.evaluation_file import FIGURES, FOLDER, OBJECTS, Document, read_document
from autolabel.report.sampling import Lowest, lot

ERROR_KINDS = ("wrong_class", "poor_mask", "duplicate", "false")
"""Kinds of error of which the run itself has an object to show."""


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


def read_evaluation(directory: Path, records: str, examples: int, seed: int) -> Evaluated | None:
    """The evaluation of the run in `directory`, with some errors of each kind by lot; None when there is none.
    `records` is the digest of the run's records as they are now."""
    try:
        found = read_document(directory)
    except StoreCorrupt as error:
        return Evaluated(Document({}), problem=str(error))
    if found is None:
        return None
    if not found.is_of(records):
        return Evaluated(Document({}), problem=f"{FIGURES} is of records that changed since: evaluate again")
    return Evaluated(found, tuple(_errors(directory / FOLDER / OBJECTS, examples, seed)))


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
