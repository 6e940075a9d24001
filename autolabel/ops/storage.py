"""Files of this machine and files at an address (`s3://bucket/photos`), asked the same questions. The only file that
imports fsspec, and only once somebody gave an address.

A *place* is a path or an address. Which drivers there are is fsspec's affair: s3, gs, hf, abfs, sftp, hdfs, memory and
others. Credentials come from the environment, as each driver reads them; an address that carries some is refused, and
no secret of the environment comes out of here in an error's text. AUTOLABEL_OFFLINE, which `offline=true` sets, forbids
all but memory. Nothing is cached, so that a listing is what is there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from autolabel.core.errors import ConfigError, MissingExtra
from autolabel.ops.settings import environment_flag

A = TypeVar("A")
T = TypeVar("T")

THREADS = 16
"""Small files of a storage that are asked for at the same time."""
_BLOCK_BYTES = 1 << 22
"""Bytes of an open file that are fetched at a time; some drivers take 50 MB."""
PAUSES_S = (0.05, 0.5)
_TRANSIENT = frozenset(
    {errno.ESTALE, errno.EIO, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.EBUSY}
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NOT_STORAGE = frozenset(
    ("file", "local", "asynclocal", "dir", "data", "git", "jupyter", "dask", "generic")
) | frozenset(("filecache", "simplecache", "blockcache", "cached", "zip", "tar", "libarchive", "reference"))
"""Drivers that lead back to this machine's files, or through one file to another."""
_HERE = frozenset(("memory",))
"""Drivers of this process itself, which offline=true does not forbid."""
_WEB = frozenset(("http", "https", "ftp"))
_PACKAGES = {
    "s3": "'autolabel-sam2[s3]'",
    "s3a": "'autolabel-sam2[s3]'",
    "gs": "'autolabel-sam2[gs]'",
    "gcs": "'autolabel-sam2[gs]'",
    "hf": "huggingface_hub",
}
"""Packages that bring a driver; for the others fsspec says what it misses."""
_SERVERS = frozenset(("sftp", "ssh", "smb", "hdfs", "webhdfs"))
"""Their addresses may hold a port."""
_USERS = frozenset(("abfs", "abfss", "sftp", "ssh", "smb"))
"""There `name@host` is a container or a user, no secret."""
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "LastModified", "mtime", "modified", "created")
"""Drivers' names for a value that changes with a file's content, the surest first."""
_KINDS: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    IsADirectoryError: errno.EISDIR,
    PermissionError: errno.EACCES,
}
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL|CONNECTION_STRING|SAS", re.IGNORECASE)
_SHORTEST_SECRET = 8


@dataclass(frozen=True, slots=True)
class Item:
    """One name in a folder at an address. `stamp` as `ImageRef.stamp`; (-1, -1) for a folder."""

    name: str
    is_folder: bool
    stamp: tuple[int, int]


# -- places, by their text alone -----------------------------------------------------------------------------


def is_url(place: str) -> bool:
    return _SCHEME.match(place) is not None


def checked_url(url: str) -> str:
    """The address without a slash at its end. Raises ConfigError for one that carries credentials or a query, or that
    leads anywhere but to a storage."""
    found = _SCHEME.match(url)
    assert found is not None, "an address"
    scheme, host = found[1].lower(), url[found.end() :].partition("/")[0]
    shown = redact(url)
    if "::" in url or scheme in _NOT_STORAGE:
        raise ConfigError(f"{shown!r}: addresses of archives, caches and files of this machine are not read")
    if scheme in _WEB:
        raise ConfigError(
            f"{shown!r} is a web address, which has neither folders nor checksums; copy the files to a storage "
            "(s3://, gs://, hf://) or to this machine"
        )
    user, _, server = host.rpartition("@")
    _, colon, port = server.partition(":")
    bad_port = colon and not (scheme in _SERVERS and port.isdigit())
    if ":" in user or (user and scheme not in _USERS) or bad_port or _has_query(url):
        raise ConfigError(
            f"{shown!r}: an address must hold no user, password or query; credentials belong in the environment, "
            "as the storage's driver reads them (for s3: AWS_ACCESS_KEY_ID or AWS_PROFILE)"
        )
    return url.rstrip("/") if len(url.rstrip("/")) > found.end() else url


def _has_query(url: str) -> bool:
    return re.search(r"\?[^/?]*=", url) is not None


