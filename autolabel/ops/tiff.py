"""TIFFs, decoded by the libtiff that Pillow carries: it says when a strip or a tile cannot be read.

OpenCV takes pictures of 8 bits through libtiff's RGBA interface, which goes on after an error: what was cut off or is
damaged comes out black or as noise, without a word. Of several pages the first is looked at alone: it is the one taken.
"""

from __future__ import annotations

import io
import itertools
import threading
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, TiffImagePlugin, features

from autolabel.core.errors import ImageError
from autolabel.core.types import UInt8
from autolabel.ops.headers import PILLOW_ERRORS, Header, jpeg_is_complete

_UNKNOWN = (*PILLOW_ERRORS, KeyError, TypeError, AttributeError, ZeroDivisionError)
"""Errors that Pillow raises where it does not know a form of TIFF, or expects another type of a tag."""
_HEADER_BYTES = 8
_SAMPLES = 277
_NONE = 1
_JPEG = 7
_DEFLATE = (8, 32946)
_MODES = {
    "L": ("none", "dropped"),
    "RGB": ("none", "dropped"),
    "LA": ("straight",),
    "La": ("premultiplied",),
    "RGBA": ("straight", "dropped"),
}
"""Modes whose pixels are those of the file, with what the header says of transparency. Of all others (palettes, ink,
RGBA that is multiplied by its alpha, which Pillow divides again) OpenCV's are taken once they are known to be whole."""

# Filters of the warnings module are the process's: one thread at a time may set them aside.
_lock = threading.Lock()


