"""From a name to a verified local file. What is allowed is decided here; how bytes travel is in `fetch`.

Every file is hashed each time it is asked for: one flipped bit of a checkpoint loads without an error and
gives wrong labels, and hashing takes a fraction of the time of loading.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from autolabel.core.errors import WeightsCorrupt, WeightsError, WeightsMissing
from autolabel.weights import cache
from autolabel.weights.access import Access, from_environment
from autolabel.weights.fetch import Progress, Transport, Wanted, fetch
from autolabel.weights.registry import Published, Shipped, find, similar

logger = logging.getLogger(__name__)

INSTEAD = "autolabel label PATH experiment=offline"
"""The command that needs no downloads."""

_progress: ContextVar[Progress | None] = ContextVar("progress", default=None)


@dataclass(frozen=True, slots=True)
class ResolvedWeights:
    """A local file whose bytes have this sha256 (lower-case hex)."""

    name: str
    path: Path
    sha256: str


@contextmanager
def progress_to(progress: Progress) -> Iterator[None]:
    """Inside, what `resolve` fetches reports here: for constructors, which only resolve."""
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


def resolve(name_or_path: str, *, sha256: str | None = None) -> ResolvedWeights:
    """The verified file for a registry name (`.pt` may be left out) or a path of your own.

    A registry name means the registry's file, also when a file of that name lies in the current directory:
    write `./yolo26m.pt` for that one. `sha256` states the hash that the file must have. Missing files are
    fetched unless AUTOLABEL_OFFLINE forbids it. Raises WeightsMissing, WeightsCorrupt, and
    WeightsError for an unknown name or an unpinned file that nobody vouches for.
    """
    stated = _normal(sha256)
    entry = find(name_or_path)
    if isinstance(entry, Shipped):
        return shipped(entry, stated)
    if isinstance(entry, Published):
        return obtain(entry, from_environment(), stated=stated, progress=_progress.get())
    return _own(name_or_path, stated)


def obtain(
    entry: Published,
    access: Access,
    *,
    stated: str | None = None,
    progress: Progress | None = None,
    transport: Transport | None = None,
    repair: bool = False,
) -> ResolvedWeights:
    """The entry's file from the cache, fetched when it is not there. `repair` replaces a damaged one."""
    path = access.weights / entry.file
    expected = expected_sha256(entry, access, stated)
    if path.is_file():
        found = cache.sha256_of(path)
        if expected in (None, found):
            return _accepted(entry, access, path, found, stated)
        if not repair:
            raise WeightsCorrupt(
                f"{path} has sha256 {found}, but {expected} is expected; it is not used "
                f"(`autolabel weights fetch {entry.name}` fetches it again)"
            )
    _bring(entry, access, path, expected, progress, transport)
    return _accepted(entry, access, path, cache.sha256_of(path), stated)


def _bring(
    entry: Published,
    access: Access,
    path: Path,
    expected: str | None,
    progress: Progress | None,
    transport: Transport | None,
) -> None:
    if access.offline:
        raise WeightsMissing(missing(entry, path, "fetching is off (offline)"))
    if expected is None:
        _demand_trust(entry, access)
    with cache.locked(path):
        # Whoever held the lock before us may have brought it.
        if not (path.is_file() and expected in (None, cache.sha256_of(path))):
            logger.info("fetching %s (%s) from %s to %s", entry.file, size_text(entry.bytes), entry.url, path)
            wanted = Wanted(entry.url, path, entry.bytes, expected)
            try:
                fetch(wanted, transport=transport, progress=progress)
            except WeightsMissing as error:
                raise WeightsMissing(missing(entry, path, str(error))) from error


def expected_sha256(entry: Published, access: Access, stated: str | None) -> str | None:
    """What the file must hash to: the registry's pin, else what the caller states, else what was trusted before."""
    if entry.sha256 is not None:
        if stated not in (None, entry.sha256):
            raise WeightsError(f"{entry.name} is pinned to sha256 {entry.sha256}, but {stated} was stated for it")
        return entry.sha256
    if stated is not None:
        return stated
    return cache.trusted(access.weights, entry.file, stated_only=access.require_pinned)


def _demand_trust(entry: Published, access: Access) -> None:
    if access.trust_first and not access.require_pinned:
        return
    how = (
        "(AUTOLABEL_REQUIRE_PINNED forbids trust on first use)"
        if access.require_pinned
        else f"or accept the first file and pin it: autolabel weights fetch {entry.name} --trust-first"
    )
    raise WeightsError(
        f"no sha256 is published for {entry.name}; "
        f"state the one you know: autolabel weights fetch {entry.name} --sha256 HEX, {how}"
    )


def _accepted(entry: Published, access: Access, path: Path, found: str, stated: str | None) -> ResolvedWeights:
    """The right file, or the first one of an entry without a hash. What a person vouches for is recorded."""
    if entry.sha256 is None and stated is not None:
        cache.trust(access.weights, entry.file, sha256=found, how="stated")
    elif expected_sha256(entry, access, stated) is None:
        _demand_trust(entry, access)
        cache.trust(access.weights, entry.file, sha256=found, how="first use")
        logger.warning("%s: trusted on first use and pinned from now on, sha256 %s", entry.file, found)
    return ResolvedWeights(entry.name, path, found)


def shipped(entry: Shipped, stated: str | None = None) -> ResolvedWeights:
    """Weights of the package, checked against the card beside them."""
    if not entry.path.is_file():
        raise WeightsMissing(f"{entry.path} belongs to the package but is not there; install autolabel again")
    expected, found = card_sha256(entry), cache.sha256_of(entry.path)
    if found != expected:
        raise WeightsCorrupt(
            f"{entry.path} has sha256 {found}, but {expected} was shipped; install autolabel again"
        )
    if stated not in (None, found):
        raise WeightsCorrupt(f"{entry.path} has sha256 {found}, but {stated} was stated for it")
    return ResolvedWeights(entry.name, entry.path, found)


def card_sha256(entry: Shipped) -> str:
    """The hash that the package states for its own weights. Raises WeightsCorrupt."""
    try:
        return str(json.loads(entry.card.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsCorrupt(f"{entry.card} does not state a sha256; install autolabel again") from error


def _own(name_or_path: str, stated: str | None) -> ResolvedWeights:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        found = cache.sha256_of(path)
        if stated not in (None, found):
            raise WeightsCorrupt(f"{path} has sha256 {found}, but {stated} was stated for it")
        return ResolvedWeights(path.name, path, found)
    if path.parent != Path():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsMissing(f"{path} {what}; weights are a .pt or .safetensors file")
    close = similar(name_or_path)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise WeightsError(
        f"there are no weights called {name_or_path!r}, and no such file; {hint}"
        "`autolabel weights list` shows the names, and your own file is given by its path, like weights=models/best.pt"
    )


def missing(entry: Published, path: Path, why: str) -> str:
    """One line: which file, why it is not here, where to put it, and what works without it."""
    return (
        f"{entry.file} ({size_text(entry.bytes)}) is not in the cache: {why}; "
        f"put the file from {entry.url} at {path}, or work without downloads: {INSTEAD}"
    )


def size_text(size: int | None) -> str:
    return "size unknown" if size is None else f"{size:,} bytes"


def _normal(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    text = sha256.strip().lower().removeprefix("sha256:")
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise WeightsError(f"a sha256 has 64 hexadecimal digits, got {sha256!r}")
    return text
