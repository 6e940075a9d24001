"""`label part=3/16`: the third of 16 parts of a source, so that any scheduler can spread a run over machines.

A part is a choice of units: of every 16 units of the whole list, the third. So a picture is computed together with the
same others as in the whole run, and the parts' records are the whole run's. Knows no run directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from autolabel.core.errors import ConfigError, StoreMismatch
from autolabel.core.protocols import Inferred, Source
from autolabel.core.text import counted
from autolabel.core.types import Category, ImageRef
from autolabel.store.merge import PartRun, part_run
from autolabel.store.run import RunReader, RunStore

KEY = "part"


@dataclass(frozen=True, slots=True)
class Part:
    """Number `number` (from 1) of `of` parts."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def part_of(value: object) -> Part | None:
    """What `part=` says; None for null. Raises ConfigError."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value) if isinstance(value, str) else None
    part = Part(int(found[1]), int(found[2])) if found else Part(0, 0)
    if not 1 <= part.number <= part.of:
        raise ConfigError(f"part must be K/N with 1 <= K <= N, for example 3/16, got {value!r}")
    return part


class PartSource:
    """A Source with the pictures of one part of another. When they are all listed, `claim` says which they are."""

    def __init__(self, whole: Source, part: Part, unit_size: int) -> None:
        self._whole = whole
        self._part = part
        self._unit_size = unit_size
        self._pictures = 0
        self._digest = ""

    @property
    def categories(self) -> tuple[Category, ...]:
        return self._whole.categories

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._whole.ignored

    @property
    def document(self) -> str:
        return self._whole.document

    @property
    def kind(self) -> str:
        return self._whole.kind if isinstance(self._whole, Inferred) else ""

    @property
    def reason(self) -> str:
        return self._whole.reason if isinstance(self._whole, Inferred) else ""

    def images(self) -> Iterator[ImageRef]:
        """Raises ConfigError when there are fewer units than parts, so that this one might be empty."""
        digest, count = hashlib.sha256(), 0
        for ref in self._whole.images():
            digest.update(os.fsencode(ref.image_id) + b"\0")
            if count // self._unit_size % self._part.of == self._part.number - 1:
                yield ref
            count += 1
        units = -(-count // self._unit_size)
        if 0 < units < self._part.of:
            raise ConfigError(
                counted(
                    units,
                    "part={1}: the source has {0} unit[|s] of {2} pictures; at most {0} part[|s]",
                    self._part,
                    self._unit_size,
                )
            )
        self._pictures, self._digest = count, digest.hexdigest()

    def claim(self) -> str:
        """The part, and the list that it is a part of, as JSON."""
        whole = {"pictures": self._pictures, "listing": self._digest, "unit_size": self._unit_size}
        return json.dumps({**asdict(self._part), **whole}, sort_keys=True)


def claim_part(store: RunStore, source: Source) -> None:
    """Record which part the run is, or raise StoreMismatch: a part is a part of one list, and stays it."""
    ours = source.claim() if isinstance(source, PartSource) else ""
    before = store.meta(KEY) or ""
    if before != ours and store.has_records:
        told = _difference(
            part_run(store) if before else None, PartRun(store.directory, **json.loads(ours)) if ours else None
        )
        raise StoreMismatch(f"{store.directory} {told}; use another directory with run=...")
    store.set_meta(part=ours)


def part_text(run: RunReader | RunStore) -> str:
    """A line for what is said of a run that is a part; empty for a whole one. Raises StoreCorrupt."""
    if not run.meta(KEY):
        return ""
    part = _named(part_run(run))
    return f"part       {part} of its source, and this is of that part alone (autolabel merge joins them)\n"


def _difference(before: PartRun | None, ours: PartRun | None) -> str:
    if before is None:
        assert ours is not None, "two whole runs do not differ"
        return f"holds all pictures of its source, not part {_named(ours)}"
    if ours is None:
        return f"is part {_named(before)}: continue it with part={_named(before)}, or join all parts (autolabel merge)"
    if _named(before) != _named(ours):
        return f"is part {_named(before)}, not part {_named(ours)}"
    return (
        f"is part {_named(before)} of a list of {counted(before.pictures, '{} picture[|s]')}, which has changed (now {ours.pictures}): "
        "other parts would overlap; label the new pictures in a run of their own, or all parts again"
    )


def _named(part: PartRun) -> str:
    return f"{part.number}/{part.of}"
