"""Parts of a run into the whole run: their rows, put where they belong. Decodes no record.

Memory does not grow with the number of pictures. The new database takes its name when it is complete: a merge that is
killed leaves what was there, and a folder that the next one replaces.

A merged run keeps a digest of what it took from its parts. So a repeated merge sees whether they have changed since,
and whether the merged run itself has: what was done there is never replaced.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path

from autolabel.core.errors import StoreBusy, StoreCorrupt, StoreMismatch
from autolabel.core.text import counted
from autolabel.ops.changes import changed
from autolabel.ops.files import replace_durably
from autolabel.store.run import FILE_NAME, Row, RunReader, RunStore, mapping_of, open_reader, open_store

STAGING = ".merging"
CHUNK = 1 << 14
"""Pictures in a transaction; the log of the database is emptied after each."""
SHARED = ("fingerprint", "categories", "document", "root")
"""Keys whose values must be the same in all parts, and are the whole run's."""
DIGEST = "merged_digest"
LOGS = ("-wal", "-journal")
"""What SQLite appends to the name of a database; a log that is found beside it is taken for its own."""


@dataclass(frozen=True, slots=True)
class PartRun:
    """A run that is part `number` of `of` parts of a list of `pictures` ids with this digest."""

    directory: Path
    number: int
    of: int
    pictures: int
    listing: str
    unit_size: int


def part_run(reader: RunReader | RunStore) -> PartRun:
    """What the run says it is a part of. Raises StoreMismatch for a run of its own, StoreCorrupt for a damaged one."""
    text = reader.meta("part")
    if not text:
        raise StoreMismatch(
            f"{reader.directory} is not a part of a larger run: parts are made with autolabel label part=K/N"
        )
    try:
        told = mapping_of(reader, "part")
        numbers = [int(told[key]) for key in ("number", "of", "pictures", "unit_size")]
        if not (1 <= numbers[0] <= numbers[1] and numbers[3] >= 1):
            raise ValueError(f"part {numbers[0]} of {numbers[1]}")
        number, of, pictures, unit_size = numbers
        return PartRun(reader.directory, number, of, pictures, str(told["listing"]), unit_size)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise StoreCorrupt(f"{reader.directory} says that it is a part, but not which: {error!r}") from error


def merge(directories: Sequence[Path], out: Path, settings: Mapping[str, str]) -> bool:
    """The whole run of these parts, in the directory `out`, whose lock the caller holds; `settings` goes into its
    meta. A run that was merged of them before is replaced when they have changed; False when they have not. Raises
    StoreMismatch saying what does not fit: other settings, classes or lists, a part that is missing, there twice or
    not finished, another run in `out`, or one that was changed since it was merged."""
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(directory)) for directory in directories]
        parts = [part_run(reader) for reader in readers]
        check_same(readers, parts)
        check_complete(readers, parts)
        staging = out / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        if (out / FILE_NAME).exists() and is_merged(out, readers, parts):
            return False
        check_no_log(out)
        staging.mkdir()
        try:
            _fill(staging, readers, parts, settings)
            replace_durably(staging / FILE_NAME, out / FILE_NAME)
        finally:
            # Of a disk that is full half a run would fill the rest, and the next merge would have no room.
            shutil.rmtree(staging, ignore_errors=True)
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
                    f"{first.directory} is part {parts[0].number}/{parts[0].of} of a list of {_pictures(parts[0].pictures)}, "
                    f"{reader.directory} is part {part.number}/{part.of} of another list, of {_pictures(part.pictures)}"
                )


def _pictures(n: int) -> str:
    return counted(n, "{} picture[|s]")


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
        raise StoreMismatch(counted(len(missing), "{} of {} parts [is|are] missing: {}", of, shown))
    for reader in readers:
        pending = reader.counts().get("pending", 0)
        if pending:
            raise StoreMismatch(
                f"{reader.directory} has {_pictures(pending)} to do; the command that made it continues it"
            )


