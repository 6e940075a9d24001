"""Names that label files state, made into paths that stay where they should; and reading such files.

A label file may come from a stranger: a name in it is only ever looked up below the source's own folder.
The check is on the text of the name. Links that the person made inside the folder are followed.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from autolabel.core.errors import ConfigError, SourceError


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
    """A setting that names a path: text, not empty. Raises ConfigError naming the key."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} must be a path, got {value!r}")
    return value


def check_optional_path(key: str, value: object) -> str | None:
    return None if value is None else check_path(key, value)


def read_label_bytes(path: str, max_bytes: int) -> bytes:
    """The whole label file. Raises SourceError when it cannot be read or is larger than `max_bytes`."""
    try:
        if not Path(path).is_file():
            raise SourceError(f"no such file: {path!r}")
        with Path(path).open("rb") as file:
            # No more than there is: read() sets the whole count aside before it reads.
            data = file.read(min(max_bytes, os.fstat(file.fileno()).st_size) + 1)
    except OSError as e:
        raise SourceError(f"{path!r} cannot be read: {e.strerror}") from e
    if len(data) > max_bytes:
        raise SourceError(f"{path!r} is larger than {max_bytes} bytes; that is no label file")
    return data


def read_label_text(path: str, max_bytes: int) -> str:
    """UTF-8, a byte-order mark allowed. Raises SourceError."""
    try:
        return read_label_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise SourceError(f"{path!r} is not UTF-8 text (byte {e.start})") from e
