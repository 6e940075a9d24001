"""An export, put at an address whole or not at all. Knows no format.

A storage has no step that exchanges two folders, so an export is never written over:

    <address>/versions/<checksum of its manifest>/...   the files; its manifest.json comes last, when all is checked
    <address>/current.json                              which version is the one: a small file, replaced in one request

Whoever reads `current.json` and then that version sees a whole export, also while the next one is uploaded. A publish
that was killed leaves the old one current; the next one looks at what is there and goes on. Versions that are no longer
current stay, since somebody may be reading them; they can be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autolabel.core.errors import ConfigError, ExportError
from autolabel.export.manifest import listed_files
from autolabel.ops.export_mark import MANIFEST
from autolabel.ops.files import file_sha256
from autolabel.ops.storage import (
    checked_url,
    in_parallel,
    is_url,
    require_driver,
    sha256_of,
    size_of,
    write,
    write_bytes,
)

CURRENT = "current.json"
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Published:
    """Where the files are, how many there are, and how many of them this publish had to upload."""

    url: str
    files: int
    uploaded: int


def check_address(value: object) -> str:
    """The address that exports go to. Raises ConfigError, MissingExtra where the storage's driver is not installed."""
    if not isinstance(value, str) or not is_url(value):
        raise ConfigError(
            f"export_to must be an address (s3://bucket/labels), got {value!r}; a folder here is run=..."
        )
    try:
        url = checked_url(value)
        require_driver(url)
        size_of(f"{url}/{CURRENT}")
    except ConfigError as error:
        raise ConfigError(f"export_to: {error}") from error
    except OSError as error:
        raise ConfigError(f"export_to: {value!r} cannot be reached: {error.strerror}") from error
    return url


def publish(directory: Path, url: str) -> Published:
    """Put the export in `directory` at the address and make it the current one. Links become the files they lead to.

    Each file is read back and compared with the manifest, so it crosses the network twice. Raises ExportError.
    """
    manifest = directory / MANIFEST
    version = f"{url}/versions/{file_sha256(manifest)[:16]}"
    try:
        sent = [0, 0]
        for number in in_parallel(partial(_put, directory, version), _files(directory), threads=_THREADS):
            sent = [sent[0] + 1, sent[1] + number]
        entry = MANIFEST, {"bytes": manifest.stat().st_size, "sha256": file_sha256(manifest)}
        sent = [sent[0] + 1, sent[1] + _put(directory, version, entry)]
        pointer = {
            "autolabel_publish": 1,
            "version": version[len(url) + 1 :],
            "manifest_sha256": entry[1]["sha256"],
        }
        write_bytes(f"{url}/{CURRENT}", json.dumps(pointer, indent=1).encode() + b"\n")
    except OSError as error:
        raise ExportError(
            f"{directory} cannot be published at {url}: {error.strerror or error}; what was current there still is, "
            "the same command continues"
        ) from error
    return Published(version, *sent)


def _files(directory: Path) -> Iterator[tuple[str, dict[str, object]]]:
    for path, entry in listed_files(directory):
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise ExportError(
                f"{path!r} of {directory} is not UTF-8, as every name at a storage must be"
            ) from error
        yield path, entry


def _put(directory: Path, version: str, file: tuple[str, dict[str, object]]) -> int:
    """Upload a file that is not there as it should be; how many that were: 0 or 1."""
    path, entry = file
    local, url = directory / path, f"{version}/{path}"
    wanted = entry["sha256"] or file_sha256(local)
    if size_of(url) == local.stat().st_size and sha256_of(url) == wanted:
        return 0
    write(url, str(local))
    if sha256_of(url) != wanted:
        raise ExportError(
            f"{local} came to {url} with other bytes than {MANIFEST} says; was it edited, or the picture that it links "
            "to? write the export again"
        )
    return 1