def is_merged(out: Path, readers: Sequence[RunReader], parts: Sequence[PartRun]) -> bool:
    """Whether the run in `out` is these parts as they are now; False when it is what they were, and nothing else.
    Raises StoreMismatch when it is anything more: another run, or one in which something was done since."""
    with open_reader(out) as there:
        if there.meta("merged") != parts[0].listing:
            raise StoreMismatch(f"{out} holds another run already; choose another directory with run=...")
        if there.meta("fingerprint") != readers[0].meta("fingerprint"):
            raise _would_undo(
                out, "has other settings than the parts: it or they were refined after it was merged"
            )
        before, now = there.meta(DIGEST), _digest(_shared(readers[0]), _whole(readers, parts))
        if now == before:
            return True
        # A part has no picture that is gone: its list would be another one.
        held = _digest(_shared(there), chain(there.rows(), zip(there.gone())))
    if held in (before, now):
        return held == now
    if before is None:
        raise _would_undo(
            out,
            "is not what the parts are now, and an earlier autolabel merged it: which of them changed "
            "was not noted",
        )
    raise _would_undo(out, "was changed after it was merged, and so were the parts: a new merge would undo it")


def _would_undo(out: Path, why: str) -> StoreMismatch:
    return StoreMismatch(f"{out} {why}; choose another directory with run=..., or delete {out}")


def check_no_log(out: Path) -> None:
    """Raises StoreBusy when a log lies beside the database of `out`: a new database must not be taken for its own."""
    if (out / FILE_NAME).exists():
        with open_store(out):
            pass  # takes in the log that a killed run left, and removes it
    for log in (out / f"{FILE_NAME}{suffix}" for suffix in LOGS):
        if log.exists():
            raise StoreBusy(
                f"{log} belongs to a run that another program holds open, or that was deleted; close that program, or "
                "delete the file if there is none"
            )


def _differences(first: str, second: str) -> Iterator[str]:
    """Line by line where both are mappings, else both as they are."""
    try:
        a, b = json.loads(first), json.loads(second)
    except ValueError:
        a, b = first, second
    if isinstance(a, dict) and isinstance(b, dict):
        yield from (f"  {key}: {one} | {other}" for key, (one, other) in changed([a, b]))
    else:
        yield f"  {a} | {b}"


def _fill(
    staging: Path, readers: Sequence[RunReader], parts: Sequence[PartRun], settings: Mapping[str, str]
) -> None:
    shared = _shared(readers[0])
    digest = Digest(shared)
    with open_store(staging) as store:
        copied = sum(map(store.adopt, _chunks(digest.passing(_whole(readers, parts)))))
        if copied != parts[0].pictures:
            raise StoreCorrupt(
                f"the parts hold {_pictures(copied)}, their list has {parts[0].pictures}: a part is damaged, or it was "
                "labelled again while it was read"
            )
        store.set_meta(**shared, **settings, merged=parts[0].listing, **{DIGEST: digest.text})


class Digest:
    """Digest of a whole run: of what all its parts share, and of every picture with its record, as they pass."""

    def __init__(self, shared: Mapping[str, str]) -> None:
        self._hash = hashlib.sha256(json.dumps(shared, sort_keys=True).encode())

    def passing(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            *beside, data = row
            record = data if isinstance(data, bytes) else ascii(data).encode()  # None for a picture to do
            self._hash.update(ascii((beside, type(data).__name__, len(record))).encode())
            self._hash.update(record)
            yield row

    @property
    def text(self) -> str:
        return self._hash.hexdigest()


def _digest(shared: Mapping[str, str], rows: Iterable[Row]) -> str:
    digest = Digest(shared)
    deque(digest.passing(rows), maxlen=0)
    return digest.text


def _shared(reader: RunReader) -> dict[str, str]:
    return {key: value for key in SHARED if (value := reader.meta(key)) is not None}


def _whole(readers: Sequence[RunReader], parts: Sequence[PartRun]) -> Iterator[Row]:
    """Every picture of the parts with its record, where it belongs and in order."""
    return heapq.merge(*(_placed(r, p) for r, p in zip(readers, parts, strict=True)), key=itemgetter(0))


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
