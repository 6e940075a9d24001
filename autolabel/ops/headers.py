"""What a picture file says about itself before anything is decoded: kind, size, orientation, alpha, depth.

Reads bytes only: no pixels, no decoder, no allocation that depends on the claimed size. It does not judge
whether the picture is good, only whether its header can be read. AVIF alone goes through Pillow: its header
is a tree of boxes in which size and rotation belong to items.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from autolabel.core.errors import ImageError

try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    AvifImagePlugin = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from PIL.AvifImagePlugin import AvifImageFile

Alpha = Literal["none", "straight", "premultiplied", "dropped"]

PILLOW_ERRORS = (OSError, SyntaxError, ValueError, MemoryError, RuntimeError, OverflowError)
"""The closed list that Pillow's own fuzzers allow, and the RuntimeError of its AVIF decoder."""


@dataclass(frozen=True, slots=True)
class Header:
    """Stored (not upright) size in pixels. `alpha` is how the decoder hands the transparency on, `dropped` a channel
    beside the colours that it does not, or of which nobody says that it is alpha; `deep` says more than 8 bits a
    channel, `ycc` that it hands on brightness, blue and red difference as R, G and B. `transparent_grey` is a grey,
    as it is decoded, that stands for nothing there: the decoder hands it on as if it were a colour. `edit` are bytes
    that the decoder must see otherwise, or it turns or colours the picture or takes another one: start, end, and what
    to put there. `unusual` is what not every build of it reads: where it fails, the file need not be damaged."""

    kind: str
    width: int
    height: int
    orientation: int = 1
    alpha: Alpha = "none"
    deep: bool = False
    multi_frame: bool = False
    ycc: bool = False
    edit: tuple[int, int, bytes] | None = None
    transparent_grey: int | None = None
    unusual: str = ""


def read_header(data: bytes) -> Header:
    """Raises ImageError: `not_an_image`, `unsupported`, `truncated` or `corrupt`."""
    kind = kind_of(data)
    try:
        header = _READERS[kind](data)
    except (IndexError, struct.error) as e:
        raise ImageError("truncated", f"the {kind} header ends early") from e
    except ValueError as e:
        raise ImageError("corrupt", f"{kind} header: {e}") from e
    if header.width < 1 or header.height < 1:
        raise ImageError("corrupt", f"{kind} header says {header.width}x{header.height} pixels")
    return header


