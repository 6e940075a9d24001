"""Bad, strange and hostile pictures, each with what must become of it: the tables of what peers get wrong, as files.

`BAD` stands for "any of the codes of a damaged file": a cut in the middle of some formats is told by the header, of
others by the decoder, and which of the two is nobody's concern.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, features

OK = frozenset({"ok"})
BAD = frozenset({"truncated", "corrupt", "not_an_image", "unsupported", "too_large"})
ANY = BAD | OK
"""Where damage may hit bytes that no decoder looks at."""


@dataclass(frozen=True)
class Case:
    name: str
    write: Callable[[Path], object]
    expected: frozenset[str]


def cases() -> Iterator[Case]:
    """Every case; names are unique, and are those of the files."""
    for family in (_empty, _no_pictures, _cut, _trailing, _flipped, _lying_headers, _kinds, _frames, _unsupported):
        yield from family()
    yield from _sizes()
    yield from _metadata()
    yield from _names()
    yield from _places()


def write_all(folder: Path) -> dict[str, frozenset[str]]:
    """Every file, and what must become of it, by image id."""
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, frozenset[str]] = {}
    for case in cases():
        assert case.name not in expected, case.name
        case.write(folder / case.name)
        expected[case.name] = case.expected
    return expected


def _case(name: str, data: bytes, *codes: str) -> Case:
    return Case(name, lambda path: path.write_bytes(data), frozenset(codes))


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    """Something smooth with an edge, so that every codec has work to do. RGB."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], 2).astype(np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = (255, 0, 0)
    return image


