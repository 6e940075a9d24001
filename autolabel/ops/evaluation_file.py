"""The form of `evaluation.json`, which evaluate writes and compare and report read. A file from elsewhere is data: what
is in a document may be missing, or anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolabel.core.errors import StoreCorrupt
from autolabel.core.text import printable
from autolabel.ops.export_mark import RECORDS

FOLDER = "evaluate"
"""The folder for evaluations in a run directory."""
FIGURES, OBJECTS = "evaluation.json", "objects.jsonl"
"""The files that say how good the records are: in numbers, and object by object."""
VERSION = 2
_VERSIONS = (1, 2)
"""In 1 the confusions are a matrix, which is no longer read."""
_MAX_BYTES = 64 << 20


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
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if abs(value) <= sys.float_info.max else None

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

    def is_of(self, records: str) -> bool:
        """Whether an evaluation is of the records with this digest; one of an early version does not say, and is."""
        return self.fields.get(RECORDS) in (None, records)


def read_document(directory: Path) -> Document | None:
    """The evaluation of the run in `directory`; None where there is none. Raises StoreCorrupt for a file that is
    damaged or of another version."""
    path = directory / FOLDER / FIGURES
    try:
        if not path.is_file():  # opening a pipe waits for ever
            return None
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES >> 20} MiB")
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or found.get("version") not in _VERSIONS:
            raise ValueError("it is of a version that this program does not read")
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(directory, str(error)) from error
    return Document(found)


def unreadable(directory: Path, why: str) -> StoreCorrupt:
    path = printable(str(directory / FOLDER / FIGURES))
    return StoreCorrupt(f"{path} cannot be read ({why}); write it again: autolabel evaluate RUN truth=PATH")
