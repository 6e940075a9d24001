"""The pictures that stand beside the labels of an export. Never writes to an input.

copy      the file as it is; what readers differ on (the format, an orientation that some readers ignore,
          several pages) becomes an upright PNG, pixel for pixel what was labelled
link      a symbolic link where that is safe, else as `copy`; pictures at an address are copied
upright   as `copy`, but no file with an EXIF orientation stays: for readers that do not rotate
none      nothing is written; the labels name the picture by its id

The format is that of the content, by which decoders go, and that of the name: both must be one that every reader takes.
Names come from the records alone, since an export is read back when the pictures may be gone; so a picture whose name
lies about its format keeps that name when it becomes a PNG.
"""

from __future__ import annotations

import hashlib
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np

from autolabel.core.errors import ExportError, ImageError
from autolabel.core.protocols import LOST, RecordReader
from autolabel.core.text import printable
from autolabel.core.types import ImageRecord, UInt8
from autolabel.export.atomic import Draft, replaced
from autolabel.export.listing import labelled
from autolabel.export.manifest import present_files
from autolabel.export.reporting import noted
from autolabel.ops.files import file_sha256
from autolabel.ops.headers import kind_of
from autolabel.ops.images import MAX_FILE_BYTES, read_bytes, upright_rgb
from autolabel.ops.settings import one_of
from autolabel.ops.storage import is_url

Mode = Literal["copy", "link", "upright", "none"]

PICTURE_NOTES: dict[str, str] = {
    "images_missing": "{} [picture|pictures] can no longer be read and [is|are] left out",
    "images_changed": "{} [picture|pictures] changed since [it was|they were] labelled and [is|are] left out",
    "images_converted": "{} [picture is|pictures are] written as upright PNG, since readers differ on [its|their] format",
}
"""What `Pictures.write` counts, as lines for the report."""

