"""One file over HTTPS, whole or not at all. Knows URLs, sizes and hashes; knows no models.

Bytes go to `<file>.partial`, which survives a cut connection or a kill and is continued by an HTTP range;
only a file of the right size and sha256 gets its final name. A range is asked for under the validator of the
first answer (`If-Range`), and where the hash is known, the hash decides in the end.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import logging
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from autolabel.core.errors import WeightsCorrupt, WeightsError, WeightsMissing
from autolabel.ops.files import replace_durably
from autolabel.weights import cache

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
ROOM = 64 << 20
"""Bytes that must stay free on the disk beside the file itself."""
LARGEST = 8 << 30
"""A file of unknown size may not be larger."""
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class Progress(Protocol):
    """Called before the first byte and after each piece: bytes on disk so far, and bytes in all if known."""

    def __call__(self, name: str, done: int, total: int | None) -> None: ...


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class Transport:
    """How to reach a server. `pauses_s` are the waits before each further try; plain HTTP is for tests only."""

    timeout_s: float = 30.0
    pauses_s: tuple[float, ...] = (0.5, 2.0, 5.0)
    allow_http: bool = False
    free_bytes: Callable[[Path], int] = field(default=_free_bytes)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be at `target` in the end. `bytes` and `sha256` are None where nobody knows them."""

    url: str
    target: Path
    bytes: int | None = None
    sha256: str | None = None


class _Interrupted(Exception):
    """This try ended early, and another may do better."""


def fetch(wanted: Wanted, *, transport: Transport | None = None, progress: Progress | None = None) -> str:
    """Bring the file to its target and return its sha256. Hold its lock (`cache.locked`) around this call.

    Raises WeightsMissing (no network, refused by the server), WeightsCorrupt (another size or hash), and
    WeightsError (disk full, not writable). What was received stays for the next try, unless it is wrong.
    """
    transport = transport or Transport()
    report = progress or _silent
    _check_scheme(wanted.url, transport)
    cache.make_directory(wanted.target.parent)
    partial = _Partial(wanted)
    digest = _persist(wanted, partial, transport, report)
    partial.publish()
    return digest


def _persist(wanted: Wanted, partial: _Partial, transport: Transport, report: Progress) -> str:
    """Try until the partial file is complete and right; a try that got further resets the count."""
    furthest, failed, started_over = partial.size(), 0, False
    while True:
        continued = partial.size() > 0
        try:
            digest = _attempt(wanted, partial, transport, report)
        except _Interrupted as problem:
            failed = 0 if partial.size() > furthest else failed + 1
            furthest = max(furthest, partial.size())
            if failed > len(transport.pauses_s):
                raise WeightsMissing(f"the download failed: {problem}") from problem
            logger.info("%s: %s; trying again", wanted.target.name, problem)
            time.sleep(transport.pauses_s[max(failed - 1, 0)] if transport.pauses_s else 0.0)
            continue
        if wanted.sha256 in (None, digest):
            return digest
        partial.discard()
        # Two halves of different files have no good hash; a whole one gets a second chance, once.
        if not continued or started_over:
            raise WeightsCorrupt(
                f"{wanted.url} gave a file with sha256 {digest}, but {wanted.sha256} is pinned; "
                "nothing was kept (a proxy or a login page may have answered, or the file was replaced)"
            )
        started_over, furthest = True, 0


def _attempt(wanted: Wanted, partial: _Partial, transport: Transport, report: Progress) -> str:
    """One request, from where the partial file ends. Returns the sha256 of everything received."""
    name = wanted.target.name
    start, digest = partial.resume()
    if start and start == wanted.bytes:
        return digest.hexdigest()
    try:
        with _open(wanted.url, start, partial.validator(), transport) as response:
            if start and not _continues(response, start):
                start, digest = 0, hashlib.sha256()
            total = _total(wanted, response, start)
            _check_room(wanted, total, start, transport)
            report(name, start, total)
            partial.begin(start, response)
            done = partial.receive(response, digest, start, total, lambda n: report(name, n, total))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # what we have does not fit their file: forget it
            partial.discard()
            raise _Interrupted("the server has a different file from the part that was kept") from error
        raise _refused(wanted, error) from error
    except urllib.error.URLError as error:
        raise _unreachable(wanted, error) from error
    except (http.client.HTTPException, OSError) as error:  # the disk's own errors are WeightsError by now
        raise _Interrupted(f"the connection broke ({error or type(error).__name__})") from error
    if total is not None and done < total:
        raise _Interrupted(f"the connection ended after {done:,} of {total:,} bytes")
    return digest.hexdigest()