def redact(text: str) -> str:
    """The text without what may be a secret: users and queries of addresses, and values of environment variables
    whose names say that they are one."""
    text = re.sub(r"(\w://)[^\s@]*:[^\s@]*@", r"\1***@", text)
    text = re.sub(r"(\w+)://[^\s@/]*@", lambda m: m[0] if m[1].lower() in _USERS else f"{m[1]}://***@", text)
    text = re.sub(r"(\w://[^\s'\"?]*)\?[^\s'\"]*=[^\s'\"]*", r"\1?***", text)
    text = re.sub(r"(\w://)[^\s/'\"]*:[^\s/'\"]*[^\s/'\"0-9:][^\s/'\"]*", r"\1***", text)
    secrets = {
        value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET
    }
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def storage_of(url: str) -> str:
    """The part of an address that says whose storage it is: `s3://bucket`; for hf the repository."""
    found = _SCHEME.match(url)
    assert found is not None, "an address"
    parts = url[found.end() :].split("/")
    deep = 1
    if found[1].lower() == "hf":
        deep = 3 if parts[0] in ("datasets", "spaces", "buckets") else 2
    return url[: found.end()] + "/".join(parts[:deep])


def absolute(place: str) -> str:
    """From the root, without `.` and `..`: behind a link `..` is the folder above where the link leads, as for every
    other program. Other links stay as they are written."""
    if is_url(place):
        return checked_url(place)
    parts = place.split("/")
    if ".." not in parts:
        return posixpath.abspath(place)
    path = "" if place.startswith("/") else os.getcwd().rstrip("/")  # noqa: PTH109 - names may be any bytes
    for part in parts:
        if part == "..":
            path = (posixpath.realpath(path) if posixpath.islink(path) else path).rpartition("/")[0]
        elif part not in ("", "."):
            path = f"{path}/{part}"
    return path or "/"


def parent(place: str) -> str:
    """The folder above; of a storage's root itself the root."""
    if is_url(place) and place.rstrip("/") == storage_of(place):
        return place
    return posixpath.dirname(place)


def normal(place: str) -> str:
    """Without `.` and `..`, which never lead out of a storage."""
    if not is_url(place):
        return posixpath.normpath(place)
    root = storage_of(place)
    return root + posixpath.normpath("/" + place[len(root) :].lstrip("/")).rstrip("/")


# -- places, looked at ---------------------------------------------------------------------------------------


def exists(place: str) -> bool:
    return _look("exists", place) if is_url(place) else posixpath.exists(place)


def is_folder(place: str) -> bool:
    return _look("isdir", place) if is_url(place) else posixpath.isdir(place)


def is_file(place: str) -> bool:
    return _look("isfile", place) if is_url(place) else posixpath.isfile(place)


def names_in(folder: str) -> list[str]:
    """Sorted. Raises OSError."""
    if is_url(folder):
        return [item.name for item in items_in(folder)]
    return sorted(os.listdir(folder))  # noqa: PTH208 - names may be any bytes


def items_in(url: str) -> list[Item]:
    """What is directly below an address, sorted so that going into each folder where it stands gives the files of the
    whole tree in the order of their bytes. Raises OSError.

    The memory it takes grows with the entries of this one folder.
    """
    fs, path = _opened(url)
    found = _asked(lambda: fs.ls(path, detail=True), url)
    items = {item.name: item for info in found if (item := _item(info, path)) is not None}
    return sorted(items.values(), key=lambda item: os.fsencode(item.name + "/" * item.is_folder))


def _item(info: dict[str, Any], folder: str) -> Item | None:
    """None for the folder's own marker."""
    path = str(info["name"]).rstrip("/")
    if path.strip("/") == folder.strip("/"):
        return None
    is_folder = info.get("type") == "directory"
    return Item(posixpath.basename(path), is_folder, (-1, -1) if is_folder else stamp_of(info))


def stamp_of(info: dict[str, Any]) -> tuple[int, int]:
    """Size in bytes, and a number of 63 bits from what the driver says about a file's version."""
    version = next((info[key] for key in _VERSIONS if info.get(key) is not None), 0)
    if isinstance(version, datetime):
        version = version.timestamp()
    text = f"{version:.6f}" if isinstance(version, float) else str(version)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return int(info.get("size") or 0), number


