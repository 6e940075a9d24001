"""The pictures that stand beside the labels of an export. Never writes to an input.

copy      the file as it is; what readers differ on (the format, an orientation that some readers ignore,
          several pages) becomes an upright PNG, pixel for pixel what was labelled
link      a symbolic link where that is safe, else as `copy`; pictures at an address are copied
upright   as `copy`, but no file with an EXIF orientation stays: for readers that do not rotate
none      nothing is written; the labels name the picture by its id
"""

from __future__ import annotations

import hashlib
import stat
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np

from autolabel.core.errors import ConfigError, ExportError, ImageError
from autolabel.core.types import ImageRecord, UInt8
from autolabel.export.atomic import Draft
from autolabel.ops.images import MAX_FILE_BYTES, read_bytes, upright_rgb
from autolabel.ops.storage import is_url

Mode = Literal["copy", "link", "upright", "none"]

PICTURE_NOTES: dict[str, str] = {
    "images_missing": "{} pictures can no longer be read and are left out",
    "images_changed": "{} pictures changed since they were labelled and are left out",
    "images_converted": "{} pictures are written as upright PNG, since readers differ on their format",
}
"""What `Pictures.write` counts, as lines for the report."""

_JPEG = (".jpg", ".jpeg", ".mpo")
_AS_IS = (*_JPEG, ".png", ".bmp", ".webp", ".tif", ".tiff")
"""What every build of OpenCV reads."""


class Pictures:
    """Writes pictures in one of the modes; an exporter that offers only some checks that itself."""

    def __init__(self, *, key: str, mode: Mode) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(f"export.{key}.images must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        self._mode = mode

    def suffix(self, record: ImageRecord) -> str:
        """The suffix of the picture that `write` makes, with its dot."""
        return ".png" if self.converts(record) else PurePosixPath(record.image_id).suffix

    def converts(self, record: ImageRecord) -> bool:
        """Whether the picture is decoded and written as a PNG."""
        return self._mode != "none" and _needs_png(record, rotates=self._mode != "upright")

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

    def _write(self, record: ImageRecord, path: str, draft: Draft, counts: Counter[str]) -> bool:
        assert record.info is not None, "only labelled images have a picture to write"
        if self.converts(record):
            draft.write(path, [png_bytes(upright_rgb(record))])
            counts["images_converted"] += 1
            return True
        if is_url(record.path):  # there is nothing to link to
            data = read_bytes(record.path)
            if record.info.sha256 not in ("", hashlib.sha256(data).hexdigest()):
                raise ImageError("changed", f"{record.path!r} has other bytes than when it was labelled")
            draft.write(path, [data])
            return True
        source = Path(record.path)
        _check_picture_file(source)
        if self._mode == "link" and _is_safe_to_link(source):
            draft.link(source, path, record.info.sha256)
        elif draft.copy(source, path) != (record.info.sha256 or draft.sha256(path)):
            draft.remove(path)
            raise ImageError("changed", f"{record.path!r} has other bytes than when it was labelled")
        return True


def _check_picture_file(path: Path) -> None:
    """Raises ImageError for what is no regular file: opening a pipe waits for ever, and a device has no end."""
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


def _needs_png(record: ImageRecord, *, rotates: bool) -> bool:
    """Formats that not every reader takes, and turned pictures that not every reader turns."""
    assert record.info is not None, "only labelled images have a picture to write"
    suffix = PurePosixPath(record.image_id).suffix.lower()
    turned = record.info.orientation != 1 and not (rotates and suffix in (*_JPEG, ".png"))
    # Some readers stack the pages of a TIFF into channels.
    pages = suffix in (".tif", ".tiff") and "multi_frame" in record.info.notes
    return suffix not in _AS_IS or turned or pages


def _is_safe_to_link(source: Path) -> bool:
    """False for a JPEG without its end marker, which the ultralytics loader would rewrite. Raises OSError."""
    with source.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return True
        file.seek(-2, 2)
        return file.read() == b"\xff\xd9"