_KINDS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".mpo": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""What every build of OpenCV reads, by the suffix."""
_HEAD_BYTES = 512
"""Enough to tell the format of a file."""


@contextmanager
def pictured(
    directory: Path, run: RecordReader, counts: Counter[str], *, written: str = "images"
) -> Iterator[Draft]:
    """Like `replaced`, for formats that leave out unreadable pictures; `written` is their count of the others.

    Raises ExportError, and leaves the folder as it is, when no picture at all could be written and the folder
    holds more than that.
    """
    with replaced(directory, run) as draft:
        yield draft
        nothing = not counts[written] and any(counts[key] for key in LOST)
        if nothing and _bytes_below(directory) > _bytes_below(draft.root):
            why = "; ".join(noted(counts, {key: PICTURE_NOTES[key] for key in LOST}))
            first = next(labelled(run)).path
            here = not is_url(first) and not Path(first).is_absolute()
            do = f"looked for from {Path.cwd()}; export from where it was labelled" if here else "put them back"
            raise ExportError(
                f"{directory} stays as it is, since no picture could be written: {why}. The first of the run is "
                f"{printable(first)}: {do}, or label again"
            )


def _bytes_below(directory: Path) -> int:
    """The size of the files and of the links themselves, without the manifest."""
    return sum((directory / path).lstat().st_size for path in present_files(directory))


class Pictures:
    """Writes pictures in one of the modes; an exporter that offers only some checks that itself."""

    def __init__(self, *, mode: Mode) -> None:
        one_of("images", mode, get_args(Mode))
        self._mode = mode

    def suffix(self, record: ImageRecord) -> str:
        """The suffix of the picture that `write` makes, with its dot."""
        return ".png" if self.converts(record) else PurePosixPath(record.image_id).suffix

    def converts(self, record: ImageRecord) -> bool:
        """Whether the picture gets the name of a PNG: by its own name it must be decoded and written as one."""
        kind = _KINDS.get(PurePosixPath(record.image_id).suffix.lower())
        return self._mode != "none" and self._needs_png(record, kind)

    def write(self, record: ImageRecord, path: str, draft: Draft, counts: Counter[str]) -> bool:
        """False when the picture cannot be read any more, or is not the one that was labelled.

        Raises ExportError when it is there and cannot be written (a full disk)."""
        try:
            return self._mode == "none" or self._write(record, path, draft, counts)
        except ImageError as error:
            counts["images_changed" if error.code == "changed" else "images_missing"] += 1
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            counts["images_missing"] += 1
        except OSError as error:
            raise ExportError(f"{record.path!r} cannot be copied into the export: {error}") from error
        return False

    def data(self, record: ImageRecord, counts: Counter[str]) -> bytes:
        """The bytes of the file that `write` makes. Raises ImageError; `changed` for another picture than the labelled
        one."""
        if not self.converts(record):
            data = read_bytes(record.path)
            if not self._is_misnamed(record, data[:_HEAD_BYTES]):
                _check_same(record, hashlib.sha256(data).hexdigest())
                return data
        data = png_bytes(upright_rgb(record))
        counts["images_converted"] += 1
        return data

    def _write(self, record: ImageRecord, path: str, draft: Draft, counts: Counter[str]) -> bool:
        source = Path(record.path)
        as_it_is = not self.converts(record) and not is_url(record.path)  # at an address is nothing to link to
        if as_it_is:
            _check_picture_file(source)
            with source.open("rb") as file:
                as_it_is = not self._is_misnamed(record, file.read(_HEAD_BYTES))
        if not as_it_is:
            draft.write(path, [self.data(record, counts)])
        elif self._mode == "link" and _is_safe_to_link(source):
            draft.link(source, path, _check_same(record, file_sha256(source)))
        else:
            found = draft.copy(source, path)
            try:
                _check_same(record, found)
            except ImageError:
                draft.remove(path)
                raise
        return True

    def _is_misnamed(self, record: ImageRecord, head: bytes) -> bool:
        """Whether the file is converted for its content, which its first bytes tell."""
        try:
            return self._needs_png(record, kind_of(head))
        except ImageError:
            return False  # nothing that was ever labelled; the checksum tells

    def _needs_png(self, record: ImageRecord, kind: str | None) -> bool:
        """Formats that not every reader takes, and turned pictures that not every reader turns."""
        assert record.info is not None, "only labelled images have a picture to write"
        rotates = self._mode != "upright" and kind in ("JPEG", "PNG")
        # Some readers stack the pages of a TIFF into channels.
        pages = kind == "TIFF" and "multi_frame" in record.info.notes
        return kind not in _KINDS.values() or (record.info.orientation != 1 and not rotates) or pages


def _check_same(record: ImageRecord, sha256: str) -> str:
    """What the record says of the file. Raises ImageError when that is something else."""
    assert record.info is not None, "only labelled images have a picture to write"
    if record.info.sha256 not in ("", sha256):
        raise ImageError("changed", f"{record.path!r} has changed since it was labelled")
    return record.info.sha256


def _check_picture_file(path: Path) -> None:
    """Raises ImageError for what is not a regular file: opening a pipe waits for ever, and a device has no end."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate, no file can have this name
        raise ImageError("missing", str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise ImageError("not_a_file", "a folder, pipe, socket or device, not a regular file")
    if found.st_size > MAX_FILE_BYTES:
        raise ImageError("changed", f"{found.st_size} bytes, more than a picture has")


def png_bytes(image_rgb: UInt8) -> bytes:
    """(H, W, 3) or (H, W, 4) as a PNG."""
    import cv2

    order = [2, 1, 0, 3][: image_rgb.shape[2]]
    return cv2.imencode(".png", np.ascontiguousarray(image_rgb[..., order]))[1].tobytes()


def _is_safe_to_link(source: Path) -> bool:
    """False for a JPEG without its end marker, which the ultralytics loader would rewrite. Raises OSError."""
    with source.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return True
        file.seek(-2, 2)
        return file.read() == b"\xff\xd9"