def pillow(image: Image.Image, format_: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def encoded() -> dict[str, bytes]:
    """One good file of every format that is read, by extension."""
    image = Image.fromarray(photo())
    found = {
        name: pillow(image, format_)
        for name, format_ in (
            ("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("bmp", "BMP"), ("tif", "TIFF"), ("gif", "GIF"),
            ("ppm", "PPM"),
        )
    }  # fmt: skip
    found["jp2"] = cv2.imencode(".jp2", photo())[1].tobytes()
    if features.check("avif"):
        found["avif"] = pillow(image, "AVIF")
    return found


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes = b"\0" * 99, *, bits: int = 8, extra: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(body, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def _empty() -> Iterator[Case]:
    for name in (*encoded(), "tiff", "jpeg"):
        yield _case(f"empty.{name}", b"", "empty")


def _no_pictures() -> Iterator[Case]:
    texts = {
        "text": b"not a picture\n",
        "html": b"<!DOCTYPE html><html><body>404 not found</body></html>",
        "json": b'{"error": "no such key"}',
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "zip": b"PK\x03\x04" + b"\0" * 60,
        "gzip": b"\x1f\x8b\x08" + b"\0" * 60,
        "elf": b"\x7fELF" + b"\0" * 60,
        "pickle": b"\x80\x04\x95" + b"\0" * 60,
        "zeros": b"\0" * 1000,
        "ones": b"\xff" * 1000,
        "one byte": b"\xff",
        "two bytes": b"\xff\xd8",
    }
    for name, data in texts.items():
        yield _case(f"{name} as.jpg", data, "not_an_image", "truncated", "corrupt")
        yield _case(f"{name} as.png", data, "not_an_image", "truncated", "corrupt")


def _cut() -> Iterator[Case]:
    for name, data in encoded().items():
        for percent in (3, 20, 50, 90):
            yield _case(f"cut at {percent}.{name}", data[: max(1, len(data) * percent // 100)], *BAD)
    jpeg = encoded()["jpg"]
    yield _case("without its last two bytes.jpg", jpeg[:-2], "truncated")
    yield _case("without its last byte.jpg", jpeg[:-1], "truncated")
    yield _case("without IEND.png", encoded()["png"][:-12], "truncated")


def _trailing() -> Iterator[Case]:
    for name, data in encoded().items():
        yield _case(f"trailing bytes.{name}", data + b"trailing bytes" * 9, "ok")
    yield _case("two pictures in one.jpg", encoded()["jpg"] * 2, "ok")


def _flipped() -> Iterator[Case]:
    random = np.random.default_rng(0)
    for name, data in encoded().items():
        for number in range(3):
            hurt = bytearray(data)
            for place in random.integers(len(data) // 3, len(data), 8):
                hurt[place] ^= 1 << int(random.integers(8))
            codes = BAD if name == "png" else ANY
            yield _case(f"bits flipped {number}.{name}", bytes(hurt), *codes)
    good = encoded()["png"]
    at = good.index(b"IDAT") - 4
    size = struct.unpack_from(">I", good, at)[0]
    crc = good[: at + 8 + size] + b"\0\0\0\0" + good[at + 12 + size :]
    yield _case("wrong checksum.png", crc, "corrupt")
    yield _case("chunk longer than the file.png", good[:at] + b"\x7f\xff\xff\xff" + good[at + 4 :], *BAD)
    yield _case("no pixels.png", png(64, 48, b""), "corrupt")


def _lying_headers() -> Iterator[Case]:
    for side in (20_000, 30_000, 100_000, 2**31 - 1):
        yield _case(f"claims {side} squared.png", png(side, side), "too_large", "corrupt")
    yield _case("claims no width.png", png(0, 48), "corrupt")
    jpeg = bytearray(encoded()["jpg"])
    at = jpeg.index(b"\xff\xc0") + 5
    yield _case(
        "claims more rows.jpg", bytes(jpeg[:at] + struct.pack(">HH", 60_000, 60_000) + jpeg[at + 4 :]), "too_large"
    )
    yield _case("claims no rows.jpg", bytes(jpeg[:at] + struct.pack(">HH", 0, 64) + jpeg[at + 4 :]), "corrupt")
    gif = encoded()["gif"]
    yield _case("claims 65535.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], "too_large")
    yield _case("claims a larger screen.gif", gif[:6] + struct.pack("<HH", 90, 90) + gif[10:], *ANY)
    bmp = encoded()["bmp"]
    yield _case(
        "claims two billion.bmp", bmp[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + bmp[26:], "too_large"
    )
    yield _case("claims a negative width.bmp", bmp[:18] + struct.pack("<ii", -64, 48) + bmp[26:], "corrupt")
    yield _case("rows from the top.bmp", bmp[:18] + struct.pack("<ii", 64, -48) + bmp[26:], "ok")
    yield _case("claims a lot.ppm", b"P6\n999999 999999\n255\n" + b"\0" * 99, "too_large")
    yield _case("claims digits without end.ppm", b"P6\n" + b"9" * 5000 + b" 1\n255\n\0", "too_large")
    yield _case("claims no maximum.ppm", b"P6\n64 48\n", *BAD)
    yield _case("claims a maximum of 0.ppm", b"P6\n4 4\n0\n" + b"\0" * 48, *ANY)
    jp2 = encoded()["jp2"]
    siz = jp2.index(b"\xff\x4f\xff\x51") + 8
    yield _case(
        "claims two billion.jp2",
        jp2[:siz] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + jp2[siz + 8 :],
        "too_large",
    )
    yield _case(
        "claims to be left of itself.jp2", jp2[:siz] + struct.pack(">IIII", 4, 4, 9, 9) + jp2[siz + 16 :], *BAD
    )
    for name, width, rows in (("wide", 2**31 - 1, 1), ("none", 0, 0), ("tall", 64, 2**32 - 1)):
        yield _case(f"claims {name}.tif", tiff({256: width, 257: rows}), *BAD)


def tiff(tags: dict[int, int], *, next_at: int = 0, count: int | None = None) -> bytes:
    """A little-endian TIFF of 4x4 grey pixels whose tags say what they like."""
    told = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: 16, **tags}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(told.items()))
    entries = struct.pack("<H", len(told) if count is None else count) + rows + struct.pack("<I", next_at)
    return b"II*\0" + struct.pack("<I", 24) + bytes(range(16)) + entries


def _kinds() -> Iterator[Case]:
    image = Image.fromarray(photo())
    grey = image.convert("L")
    deep = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    alpha = image.convert("RGBA")
    alpha.putalpha(grey)
    for mode in ("L", "LA", "P", "1", "RGBA"):
        made = alpha if mode == "RGBA" else image.convert(mode)
        yield _case(f"mode {mode}.png", pillow(made, "PNG"), "ok")
    for mode in ("L", "CMYK"):
        yield _case(f"mode {mode}.jpg", pillow(image.convert(mode), "JPEG"), "ok")
    yield _case("progressive.jpg", pillow(image, "JPEG", progressive=True), "ok")
    yield _case(
        "restarts.jpg", cv2.imencode(".jpg", photo(), [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])[1].tobytes(), "ok"
    )
    yield _case("palette with holes.png", pillow(image.convert("P"), "PNG", transparency=3), "ok")
    yield _case("interlaced.png", cv2.imencode(".png", photo())[1].tobytes(), "ok")
    yield _case("16 bit.png", cv2.imencode(".png", deep)[1].tobytes(), "ok")
    yield _case("12 bit in 16.png", cv2.imencode(".png", deep >> 4)[1].tobytes(), "ok")
    yield _case("16 bit colour.png", cv2.imencode(".png", np.dstack([deep] * 3))[1].tobytes(), "ok")
    yield _case("16 bit.tif", cv2.imencode(".tif", deep)[1].tobytes(), "ok")
    yield _case("float.tif", pillow(Image.fromarray(deep.astype(np.float32)), "TIFF"), "unsupported")
    yield _case("32 bit.tif", tiff({258: 32}), "unsupported")
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield _case(f"{name}.tif", pillow(image, "TIFF", compression=name), "ok")
    yield _case("lossless.webp", pillow(image, "WEBP", lossless=True), "ok")
    yield _case("alpha.webp", pillow(alpha, "WEBP"), "ok")
    yield _case("grey.pgm", pillow(grey, "PPM"), "ok")
    yield _case("bits.pbm", pillow(image.convert("1"), "PPM"), "ok")
    yield _case("text.ppm", b"P3 2 1 255 255 0 0 0 255 0\n", "ok")


def _frames() -> Iterator[Case]:
    image = Image.fromarray(photo())
    others = {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
    for name, format_ in (("gif", "GIF"), ("webp", "WEBP"), ("png", "PNG"), ("tif", "TIFF")):
        yield _case(f"two frames.{name}", pillow(image, format_, **others), "ok")
    yield _case("directory that names itself.tif", tiff({}, next_at=24), "ok")
    yield _case("directory of 60000 entries.tif", tiff({}, count=60_000), *BAD)
    yield _case("strip outside of the file.tif", tiff({273: 2**31}), *BAD)
    yield _case("unknown compression.tif", tiff({259: 9999}), *ANY)
    yield _case("ten thousand samples.tif", tiff({277: 10_000}), *BAD)


def _unsupported() -> Iterator[Case]:
    starts = {
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "psd": b"8BPS\0\1", "pdf": b"%PDF-1.7\n", "ico": b"\0\0\1\0\1\0",
        "exr": b"v/1\1\2\0\0\0", "jxl": b"\xff\x0a\0", "hdr": b"#?RADIANCE\n", "mkv": b"\x1aE\xdf\xa3", "btf": b"II+\0\x08\0",
        "mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
    }  # fmt: skip
    for name, data in starts.items():
        yield _case(f"{name} called.jpg", data + b"\0" * 200, "unsupported")


def _sizes() -> Iterator[Case]:
    for width, height in ((1, 1), (1, 3000), (3000, 1), (2, 2)):
        yield _case(f"{width} x {height}.png", pillow(Image.fromarray(photo(height, width)), "PNG"), "ok")
        yield _case(f"{width} x {height}.jpg", pillow(Image.fromarray(photo(height, width)), "JPEG"), "ok")


def _metadata() -> Iterator[Case]:
    image = Image.fromarray(photo())
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield _case(f"orientation {orientation}.jpg", pillow(image, "JPEG", exif=exif), "ok")
    for orientation in (3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for name, format_ in (("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF")):
            yield _case(f"orientation {orientation}.{name}", pillow(image, format_, exif=exif), "ok")
    yield _case("nonsense for EXIF.jpg", pillow(image, "JPEG", exif=b"Exif\0\0" + b"\xff" * 64), "ok")
    yield _case("EXIF that is cut.jpg", pillow(image, "JPEG", exif=b"Exif\0\0II*\0"), "ok")
    text = PngImagePlugin.PngInfo()
    text.add_text("bomb", "0" * 8_000_000, zip=True)
    yield _case("text bomb.png", pillow(image, "PNG", pnginfo=text), "ok", "corrupt")
    bomb = zlib.compress(b"\0" * 8_000_000, 9)
    profile = chunk(b"iCCP", b"x\0\0" + bomb)
    good = png(4, 4, (b"\0" + b"\x80" * 12) * 4, extra=profile)
    yield _case("colour profile bomb.png", good, "ok", "corrupt")
    yield _case("pixel bomb.png", png(64, 48, b"\0" * 8_000_000), *ANY)


def _names() -> Iterator[Case]:
    good = encoded()["png"]
    for name in (
        "with space .png", " leading.png", "new\nline.png", "tab\t.png", "\"quotes' & $(touch pwned).png",
        "<img src=x onerror=alert(1)>.png", "\x1b[31mred\x1b[0m.png", "\x07\x08bell.png", "ünï 漢字.png",
        "e\u0301 decomposed.png", "\u202egnp.right to left.png", "x" * 250 + ".png", "-rf.png", "%2e%2e%2fetc.png",
        "..png", "a.png.jpg", "comma,semi;colon:.png", "back\\slash.png", "CON.png", "{braces} [brackets] *?.png",
        os.fsdecode(b"not utf-8 \xff\xfe.png"), "${HOME}.png", "#hash.png",
    ):  # fmt: skip
        yield _case(name, good, "ok")


def _places() -> Iterator[Case]:
    yield Case("nowhere.png", lambda path: path.symlink_to("does not exist"), frozenset({"missing"}))
    yield Case("itself.png", lambda path: path.symlink_to(path.name), frozenset({"missing", "io_error"}))
    yield Case("elsewhere.png", lambda path: path.symlink_to("mode L.png"), OK)
    yield Case("zero device.png", lambda path: path.symlink_to("/dev/zero"), frozenset({"not_a_file"}))
    yield Case("pipe.png", lambda path: os.mkfifo(path), frozenset({"not_a_file"}))
    yield Case("socket.png", _socket, frozenset({"not_a_file", "io_error"}))
    yield Case("folder.png", lambda path: path.mkdir(), frozenset({"is_a_directory"}))


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's whole path may be no longer than 107 bytes
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)
