"""The one decoder: a file's bytes to an upright RGB picture, or a reason why not.

Detector and segmenter see the same pixels because everything comes through here. It never writes to an
input, never decodes what its header does not allow, and salvages nothing: a cut JPEG is `truncated`.

Transparent pictures are laid on white, as viewers show them (`alpha_composited`); a channel beside the colours that is
not known to be alpha, near infrared say, is left out (`alpha_dropped`). 16-bit pictures keep their
high byte (`16bit_reduced`), unless no value reaches 4096: then they are 12-bit data in 16-bit clothes and
bits 4..11 are kept (`12bit_scaled`). Of several frames or pages the first is taken (`multi_frame`).
Damage inside a JPEG, a WebP or the pixels of a TIFF (without Deflate, which has checksums) cannot always be seen by
decoding; the sha256 of the bytes is there to notice it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ImageError
from autolabel.core.types import Frame, ImageInfo, ImageRecord, ImageRef, UInt8
from autolabel.ops.headers import (
    PILLOW_ERRORS,
    Header,
    jpeg_is_complete,
    open_avif,
    read_header,
)
from autolabel.ops.orientation import upright_image, upright_size
from autolabel.ops.storage import is_url, read, retry_transient
from autolabel.ops.tiff import decode_tiff

# OpenCV's own lines name no file, and an ImageError says the same with one.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

MAX_FILE_BYTES = 1 << 30
"""No picture file is larger; what is, is not read into memory."""
LONGEST_SIDE = 1_000_000
"""Pixels. libpng reads no longer side, OpenCV none over 2^20."""

_CODES = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ENAMETOOLONG: "missing",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EISDIR: "is_a_directory",
    errno.EFBIG: "too_large",
}


def read_bytes(path: str, size: int | None = None) -> bytes:
    """The whole file, here or at an address, of whose `size` a listing may have told. Raises ImageError: `missing`,
    `permission`, `is_a_directory`, `not_a_file`, `empty`, `too_large` or `io_error`; errors that pass by themselves
    (network file systems, storages) are tried three times."""
    try:
        remote = is_url(path)
        data = read(path, MAX_FILE_BYTES, size) if remote else retry_transient(lambda: _read_once(path))
    except OSError as e:
        detail = f"{e.strerror or e} (errno {e.errno})"
        raise ImageError(_CODES.get(e.errno or 0, "io_error"), detail) from e
    except ValueError as e:  # a NUL or a lone surrogate: no file can have this name
        raise ImageError("missing", f"not a possible file name: {e}") from e
    if not data:
        raise ImageError("empty", "the file has no bytes")
    return data


def _read_once(path: str) -> bytes:
    # O_NONBLOCK: opening a pipe without a writer would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("not_a_file", "a pipe, socket or device, not a regular file")
        if found.st_size > MAX_FILE_BYTES:
            raise ImageError("too_large", f"{found.st_size} bytes, more than {MAX_FILE_BYTES}")
        return file.readall()


def decode_rgb(data: bytes, *, max_pixels: int) -> tuple[UInt8, ImageInfo]:
    """Upright RGB uint8 (H, W, 3), contiguous, and what is known about it.

    Raises ImageError: `not_an_image`, `unsupported`, `too_large` (more than `max_pixels`, told from the
    header, nothing allocated), `truncated` or `corrupt`.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    header = read_header(data)
    pixels = header.width * header.height
    if pixels > max_pixels:
        size = f"{header.width}x{header.height}"
        raise ImageError("too_large", f"{size} = {pixels} pixels, more than max_pixels = {max_pixels}")
    stored, notes = _stored_rgb(data, header)
    if stored.shape[:2] != (header.height, header.width):
        found = f"{stored.shape[1]}x{stored.shape[0]}"
        raise ImageError("corrupt", f"header says {header.width}x{header.height}, pixels are {found}")
    if header.multi_frame:
        notes = (*notes, "multi_frame")
    h, w = upright_size((header.height, header.width), header.orientation)
    info = ImageInfo(w, h, header.orientation, hashlib.sha256(data).hexdigest(), notes)
    return np.ascontiguousarray(upright_image(stored, header.orientation)), info


def load_frame(ref: ImageRef, *, max_pixels: int, min_side: int) -> Frame:
    """Read and decode; raises ImageError as `read_bytes` and `decode_rgb` do, `too_small` when a side is
    shorter than `min_side` pixels, and the ref's own problem if it has one."""
    if ref.problem is not None:
        raise ImageError(ref.problem.code, ref.problem.detail)
    return frame_of(ref, read_ref(ref), max_pixels=max_pixels, min_side=min_side)


def read_ref(ref: ImageRef) -> bytes:
    """Like `read_bytes`."""
    return read_bytes(ref.path, None if ref.stamp is None else ref.stamp[0])


def frame_of(ref: ImageRef, data: bytes, *, max_pixels: int, min_side: int) -> Frame:
    """Decode the bytes of a picture; raises ImageError as `load_frame` does."""
    image, info = decode_rgb(data, max_pixels=max_pixels)
    if min(info.size_hw) < min_side:
        raise ImageError("too_small", f"{info.width}x{info.height} px, a side is under min_side = {min_side}")
    return Frame(ref, image, info)