class _Partial:
    """`<file>.partial` with what was received, and `<file>.partial.json` with whose file it is a part of."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._data = wanted.target.with_name(f"{wanted.target.name}.partial")
        self._note = wanted.target.with_name(f"{wanted.target.name}.partial.json")

    def size(self) -> int:
        return self._data.stat().st_size if self._data.exists() else 0

    def validator(self) -> str | None:
        """What the server called its file when the part was begun; None when it said nothing."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return note.get("validator") if note.get("url") == self._wanted.url else None

    def resume(self) -> tuple[int, Any]:
        """Where to go on, and the hash so far. Without a validator only a known hash can vouch for the joint."""
        size, digest = self.size(), hashlib.sha256()
        vouched = self._wanted.sha256 is not None or self.validator() is not None
        too_long = self._wanted.bytes is not None and size > self._wanted.bytes
        if not size or not vouched or too_long:
            return 0, digest
        with self._disk(), self._data.open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
        return size, digest

    def begin(self, start: int, response: Any) -> None:
        """Note whose file this is; at 0, forget what was there."""
        if start:
            return
        etag = response.headers.get("ETag", "")
        # A weak ETag does not promise equal bytes, so it may not stand in If-Range.
        strong = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        with self._disk():
            self._note.write_text(json.dumps({"url": self._wanted.url, "validator": strong}), encoding="utf-8")
            self._data.write_bytes(b"")

    def receive(
        self, response: IO[bytes], digest: Any, done: int, total: int | None, report: Callable[[int], None]
    ) -> int:
        """Append the answer; returns the bytes on disk. Stops at the first byte too many."""
        most = LARGEST if total is None else total
        with self._append() as file:
            while piece := response.read(CHUNK):
                done += len(piece)
                if done > most:
                    self.discard()
                    raise WeightsCorrupt(f"{self._wanted.url} sends more than {most:,} bytes; nothing was kept")
                self._write(file, piece)
                digest.update(piece)
                report(done)
        return done

    def _append(self) -> IO[bytes]:
        # Unbuffered: a full disk shows at the write, where it can be told from a broken connection.
        with self._disk():
            return self._data.open("ab", buffering=0)

    def _write(self, file: IO[bytes], piece: bytes) -> None:
        rest = memoryview(piece)
        with self._disk():
            while rest:
                rest = rest[file.write(rest) :]

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Tells the errors of our disk from those of the network."""
        try:
            yield
        except OSError as error:
            raise cache.unwritable(self._data, error) from error

    def publish(self) -> None:
        with self._disk():
            replace_durably(self._data, self._wanted.target)
            self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        with self._disk():
            self._data.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects that keep the encryption."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _check_scheme(newurl, self._transport)
        except WeightsError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int, validator: str | None, transport: Transport) -> Any:
    # Weights are compressed already, and a re-encoded answer would have another length and hash.
    request = urllib.request.Request(url, headers={"User-Agent": "autolabel", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if validator:
            request.add_header("If-Range", validator)
    opener = urllib.request.build_opener(_SafeRedirects(transport))
    return opener.open(request, timeout=transport.timeout_s)


def _continues(response: Any, start: int) -> bool:
    """Whether the answer is the asked range, and not the whole file again."""
    told = str(response.headers.get("Content-Range", ""))
    return response.status == 206 and told.startswith(f"bytes {start}-")


def _total(wanted: Wanted, response: Any, start: int) -> int | None:
    """The size of the whole file. Raises WeightsCorrupt when the server's file has another size than ours."""
    length = response.headers.get("Content-Length")
    if length is None or not length.isdigit():
        if wanted.bytes is None and wanted.sha256 is None:
            raise WeightsMissing(
                "the server does not say how long the file is, so a truncated one would not be noticed"
            )
        return wanted.bytes
    total = start + int(length)
    if wanted.bytes not in (None, total):
        raise WeightsCorrupt(
            f"{wanted.url} offers {total:,} bytes, but the file has {wanted.bytes:,}; nothing was fetched "
            "(a proxy or a login page may have answered, or the file was replaced)"
        )
    return total


def _check_room(wanted: Wanted, total: int | None, start: int, transport: Transport) -> None:
    need = (total or 0) - start + ROOM
    free = transport.free_bytes(wanted.target.parent)
    if free < need:
        raise WeightsError(
            f"{wanted.target.name} needs {need:,} bytes on the disk of {wanted.target.parent}, which has {free:,} "
            "free; make room, or set AUTOLABEL_CACHE to a folder on another disk"
        )


def _check_scheme(url: str, transport: Transport) -> None:
    allowed = ("https", "http") if transport.allow_http else ("https",)
    if urlsplit(url).scheme not in allowed:
        raise WeightsError(f"weights are fetched over https only, not from {url}")


def _refused(wanted: Wanted, error: urllib.error.HTTPError) -> Exception:
    if error.code in TRANSIENT:
        return _Interrupted(f"the server answered {error.code} {error.reason}")
    return WeightsMissing(f"the server answered {error.code} {error.reason}")


def _unreachable(wanted: Wanted, error: urllib.error.URLError) -> Exception:
    reason = error.reason
    if isinstance(reason, ssl.SSLCertVerificationError):
        return WeightsMissing(
            f"this machine does not accept the server's certificate ({reason.verify_message}); "
            "behind a proxy, set SSL_CERT_FILE to its certificates"
        )
    if isinstance(reason, socket.gaierror):
        return _Interrupted(
            f"the name {urlsplit(wanted.url).hostname} cannot be looked up; there may be no network"
        )
    if isinstance(reason, OSError) and reason.errno in (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH):
        return _Interrupted(f"{urlsplit(wanted.url).netloc} cannot be reached ({reason.strerror})")
    return _Interrupted(f"the connection failed ({reason})")


def _silent(name: str, done: int, total: int | None) -> None:
    """Nobody watches."""
