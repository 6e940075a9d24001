"""Parts of a run into the whole run: their rows, put where they belong. Decodes no record.

Memory does not grow with the number of pictures. The new database takes its name when it is complete: a merge that is
killed leaves nothing but a folder that the next one replaces.
"""

from __future__ import annotations

import heapq
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

from autolabel.core.errors import StoreCorrupt, StoreMismatch
from autolabel.store.run import FILE_NAME, Row, RunReader, open_reader, open_store

STAGING = ".merging"
CHUNK = 1 << 14
"""Pictures in a transaction; the log of the database is emptied after each."""
SHARED = ("fingerprint", "categories", "document", "root")
"""What must be the same in all parts, and is the whole run's."""


@dataclass(frozen=True, slots=True)
class PartRun:
    """A run that is part `number` of `of` parts of a list of `pictures` ids with this digest."""

    directory: Path
    number: int
    of: int
    pictures: int
    listing: str
    unit_size: int


def part_run(reader: RunReader) -> PartRun:
    """What the run says it is a part of. Raises StoreMismatch for a run of its own, StoreCorrupt for a damaged one."""
    text = reader.meta("part")
    if not text:
        raise StoreMismatch(
            f"{reader.directory} is no part of a run: parts are made with autolabel label part=K/N"
        )
    try:
        told = json.loads(text)
        numbers = [int(told[key]) for key in ("number", "of", "pictures", "unit_size")]
        if not (1 <= numbers[0] <= numbers[1] and numbers[3] >= 1):
            raise ValueError(f"part {numbers[0]} of {numbers[1]}")
        number, of, pictures, unit_size = numbers
        return PartRun(reader.directory, number, of, pictures, str(told["listing"]), unit_size)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{reader.directory} says that it is a part, but not which: {error}") from error


def merge(directories: Sequence[Path], out: Path, settings: Mapping[str, str]) -> bool:
    """The whole run of these parts, in the directory `out`, whose lock the caller holds; `settings` goes into its
    meta. False when it is there already. Raises StoreMismatch saying what does not fit: other settings, classes or
    lists, a part that is missing, there twice or not finished."""
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(directory)) for directory in directories]
        parts = [part_run(reader) for reader in readers]
        check_same(readers, parts)
        check_complete(readers, parts)
        if (out / FILE_NAME).exists():
            check_is_merged(out, readers[0], parts[0])
            return False
        staging = out / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        _fill(staging, readers, parts, settings)
        os.replace(staging / FILE_NAME, out / FILE_NAME)  # noqa: PTH105
        _sync(out)
        staging.rmdir()
    return True


def check_same(readers: Sequence[RunReader], parts: Sequence[PartRun]) -> None:
    first = readers[0]
    for reader, part in zip(readers[1:], parts[1:], strict=True):
        for key in SHARED:
            if reader.meta(key) != first.meta(key):
                raise StoreMismatch(
                    f"{first.directory} and {reader.directory} are not parts of one run, they differ in {key}:\n"
                    + "\n".join(_differences(first.meta(key) or "", reader.meta(key) or ""))
                )
        for name in ("of", "listing", "pictures", "unit_size"):
            if getattr(part, name) != getattr(parts[0], name):
                raise StoreMismatch(
                    f"{first.directory} is part {parts[0].number}/{parts[0].of} of a list of {parts[0].pictures} pictures, "
                    f"{reader.directory} is part {part.number}/{part.of} of another list, of {part.pictures} pictures"
                )


def check_complete(readers: Sequence[RunReader], parts: Sequence[PartRun]) -> None:
    where: dict[int, Path] = {}
    for part in parts:
        if part.number in where:
            raise StoreMismatch(
                f"{where[part.number]} and {part.directory} are both part {part.number}/{part.of}; leave one out"
            )
        where[part.number] = part.directory
    of = parts[0].of
    missing = [number for number in range(1, of + 1) if number not in where]
    if missing:
        shown = ", ".join(f"{number}/{of}" for number in missing[:20]) + (" and more" if len(missing) > 20 else "")
        raise StoreMismatch(f"{len(missing)} of {of} parts are missing: {shown}")
    for reader in readers:
        pending = reader.counts().get("pending", 0)
        if pending:
            raise StoreMismatch(
                f"{reader.directory} has {pending} pictures to do; the command that made it continues it"
            )


def check_is_merged(out: Path, reader: RunReader, part: PartRun) -> None:
    """Raises StoreMismatch when what is in `out` is anything else than these parts merged."""
    with open_reader(out) as there:
        same = there.meta("merged") == part.listing and there.meta("fingerprint") == reader.meta("fingerprint")
    if not same:
        raise StoreMismatch(f"{out} holds another run already; choose another directory with run=...")


def _differences(first: str, second: str) -> Iterator[str]:
    """Line by line where both are mappings, else both as they are."""
    try:
        a, b = json.loads(first), json.loads(second)
    except ValueError:
        a, b = first, second
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                yield f"  {key}: {a.get(key, '(not set)')} | {b.get(key, '(not set)')}"
    else:
        yield f"  {a} | {b}"


def _fill(
    staging: Path, readers: Sequence[RunReader], parts: Sequence[PartRun], settings: Mapping[str, str]
) -> None:
    rows = heapq.merge(*(_placed(r, p) for r, p in zip(readers, parts, strict=True)), key=itemgetter(0))
    shared = {key: value for key in SHARED if (value := readers[0].meta(key)) is not None}
    with open_store(staging) as store:
        copied = sum(map(store.adopt, _chunks(rows)))
        if copied != parts[0].pictures:
            raise StoreCorrupt(
                f"the parts hold {copied} pictures, their list has {parts[0].pictures}: a part is damaged, or it was "
                "labelled again while it was read"
            )
        store.set_meta(**shared, **settings, merged=parts[0].listing)


def _placed(reader: RunReader, part: PartRun) -> Iterator[Row]:
    """The part's pictures with their records, by their place in the whole list: its unit `u` is unit
    `u * of + number - 1` of the whole run."""
    for ordinal, unit, *rest in reader.rows():
        whole_unit = unit * part.of + part.number - 1
        yield (whole_unit * part.unit_size + ordinal - unit * part.unit_size, whole_unit, *rest)


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