def read(url: str, max_bytes: int, size: int | None = None) -> bytes:
    """A whole file at an address. `size`, where a listing said it, saves a question. Raises OSError, with errno EFBIG
    before anything is read that is larger than `max_bytes`."""
    fs, path = _opened(url)
    if size is None:
        info = _asked(lambda: fs.info(path), url)
        if info.get("type") == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        size = int(info.get("size") or 0)
    if size > max_bytes:
        raise OSError(errno.EFBIG, f"{size} bytes, more than {max_bytes}")
    return bytes(_asked(lambda: fs.cat_file(path), url))


def write(url: str, local: str) -> None:
    """Copy a file of this machine to an address. Raises OSError."""
    fs, path = _opened(url)
    _asked(lambda: fs.put_file(local, path), url)


def write_bytes(url: str, data: bytes) -> None:
    """One small file in one request: it is there whole, or the old one is. Raises OSError."""
    fs, path = _opened(url)
    _asked(lambda: fs.pipe_file(path, data), url)


def size_of(url: str) -> int | None:
    """None where there is no such file. Raises OSError."""
    fs, path = _opened(url)
    try:
        return int(_asked(lambda: fs.info(path), url).get("size") or 0)
    except FileNotFoundError:
        return None


def sha256_of(url: str) -> str:
    """The sha256 of a file at an address, fetched piece by piece. Raises OSError."""
    fs, path = _opened(url)

    def fetched() -> str:
        with fs.open(path, "rb", block_size=_BLOCK_BYTES) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return _asked(fetched, url)


def opened(url: str) -> Any:
    """A binary file object for reading, with `seek`: the driver fetches what is asked for. Raises OSError."""
    fs, path = _opened(url)
    return _asked(lambda: fs.open(path, "rb", block_size=_BLOCK_BYTES), url)


# -- the driver ----------------------------------------------------------------------------------------------


def require_driver(url: str) -> None:
    """Raises ConfigError or MissingExtra where the address cannot be read on this machine at all, or may not be."""
    _opened(checked_url(url))


def _opened(url: str) -> tuple[Any, str]:
    """The driver, and the path as it wants it."""
    scheme = url.partition("://")[0].lower()
    if scheme not in _HERE and environment_flag("AUTOLABEL_OFFLINE", os.environ):
        raise ConfigError(
            f"{redact(url)!r} is on the network, which offline=true (or AUTOLABEL_OFFLINE=1) forbids; copy the files to "
            "this machine first"
        )
    try:
        import fsspec

        # One for the process: fsspec keeps it by these arguments, and its drivers are safe to share between threads.
        fs = fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "'autolabel-sam2[remote]'")
        raise MissingExtra(f"{scheme}:// needs a package: pip install {package} ({redact(str(error))})") from error
    except ValueError as error:
        raise ConfigError(f"{redact(url)!r}: {redact(str(error))}") from error
    return fs, fs._strip_protocol(url)


def _look(question: str, url: str) -> bool:
    fs, path = _opened(url)
    return bool(_asked(lambda: getattr(fs, question)(path), url))


def _asked(call: Callable[[], T], url: str) -> T:
    """What a driver answers; what passes by itself is tried three times. Raises OSError with an errno, and no
    secret in its text."""

    def once() -> T:
        try:
            return call()
        # Each driver has errors of its own (botocore, aiohttp, huggingface_hub), and not all are OSErrors.
        except Exception as error:
            code = _code_of(error)
            plain = code in (errno.ENOENT, errno.EISDIR)  # the text would be the path once more
            raise OSError(code, os.strerror(code) if plain else _told(error), url) from error

    return retry_transient(once)


def _code_of(error: Exception) -> int:
    for kind, code in _KINDS.items():
        if isinstance(error, kind):
            return code
    if "Credentials" in type(error).__name__:
        return errno.EACCES
    return error.errno if isinstance(error, OSError) and error.errno else errno.EIO


def _told(error: Exception) -> str:
    return redact(" ".join(str(error).split()))[:500] or type(error).__name__


def in_parallel(function: Callable[[A], T], items: Iterable[A], *, threads: int = THREADS) -> Iterator[T]:
    """The answers in the order of the items, several asked for at a time; not more are waiting than twice as many."""
    with ThreadPoolExecutor(threads, "autolabel-storage") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def retry_transient(call: Callable[[], T], pauses_s: tuple[float, ...] = PAUSES_S) -> T:
    """Call again after each pause as long as the error is one that passes by itself; then let it raise."""
    for pause_s in pauses_s:
        try:
            return call()
        except OSError as e:
            if e.errno not in _TRANSIENT:
                raise
        time.sleep(pause_s)
    return call()