_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)
_UNSUPPORTED = (
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"\0\0\1\0", "icon"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"\x1aE\xdf\xa3", "Matroska video"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def kind_of(data: bytes) -> str:
    """The format that the first bytes of a file say, as `Header.kind`. Raises ImageError for none that is known."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        return _ftyp_kind(data)
    if len(data) > 2 and data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PNM"
    for magic, kind in _UNSUPPORTED:
        if data.startswith(magic):
            raise ImageError("unsupported", f"{kind} files are not read; convert it to PNG or JPEG")
    raise ImageError("not_an_image", f"no picture format starts with {data[:12]!r}")


def _ftyp_kind(data: bytes) -> str:
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, min(_be32(data, 0), 256), 4))]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    if any(brand in _HEIF_BRANDS for brand in brands):
        raise ImageError("unsupported", "HEIC is not read; convert it first (heif-convert in.heic out.jpg)")
    raise ImageError("unsupported", f"a video or other media file (brand {brands[0]!r})")


def _be16(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">H", data, at)[0])


def _be32(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])


def _le24(data: bytes, at: int) -> int:
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16


# JPEG -----------------------------------------------------------------------------------------------------


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment's payload, up to and with the first scan (0xDA). Bytes between segments
    are passed over, as libjpeg does."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            raise IndexError("no further marker")
        while data[at] == 0xFF:
            at += 1
        marker, at = data[at], at + 1
        if marker <= 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        end = at + _be16(data, at)
        yield marker, at + 2, end
        if marker == 0xDA:
            return
        at = end


def _jpeg(data: bytes) -> Header:
    size: tuple[int, int] | None = None
    orientation, unusual = 0, ""
    for marker, start, end in jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = _be16(data, start + 3), _be16(data, start + 1)
            if marker > 0xC2 or data[start] != 8:
                unusual = f"coding process {marker - 0xC0}, {data[start]}-bit samples"
        elif marker == 0xE1 and not orientation and data[start : start + 6] == b"Exif\0\0":
            orientation = exif_orientation(data[start + 6 : end])
    if size is None:
        raise ValueError("no frame before the first scan")
    return Header("JPEG", *size, orientation or 1, unusual=unusual)


def jpeg_is_complete(data: bytes) -> bool:
    """Whether an end marker follows the first scan. (Inside a scan every 0xFF is escaped.)"""
    try:
        start = next(end for marker, _, end in jpeg_segments(data) if marker == 0xDA)
    except (IndexError, struct.error, ValueError, StopIteration):
        return False
    return data.rfind(b"\xff\xd9", start) >= 0


# TIFF and EXIF --------------------------------------------------------------------------------------------

_ORIENTATION = 0x0112
_EXTRA_SAMPLES = 338
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}
_TIFF_COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}
"""Samples of a colour by photometric interpretation (RGB, CMYK, YCbCr, CIELab); of all others one."""
_TIFF_PHOTOMETRICS = (0, 1, 2, 3, 5, 6, 8)
_TIFF_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946)
"""None, CCITT, LZW, JPEG, Deflate and PackBits: every build of libtiff knows them."""
_TIFF_RARE_COMPRESSIONS = {
    6: "old JPEG",
    32766: "NeXT",
    32809: "ThunderScan",
    34661: "JBIG",
    34676: "SGILog",
    34677: "SGILog",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
}
"""A build of libtiff without them says that it cannot; of any other (34712, JPEG 2000, is one) OpenCV makes black."""
_DEEP_LAYOUTS = {(1, 1), (1, 2), (2, 3), (2, 4), (8, 3)}
"""Photometric interpretation and samples a pixel of the TIFFs over 8 bits that OpenCV reads as they are meant. Of
others it makes pictures too: of white-is-zero the negative, of a palette its numbers, of bands of grey colours."""


@dataclass(frozen=True, slots=True)
class _Ifd:
    """Integer tags of one TIFF directory, where each value stands and in which struct format, and the offset of the
    next directory."""

    values: dict[int, tuple[int, ...]]
    places: dict[int, tuple[int, str]]
    next_at: int


def _ifd(data: bytes) -> _Ifd:
    if data[:2] not in (b"II", b"MM"):
        raise ValueError("no byte order mark")
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    values, places = {}, {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", data, entry)
        if kind not in _TIFF_TYPES or not 1 <= length <= 16:
            continue
        fmt = f"{order}{length}{_TIFF_TYPES[kind]}"
        inline = struct.calcsize(fmt) <= 4
        where = entry + 8 if inline else struct.unpack_from(order + "I", data, entry + 8)[0]
        values[tag], places[tag] = struct.unpack_from(fmt, data, where), (where, fmt)
    return _Ifd(values, places, struct.unpack_from(order + "I", data, at + 2 + 12 * count)[0])


def exif_orientation(exif: bytes) -> int:
    """1..8 from an EXIF block (a TIFF without pixels); 1 when it has none or cannot be read.

    A broken EXIF block is no reason to refuse a picture: every viewer shows it unrotated.
    """
    blob = exif.removeprefix(b"Exif\0\0")
    try:
        value = _ifd(blob).values.get(_ORIENTATION, (1,))[0]
    except (IndexError, struct.error, ValueError):
        return 1
    return value if 1 <= value <= 8 else 1


def _tiff(data: bytes) -> Header:
    ifd = _ifd(data)

    def tag(number: int, default: int) -> int:
        return ifd.values.get(number, (default,))[0]

    bits, photometric, samples = tag(258, 1), tag(262, 1), tag(277, 1)
    if tag(339, 1) != 1 or bits > 16:
        raise ImageError(
            "unsupported", f"TIFF with {bits}-bit, signed or float samples; convert it to 8 or 16 bit"
        )
    compression = tag(259, 1)
    if compression not in _TIFF_COMPRESSIONS and compression not in _TIFF_RARE_COMPRESSIONS:
        raise ImageError("unsupported", f"TIFF of compression {compression}; convert it to an 8-bit PNG or JPEG")
    in_planes = tag(284, 1) == 2 and samples > 1
    if bits > 8 and (in_planes or (photometric, samples) not in _DEEP_LAYOUTS):
        form = f"photometric {photometric}, {samples} a pixel{', in planes' * in_planes}"
        way = "convert it to RGB or grey (0 is black) with the samples of a pixel side by side"
        raise ImageError("unsupported", f"TIFF with {bits}-bit samples in an unusual order ({form}); {way}")
    _refuse_second_band(ifd, photometric, samples, bits)
    orientation, edit = tag(_ORIENTATION, 1), None
    if _ORIENTATION in ifd.places:  # OpenCV would turn it, whatever the flags say
        where, fmt = ifd.places[_ORIENTATION]
        upright = struct.pack(fmt[0] + fmt[-1], 1)
        edit = where, where + len(upright), upright
    return Header(
        "TIFF",
        tag(256, 0),
        tag(257, 0),
        orientation if 1 <= orientation <= 8 else 1,
        alpha=_tiff_alpha(ifd, photometric, samples, bits),
        deep=bits > 8,
        multi_frame=ifd.next_at != 0,
        edit=edit,
        unusual=_tiff_unusual(compression, photometric, samples, bits),
    )


def _refuse_second_band(ifd: _Ifd, photometric: int, samples: int, bits: int) -> None:
    """Beside grey of 8 bits, where it would not be read as it is meant: libtiff's RGBA interface multiplies the grey of
    planes by a straight alpha, and loses its place at the rim of tiles; Pillow reads no plane of alpha, and does not
    know a band that nobody describes."""
    if bits > 8 or samples != 2 or photometric not in (0, 1):
        return
    extra = ifd.values.get(_EXTRA_SAMPLES, (-1,))[0]
    in_planes, tiled = ifd.values.get(284, (1,))[0] == 2, 322 in ifd.values
    if (in_planes and extra > 0) or (
        tiled and not in_planes and (photometric, extra) not in ((1, 0), (1, 1), (1, 2))
    ):
        form = "alpha in a plane of its own" if in_planes else "a second band in tiles that is not described"
        raise ImageError("unsupported", f"grey TIFF with {form}; convert it to an 8-bit PNG")


def _tiff_unusual(compression: int, photometric: int, samples: int, bits: int) -> str:
    if compression in _TIFF_RARE_COMPRESSIONS:
        return f"{_TIFF_RARE_COMPRESSIONS[compression]} compression"
    if samples > 4:
        return f"{samples} samples a pixel"
    if photometric not in _TIFF_PHOTOMETRICS:
        return f"photometric {photometric}"
    return "" if bits in (1, 8, 16) else f"{bits}-bit samples"


def _tiff_alpha(ifd: _Ifd, photometric: int, samples: int, bits: int) -> Alpha:
    if samples <= _TIFF_COLOURS.get(photometric, 1):
        return "none"
    extra = ifd.values.get(_EXTRA_SAMPLES, (0,))[0]
    if extra not in (1, 2) or (photometric, samples) not in ([(2, 4), (1, 2)] if bits == 8 else [(2, 4)]):
        return "dropped"
    # Between 8 and 16 bits libtiff's RGBA interface multiplies the colours by the alpha itself.
    return "straight" if extra == 2 and bits in (8, 16) else "premultiplied"


# PNG ------------------------------------------------------------------------------------------------------


def _png(data: bytes) -> Header:
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if bits not in (1, 2, 4, 8, 16):
        raise ValueError(f"{bits} bits a sample")
    orientation, has_alpha, animated, transparent_grey, edit = 1, colour in (4, 6), False, None, None
    for name, start, end in _png_chunks(data):
        if name == b"eXIf":
            orientation = exif_orientation(data[start:end])
        if name == b"tRNS":
            has_alpha = True
            if colour == 0:
                white = (1 << bits) - 1  # greys of fewer than 8 bits are stretched to them
                transparent_grey = (_be16(data, start) & white) * (1 if bits == 16 else 255 // white)
        if name == b"acTL":
            animated |= _be32(data, start) > 1
            edit = start - 8, end + 4, b""  # or OpenCV takes the first frame in place of the file's own picture
    alpha: Alpha = "straight" if has_alpha else "none"
    return Header(
        "PNG",
        width,
        height,
        orientation,
        alpha,
        deep=bits == 16,
        multi_frame=animated,
        edit=edit,
        transparent_grey=transparent_grey,
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at, view = 8, memoryview(data)
    while True:
        if at + 8 > len(data):
            raise ImageError("truncated", "the PNG ends before its chunk b'IEND'")
        length, name = _be32(data, at), data[at + 4 : at + 8]
        start, end = at + 8, at + 8 + length
        if end + 4 > len(data):
            raise ImageError("truncated", f"the PNG ends inside its chunk {name!r}")
        if zlib.crc32(view[at + 4 : end]) != _be32(data, end):
            raise ValueError(f"checksum of chunk {name!r} at byte {at} is wrong")
        yield name, start, end
        if name == b"IEND":
            return
        at = end + 4


# The others -----------------------------------------------------------------------------------------------


def _webp(data: bytes) -> Header:
    first, body = data[12:16], 20
    if first == b"VP8X":
        return _webp_extended(data, body)
    if first == b"VP8L":
        bits = struct.unpack_from("<I", data, body + 1)[0]
        alpha: Alpha = "straight" if bits >> 28 & 1 else "none"
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha=alpha)
    if first == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, body + 6)
        return Header("WebP", width & 0x3FFF, height & 0x3FFF)
    raise ValueError(f"unknown chunk {first!r}")


def _webp_extended(data: bytes, body: int) -> Header:
    flags = data[body]
    width, height = _le24(data, body + 4) + 1, _le24(data, body + 7) + 1
    orientation, at = 1, 12
    while flags & 0x08 and at + 8 <= len(data):
        length = struct.unpack_from("<I", data, at + 4)[0]
        if data[at : at + 4] == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + length])
            break
        at += 8 + length + (length & 1)
    alpha: Alpha = "straight" if flags & 0x10 else "none"
    return Header("WebP", width, height, orientation, alpha, multi_frame=bool(flags & 0x02))


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _palette_bytes(flags)
    frames, alpha = 0, False
    while frames < 2 and at < len(data) and data[at] in (0x21, 0x2C):
        if data[at] == 0x21:
            alpha |= frames == 0 and data[at + 1] == 0xF9 and bool(data[at + 3] & 1)
            at = _gif_sub_blocks(data, at + 2)
        else:
            frames += 1
            at = _gif_sub_blocks(data, at + 11 + _palette_bytes(data[at + 9]))
    return Header("GIF", width, height, alpha="straight" if alpha else "none", multi_frame=frames > 1)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_sub_blocks(data: bytes, at: int) -> int:
    # The data ends early in a cut file; the decoder says so better.
    while at < len(data) and data[at]:
        at += data[at] + 1
    return at + 1


def _bmp(data: bytes) -> Header:
    # The fourth byte of 32-bit rows is padding in most files: a BMP is taken as opaque.
    if _le24(data, 14) == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("BMP", width, height)
    width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", width, abs(height))


_PNM_WHITES = (255, 4095, 65535)
"""White at 8, 12 and 16 bits; the decoder hands the values of others on as they are, which would be too dark."""


def _pnm(data: bytes) -> Header:
    fields: list[int] = []
    at, wanted = 2, 2 if data[1:2] in b"14" else 3
    while len(fields) < wanted:
        while data[at : at + 1].isspace():
            at += 1
        if data[at] == ord("#"):
            at = data.index(b"\n", at)
            continue
        start = at
        while data[at : at + 1].isdigit():
            at += 1
        fields.append(int(data[start : min(at, start + 10)]))
    white = fields[2] if wanted == 3 else 255
    is_stretched = data[1:2] in b"23" and white < 255  # written as text: the decoder does it itself
    if white not in _PNM_WHITES and not is_stretched:
        raise ImageError("unsupported", f"PNM whose white is {white}, not 255, 4095 or 65535; convert it to PNG")
    return Header("PNM", fields[0], fields[1], deep=white > 255)


_SRGB, _GREY, _SYCC = 16, 17, 18
"""Colour spaces of a JP2."""


def _jpeg2000(data: bytes) -> Header:
    # The codestream's SIZ marker is the truth in both the raw and the boxed form.
    siz = data.index(b"\xff\x4f\xff\x51") + 8
    right, bottom, left, top = struct.unpack_from(">IIII", data, siz)
    channels, depth = _be16(data, siz + 32), (data[siz + 34] & 0x7F) + 1
    alpha: Alpha = "none" if channels in (1, 3) else "dropped"
    steps = {data[at] for at in range(siz + 35, siz + 34 + 3 * channels, 3)}
    unusual = f"{channels} components" if channels > 4 else "components of unequal size" if steps != {1} else ""
    boxes = _jp2_boxes(data)
    if b"cdef" in boxes and channels == 4:
        start, end = boxes[b"cdef"]
        kinds = {_be16(data, at) for at in range(start + 4, end, 6)}
        alpha = "straight" if 1 in kinds else "premultiplied" if 2 in kinds else "dropped"
    colours = boxes.get(b"colr", (0, 0))[0] + 3  # behind method, precedence and approximation
    space = _be32(data, colours) if colours > 3 and data[colours - 3] == 1 else _SRGB
    ycc = space == _SYCC and channels > 2
    return Header(
        "JPEG2000",
        right - left,
        bottom - top,
        alpha=alpha,
        deep=depth > 8,
        ycc=ycc,
        # OpenCV takes these colours for those of analogue television.
        edit=(colours, colours + 4, struct.pack(">I", _SRGB)) if ycc else None,
        unusual=unusual if space in (_SRGB, _GREY, _SYCC) else f"colour space {space}",
    )


def _jp2_boxes(data: bytes) -> dict[bytes, tuple[int, int]]:
    """Start and end of the first box of each name in a JP2, and in its header; a raw codestream has none."""
    found: dict[bytes, tuple[int, int]] = {}
    at = 0
    while data[4:8] == b"jP  " and at + 8 <= len(data) and b"jp2c" not in found:
        length, name = _be32(data, at), data[at + 4 : at + 8]
        if length < 8:  # of 64 bits, or to the end: no box that matters here is so large
            break
        found.setdefault(name, (at + 8, at + length))
        at += 8 if name == b"jp2h" else length
    return found


def _avif(data: bytes) -> Header:
    image = open_avif(data)
    exif, frames = image.info.get("exif", b""), getattr(image, "n_frames", 1)
    alpha: Alpha = "straight" if image.mode == "RGBA" else "none"
    return Header("AVIF", *image.size, exif_orientation(exif), alpha, multi_frame=frames > 1)


# Filters of the warnings module are the process's: one thread at a time may set them aside.
_warnings_lock = threading.Lock()


def open_avif(data: bytes) -> AvifImageFile:
    """Pillow's lazy view of an AVIF; its orientation stands in `info["exif"]`. Raises ImageError."""
    if AvifImagePlugin is None or not AvifImagePlugin.SUPPORTED:
        raise ImageError("unsupported", "AVIF needs Pillow 11.3 or newer; convert it to PNG or JPEG")
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The plugin's class, not Image.open: ultralytics replaces that function in the whole process.
            return AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    except PILLOW_ERRORS as e:
        raise ImageError("corrupt", f"AVIF header: {e}") from e


_READERS = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WebP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "TIFF": _tiff,
    "PNM": _pnm,
    "JPEG2000": _jpeg2000,
    "AVIF": _avif,
}
