"""PNGs whose pixels are numbers: class ids, object ids. Written from the definition of PNG, read by Pillow.

Arrays are (H, W), uint8 or uint16. An 8-bit file may carry a palette, so that people see what readers count.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from autolabel.core.errors import ImageError
from autolabel.core.types import UInt8
from autolabel.ops.headers import PILLOW_ERRORS, read_header

Ids = NDArray[np.uint8] | NDArray[np.uint16]

MAX_PIXELS = 1 << 28
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
_UP = 2
_BITS_AT, _KIND_AT = 24, 25
_WIDENED = {(2, _GREY): 85, (4, _GREY): 17}
"""Grey of few bits becomes 0 to 255 in Pillow's hands."""


def encode_index_png(ids: Ids, palette: UInt8 | None = None) -> bytes:
    """The file's bytes: grey of 8 or 16 bits, or 8-bit indices into `palette` (256, 3)."""
    height, width = ids.shape
    bits = 8 * ids.dtype.itemsize
    kind = _GREY if palette is None else _PALETTE
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))]
    if palette is not None:
        chunks.append((b"PLTE", palette.tobytes()))
    chunks += [(b"IDAT", zlib.compress(_rows(ids), 6)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def decode_index_png(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.integer] | UInt8:
    """(H, W) of the numbers as they stand in the file (palette indices, not colours), or (H, W, 3) colours of an
    RGB file. Raises ImageError: `unsupported` when it is not a PNG or has another form, `too_large` before
    anything is allocated, `corrupt`."""
    header = read_header(data)
    if header.kind != "PNG":
        raise ImageError("unsupported", f"a {header.kind} file; numbers of pixels are read from PNG alone")
    if header.width * header.height > max_pixels:
        raise ImageError("too_large", f"{header.width}x{header.height} px, more than {max_pixels} pixels")
    try:
        # The plugin's class, not Image.open: ultralytics replaces that function in the whole process.
        image = PngImageFile(io.BytesIO(data))
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "RGB"):
            raise ImageError("unsupported", f"a PNG of mode {image.mode}; one number per pixel is needed")
        numbers = np.asarray(image)
        if image.mode == "1":
            return numbers.astype(np.uint8)
        widened = _WIDENED.get((data[_BITS_AT], data[_KIND_AT]))
        return numbers if widened is None else numbers // np.uint8(widened)
    except PILLOW_ERRORS as e:
        raise ImageError("corrupt", f"PNG: {e}") from e


@cache
def voc_palette() -> UInt8:
    """(256, 3) RGB: the bits of the index, dealt to red, green and blue in turn from the highest bit down."""
    index = np.arange(256)[:, None]
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        colours |= ((index >> (3 * bit + np.arange(3))) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def voc_numbers(colours: UInt8) -> UInt8 | None:
    """(H, W, 3) colours of `voc_palette` back to its indices; None if another colour is among them."""
    packed = colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    known = voc_palette().astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], packed), 255)
    found = order[at]
    return found.astype(np.uint8) if (known[found] == packed).all() else None


def _rows(ids: Ids) -> bytes:
    """Each row after its filter byte, as the difference to the row above: label maps repeat themselves."""
    big_endian = np.ascontiguousarray(ids, ids.dtype.newbyteorder(">"))
    raw = big_endian.view(np.uint8).reshape(len(ids), -1)
    filtered = np.empty((raw.shape[0], raw.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[:1, 1:] = raw[:1]
    np.subtract(raw[1:], raw[:-1], out=filtered[1:, 1:])
    return filtered.tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