class _Tiff(TiffImagePlugin.TiffImageFile):
    """Without what Pillow does beside decoding: its own limit of pixels, rotation, and EXIF that may be broken."""

    def load_prepare(self) -> None:
        ImageFile.ImageFile.load_prepare(self)

    def load_end(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Block:
    """A strip or tile: its top left pixel, its size as stored, and where it is in the file."""

    x: int
    y: int
    width: int
    height: int
    start: int
    end: int


def decode_tiff(data: bytes, header: Header) -> NDArray[Any] | None:
    """Grey (H, W), or colours and what is beside them (H, W, 2 to 4) in 8 bits, as `header` says. None where another
    decoder must be asked: of what is there all is whole then, as far as it can be seen. Raises ImageError: `corrupt`
    where a strip or tile is missing or cannot be decoded, `unsupported`."""
    if not features.check_codec("libtiff"):
        raise ImageError(
            "unsupported", "TIFFs need a Pillow with libtiff; install its wheel, or convert them to PNG"
        )
    image = _opened(data)
    blocks = None if image is None else _blocks(data, image)
    if image is None or blocks is None:
        if header.alpha in ("straight", "premultiplied") and not header.deep:  # OpenCV multiplies some of them
            raise ImageError("unsupported", "transparent TIFF of an unusual form; convert it to an 8-bit PNG")
        return None
    compressed = image.tag_v2.get(TiffImagePlugin.COMPRESSION, _NONE) != _NONE
    if not compressed:
        _check_room(data, image, blocks, deep=header.deep)
    if header.deep or header.unusual:  # OpenCV looks at what libtiff says of them
        return None
    if not compressed and header.alpha == "none":  # nothing more can be wrong, and OpenCV is faster
        return None
    try:
        image.load()
    except PILLOW_ERRORS as e:
        raise _damaged() from e
    pixels: UInt8 = np.asarray(image)
    _check(data, image, blocks, pixels)
    if header.alpha not in _MODES.get(image.mode, ()):
        return None
    return pixels[..., :3] if header.alpha == "dropped" and pixels.ndim == 3 else pixels


def _opened(data: bytes) -> _Tiff | None:
    """None for a form of TIFF that Pillow does not know."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _Tiff(io.BytesIO(data))
        except _UNKNOWN:
            return None


def _blocks(data: bytes, image: _Tiff) -> list[_Block] | None:
    """In the order of the file; None where its tags are not of the usual types. Raises ImageError where there are fewer
    than the picture needs."""
    tags: Any = image.tag_v2
    tiled = TiffImagePlugin.TILEOFFSETS in tags
    starts = tags.get(TiffImagePlugin.TILEOFFSETS if tiled else TiffImagePlugin.STRIPOFFSETS, ())
    sizes = tags.get(TiffImagePlugin.TILEBYTECOUNTS if tiled else TiffImagePlugin.STRIPBYTECOUNTS, ())
    right, bottom = image.size
    width = tags.get(TiffImagePlugin.TILEWIDTH) if tiled else right
    height = tags.get(TiffImagePlugin.TILELENGTH) if tiled else tags.get(TiffImagePlugin.ROWSPERSTRIP, bottom)
    planes = tags.get(_SAMPLES, 1) if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2 else 1
    numbers = (width, height, planes, *starts, *sizes)
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or not (width and height):
        return None
    columns, rows = -(-right // width), -(-bottom // height)
    if len(starts) < planes * columns * rows or min(starts) < _HEADER_BYTES:
        raise _damaged()
    blocks = []
    for at, start in enumerate(starts[: planes * columns * rows]):
        row, column = divmod(at % (columns * rows), columns)
        y = row * height
        size = sizes[at] if at < len(sizes) else 0  # a single strip may lack it
        shown = height if tiled else min(height, bottom - y)
        blocks.append(_Block(column * width, y, width, shown, start, start + size if size else len(data)))
    return blocks


def _check_room(data: bytes, image: _Tiff, blocks: list[_Block], *, deep: bool) -> None:
    """Uncompressed blocks are as long as their pixels: libtiff reads on into the next one. Where there are several and
    one is said to be shorter, OpenCV blanks what is over in 8 bits, and reads all of it in more. Raises ImageError."""
    tags: Any = image.tag_v2
    in_planes = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0] * (1 if in_planes else tags.get(_SAMPLES, 1))
    starts = sorted({block.start for block in blocks} | {len(data)})
    next_start = dict(itertools.pairwise(starts))
    for block in blocks:
        size = -(-block.width * bits // 8) * block.height
        said = block.end - block.start if len(blocks) > 1 and not deep else size
        if min(said, next_start.get(block.start, 0) - block.start) < size:
            raise _damaged()


def _check(data: bytes, image: _Tiff, blocks: list[_Block], pixels: UInt8) -> None:
    """What libtiff does not look at: the end of a JPEG, the checksum of Deflate. Raises ImageError."""
    tags: Any = image.tag_v2
    compression = tags.get(TiffImagePlugin.COMPRESSION, 1)
    if compression == _JPEG and not all(jpeg_is_complete(data[block.start : block.end]) for block in blocks):
        raise _damaged()
    if compression in _DEFLATE:
        predicted = tags.get(TiffImagePlugin.PREDICTOR, 1) == 2
        for block in blocks:
            if not _sums_agree(data, block, pixels, predicted=predicted):
                _inflate(data[block.start : block.end])


def _sums_agree(data: bytes, block: _Block, pixels: UInt8, *, predicted: bool) -> bool:
    """Whether the checksum is that of these pixels, which costs a tenth of decompressing them. It cannot be where the
    pixels are not the bytes that were stored: at the rim of tiles, in planes, negatives."""
    stored = pixels[block.y : block.y + block.height, block.x : block.x + block.width]
    if stored.shape[:2] != (block.height, block.width):
        return False
    if predicted:
        stored = np.concatenate([stored[:, :1], stored[:, 1:] - stored[:, :-1]], axis=1)
    return zlib.adler32(np.ascontiguousarray(stored).data) == int.from_bytes(
        data[block.end - 4 : block.end], "big"
    )


def _inflate(block: bytes) -> None:
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(block)
    except zlib.error as e:
        raise _damaged() from e
    if not inflater.eof:  # bytes behind the checksum are nobody's; without one, zeros are read as endless pixels
        raise _damaged()


def _damaged() -> ImageError:
    return ImageError("corrupt", "a strip or tile of the TIFF is missing or damaged")
