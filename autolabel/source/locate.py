"""Names that label files state, made into paths that stay where they should; and reading such files.

A label file may come from a stranger: a name in it is only ever looked up below the source's own folder.
The check is on the text of the name. Links that the person made inside the folder are followed.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from pathlib import Path

from autolabel.core.errors import ConfigError, SettingError, SourceError
from autolabel.ops.settings import text
from autolabel.ops.storage import absolute, checked_url, is_file, is_url, normal, read, require_driver, storage_of


def contained(name: object, where: str) -> str:
    """A clean relative path with `/`. Raises SourceError, starting with `where`, if it is not below the root.

    A backslash is a separator: files written on Windows have them.
    """
    if not isinstance(name, str) or not name.strip():
        raise SourceError(f"{where}: a file name is missing, got {name!r}")
    slashed = name.replace("\\", "/")
    clean = posixpath.normpath(slashed)
    if slashed.startswith("/") or re.match(r"[A-Za-z]:", slashed):
        raise SourceError(f"{where}: absolute path {name!r}; only names below the source's folder are read")
    if clean == ".." or clean.startswith("../"):
        raise SourceError(f"{where}: {name!r} leads out of the source's folder")
    try:
        possible = b"\0" not in os.fsencode(clean) and clean != "."
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise SourceError(f"{where}: {name!r} is not a possible file name")
    return clean


def check_path(key: str, value: object) -> str:
    """A setting that names a path of this machine: text, not empty. Raises ConfigError naming the key."""
    path = check_place(key, value)
    if is_url(path):
        raise SettingError(f"{key}: {path!r} is an address; this kind of source is read from this machine alone")
    return path


def check_place(key: str, value: object) -> str:
    """A setting that names a path, or an address of a storage without credentials in it. Raises ConfigError naming the
    key, MissingExtra where the storage's driver is not installed."""
    place = text(key, value, "a path")
    if not is_url(place):
        return place
    try:
        url = checked_url(place)
        require_driver(url)
    except ConfigError as e:
        raise SettingError(f"{key}: {e}") from e
    return url


def placed(name: str, root: str, where: str) -> tuple[str, str]:
    """Image id and path of a picture that a person's own list names, relative to `root`.

    On this machine absolute paths and `..` are allowed, and an address is a name like any other. At a storage an
    address may be of this storage alone. Inside `root` the id is the relative path, outside it is the whole one without
    the first `/` or without the storage. Raises SourceError, starting with `where`.
    """
    if not is_url(root):
        path = absolute(posixpath.join(root, name))
        inside = path.startswith(root.rstrip("/") + "/")
        return posixpath.relpath(path, root) if inside else path.lstrip("/"), path
    if not is_url(name):
        relative = contained(name, where)
        return relative, posixpath.join(root, relative)
    try:
        url = normal(checked_url(name))
    except ConfigError as e:
        raise SourceError(f"{where}: {e}") from e
    storage = storage_of(root)
    if not url.startswith(f"{storage}/"):
        raise SourceError(f"{where}: {url!r} is not at {storage}, the only place that this list may lead to")
    base = root if url.startswith(f"{root}/") else storage
    return contained(url[len(base) + 1 :], where), url


def read_label_bytes(path: str, max_bytes: int) -> bytes:
    """The whole label file. Raises SourceError when it cannot be read or is larger than `max_bytes`."""
    try:
        if not is_file(path):
            raise SourceError(f"no such file: {path!r}")
        if is_url(path):
            return read(path, max_bytes)
        with Path(path).open("rb") as file:
            # No more than there is: read() sets the whole count aside before it reads.
            data = file.read(min(max_bytes, os.fstat(file.fileno()).st_size) + 1)
    except OSError as e:
        if e.errno == errno.EFBIG:
            raise SourceError(f"{path!r} is larger than {max_bytes} bytes, too large for a label file") from e
        raise SourceError(f"{path!r} cannot be read: {e.strerror}") from e
    if len(data) > max_bytes:
        raise SourceError(f"{path!r} is larger than {max_bytes} bytes, too large for a label file")
    return data


def read_label_text(path: str, max_bytes: int) -> str:
    """UTF-8, a byte-order mark allowed. Raises SourceError."""
    try:
        return read_label_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise SourceError(f"{path!r} is not UTF-8 text (byte {e.start})") from e