def upright_rgb(record: ImageRecord) -> UInt8:
    """The picture as it was labelled: upright RGB (H, W, 3). Raises ImageError; `changed` when it is another one."""
    assert record.info is not None, "only labelled images have a picture to read"
    height, width = record.info.size_hw
    try:
        frame = load_frame(ImageRef(record.image_id, record.path), max_pixels=height * width, min_side=1)
    except ImageError as error:
        if error.code != "too_large":
            raise
        raise ImageError("changed", f"{record.path!r} is larger than when it was labelled") from error
    same = frame.info.sha256 == record.info.sha256 or not record.info.sha256
    if not same or frame.info.size_hw != record.info.size_hw:
        raise ImageError("changed", f"{record.path!r} is not the picture that was labelled")
    return frame.image_rgb


def _stored_rgb(data: bytes, header: Header) -> tuple[UInt8, tuple[str, ...]]:
    """RGB pixels as stored, not yet upright."""
    data = _edited(data, header)
    decoded: NDArray[Any] | None = None
    if header.kind == "AVIF":
        decoded = _decode_avif(data)
    elif header.kind == "TIFF":
        decoded = decode_tiff(data, header)
    return _to_rgb8(_decode_opencv(data, header) if decoded is None else decoded, header)


def _decode_opencv(data: bytes, header: Header) -> NDArray[Any]:
    """Grey, RGB or RGBA in 8 or 16 bits, without any rotation."""
    if header.kind == "JPEG" and not jpeg_is_complete(data):
        raise ImageError("truncated", "the JPEG has no end marker")
    # Only what needs it is decoded "unchanged": that mode also hands out the padding byte of a BMP, the fourth ink
    # of a CMYK TIFF and the near infrared of a satellite as if they were alpha.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYDEPTH if header.deep else 0)
    if header.alpha in ("straight", "premultiplied"):
        flags = cv2.IMREAD_UNCHANGED
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as e:
        raise _undecodable(header, f"{header.kind}: {e.err or e}") from e
    if decoded is None:
        raise _undecodable(header, f"the {header.kind} data cannot be decoded; damaged or cut short")
    if decoded.ndim == 2:
        return decoded
    order = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(decoded, order)


def _undecodable(header: Header, detail: str) -> ImageError:
    """Whoever hears "damaged" looks for a better copy; where there need be none, what to do is another thing."""
    if header.unusual:
        found = f"{header.kind} with {header.unusual} cannot be decoded"
        return ImageError("unsupported", f"{found}; if other programs show it, convert it to an 8-bit PNG or JPEG")
    if max(header.width, header.height) >= LONGEST_SIDE:
        size = f"{header.width}x{header.height}"
        return ImageError(
            "unsupported", f"{size} {header.kind}: too long a side for the decoder; cut it into pieces"
        )
    return ImageError("corrupt", detail)


def _edited(data: bytes, header: Header) -> bytes:
    if header.edit is None:
        return data
    start, end, instead = header.edit
    return b"".join((data[:start], instead, data[end:]))


def _decode_avif(data: bytes) -> NDArray[Any]:
    image = open_avif(data)
    try:
        return np.asarray(image)
    except PILLOW_ERRORS as e:
        raise ImageError("corrupt", f"AVIF: {e}") from e


def _to_rgb8(decoded: NDArray[Any], header: Header) -> tuple[UInt8, tuple[str, ...]]:
    notes: list[str] = []
    colours, alpha = decoded, None
    if decoded.ndim == 3:
        count = 1 if decoded.shape[2] == 2 else 3
        colours, alpha = decoded[..., 0] if count == 1 else decoded[..., :3], decoded[..., count:]
    if decoded.dtype == np.uint16:
        colours, note = _reduce_depth(colours)
        notes.append(note)
        alpha = None if alpha is None else (alpha >> 8).astype(np.uint8)
    elif decoded.dtype != np.uint8:
        raise ImageError("unsupported", f"{header.kind} with {decoded.dtype} samples; convert it to 8 bit")
    rgb = cv2.cvtColor(colours, cv2.COLOR_GRAY2RGB) if colours.ndim == 2 else colours
    if header.ycc:
        rgb = cv2.cvtColor(rgb[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB)
    if decoded.ndim == 2 and header.transparent_grey is not None:
        alpha = np.where(decoded == header.transparent_grey, 0, 255).astype(np.uint8)[..., None]
    if alpha is not None and alpha.size and int(alpha.min()) < 255:
        rgb = _over_white(rgb, alpha, premultiplied=header.alpha == "premultiplied")
        notes.append("alpha_composited")
    elif header.alpha == "dropped":
        notes.append("alpha_dropped")
    return np.ascontiguousarray(rgb), tuple(notes)


def _reduce_depth(deep: NDArray[Any]) -> tuple[UInt8, str]:
    if deep.size and int(deep.max()) < 4096:
        return (deep >> 4).astype(np.uint8), "12bit_scaled"
    return (deep >> 8).astype(np.uint8), "16bit_reduced"


def _over_white(rgb: UInt8, alpha: UInt8, *, premultiplied: bool) -> UInt8:
    """alpha (H, W, 1). Rounded to nearest; exact where alpha is 0 or 255."""
    white = 255 - alpha.astype(np.uint16)
    if premultiplied:
        return np.minimum(rgb + white, 255).astype(np.uint8)
    return ((rgb * alpha.astype(np.uint16) + white * 255 + 127) // 255).astype(np.uint8)
