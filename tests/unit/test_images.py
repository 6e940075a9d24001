"""The decoder: every picture upright RGB uint8, or one ImageError with a stable code."""

import errno
import hashlib
import io
import os
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from autolabel.core.errors import ImageError
from autolabel.core.types import ImageRef, Problem
from autolabel.ops.images import decode_rgb, load_frame, read_bytes, retry_transient

H, W = 12, 20
MANY = 10**6


def gradient(height=H, width=W):
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // (width - 1), y * 255 // (height - 1), (3 * x + 5 * y) % 256]
    return np.stack(channels, -1).astype(np.uint8)


RGB = gradient()
RGBA = np.dstack([RGB, np.linspace(0, 255, W).astype(np.uint8)[None].repeat(H, 0)])
DEEP = (np.mgrid[0:H, 0:W][1] * 3000).astype(np.uint16)
LOSSLESS_WEBP = {"lossless": True, "exact": True}


def encoded(pixels, kind, mode=None, **options):
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def on_white(data):
    """What a viewer shows, by Pillow."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def tiff(pixels, photometric, extra=None, *, in_planes=False):
    """An uncompressed little-endian TIFF of (H, W) or (H, W, samples) unsigned integers."""
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    planes = np.moveaxis(pixels, 2, 0) if in_planes else pixels[None]
    bits, size = 8 * pixels.itemsize, planes[0].nbytes
    tags = {256: [W], 257: [H], 258: [bits] * samples, 259: [1], 262: [photometric], 277: [samples], 278: [H]}
    tags |= {273: [8 + size * i for i in range(len(planes))], 279: [size] * len(planes), 284: [1 + in_planes]}
    tags |= {} if extra is None else {338: [extra]}
    far, at, entries = b"", 8 + pixels.nbytes + 6 + 12 * len(tags), b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        inline = packed if len(values) == 1 else struct.pack("<I", at + len(far))
        entries += struct.pack("<HHI", tag, 4, len(values)) + inline
        far += packed if len(values) > 1 else b""
    start = b"II*\0" + struct.pack("<I", 8 + pixels.nbytes) + planes.tobytes()
    return start + struct.pack("<H", len(tags)) + entries + bytes(4) + far


def png(width, height, *chunks, bits=8, colour=2):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), *chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + rows


def code_of(data, max_pixels=MANY):
    with pytest.raises(ImageError) as caught:
        decode_rgb(data, max_pixels=max_pixels)
    return caught.value.code


def with_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    if kind == "AVIF":
        options |= {"quality": 100, "subsampling": "4:4:4"}
    return encoded(RGB, kind, **options, **(LOSSLESS_WEBP if kind == "WEBP" else {}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_once_and_recorded(kind, orientation):
    data = with_orientation(kind, orientation)
    image, info = decode_rgb(data, max_pixels=MANY)
    assert info.orientation == orientation
    assert (image == on_white(data)).all()
    assert image.shape == (info.height, info.width, 3) == ((W, H, 3) if orientation > 4 else (H, W, 3))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_deep_tiff_is_turned_too(orientation):
    data = encoded(DEEP, "TIFF", tiffinfo={0x0112: orientation})
    image, info = decode_rgb(data, max_pixels=MANY)
    assert info.orientation == orientation
    assert image.shape[:2] == ((W, H) if orientation == 6 else (H, W))


def test_a_baseline_jpeg_has_the_pixels_of_opencv_and_of_pillow():
    data = encoded(gradient(40, 60), "JPEG", quality=80)
    image, info = decode_rgb(data, max_pixels=MANY)
    assert (image == cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]).all()
    assert (image == np.asarray(Image.open(io.BytesIO(data)))).all()
    assert info.sha256 == hashlib.sha256(data).hexdigest()
    assert info.notes == ()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *[("PNG", "L"), ("PNG", "P"), ("PNG", "1"), ("TIFF", "CMYK"), ("TIFF", "1"), ("TIFF", "P"), ("GIF", "P")],
        *[("JPEG", "L"), ("BMP", "RGB"), ("BMP", "RGBA"), ("PPM", "RGB"), ("PPM", "L"), ("JPEG2000", "RGB")],
    ],
)
def test_every_mode_comes_out_as_three_channels(kind, mode):
    data = encoded(RGB, kind, mode)
    image, info = decode_rgb(data, max_pixels=MANY)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert info.notes == ()
    assert (image == on_white(data)).all()


def test_a_cmyk_jpeg_looks_as_in_pillow():
    data = encoded(RGB, "JPEG", "CMYK", quality=95)
    image, _ = decode_rgb(data, max_pixels=MANY)
    assert np.abs(image.astype(int) - on_white(data)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG2000", "LA"])
def test_transparency_is_laid_on_white(kind):
    options = LOSSLESS_WEBP if kind == "WEBP" else {}
    data = encoded(RGBA, "PNG", "LA") if kind == "LA" else encoded(RGBA, kind, **options)
    image, info = decode_rgb(data, max_pixels=MANY)
    assert info.notes == ("alpha_composited",)
    assert (image[:, 0] == 255).all()
    assert np.abs(image.astype(int) - on_white(data)).max() <= 1


def test_an_opaque_alpha_channel_changes_nothing():
    image, info = decode_rgb(encoded(RGB, "PNG", "RGBA"), max_pixels=MANY)
    assert info.notes == ()
    assert (image == RGB).all()


def test_a_transparent_palette_entry_is_laid_on_white():
    image, info = decode_rgb(encoded(np.full((4, 4), 3, np.uint8), "PNG", "P", transparency=3), max_pixels=MANY)
    assert info.notes == ("alpha_composited",)
    assert (image == 255).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_laid_on_white(bits):
    white = (1 << bits) - 1
    greys = [0, white, white // 3]
    row = int("".join(f"{grey:0{bits}b}" for grey in greys).ljust(48, "0"), 2).to_bytes(6, "big")[
        : -(-3 * bits // 8)
    ]
    rows = (b"IDAT", zlib.compress(b"\0" + row))
    for transparent in greys:
        data = png(3, 1, (b"tRNS", struct.pack(">H", transparent)), rows, bits=bits, colour=0)
        image, info = decode_rgb(data, max_pixels=3)
        assert info.notes[-1] == "alpha_composited"
        shown = [255 if grey == transparent else 255 * grey // white for grey in greys]
        assert image[0].tolist() == [[grey] * 3 for grey in shown]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_keep_the_high_byte(kind):
    image, info = decode_rgb(encoded(DEEP, kind), max_pixels=MANY)
    assert info.notes == ("16bit_reduced",)
    assert (image == (DEEP >> 8)[..., None]).all()


def test_twelve_bit_data_in_sixteen_bits_is_scaled_and_said():
    dark = (DEEP // 15).astype(np.uint16)
    image, info = decode_rgb(encoded(dark, "PNG"), max_pixels=MANY)
    assert info.notes == ("12bit_scaled",)
    assert (image == (dark >> 4)[..., None]).all()


RGBA16 = RGBA.astype(np.uint16) * 257
RGB16, GREY16 = RGBA16[..., :3], RGBA16[..., 0]


@pytest.mark.parametrize("pixels", [RGBA, RGBA16], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize("extra", [None, 0], ids=["not said", "unspecified"])
def test_a_fourth_band_of_a_tiff_that_nobody_calls_alpha_is_left_out(pixels, extra):
    image, info = decode_rgb(tiff(pixels, 2, extra), max_pixels=MANY)
    assert (image == RGB).all()
    assert info.notes[-1] == "alpha_dropped"


def test_a_second_band_of_a_deep_grey_tiff_is_left_out():
    image, info = decode_rgb(tiff(RGBA16[..., :2], 1, 0), max_pixels=MANY)
    assert (image == RGB[..., :1]).all()
    assert info.notes == ("alpha_dropped",)


@pytest.mark.parametrize("extra", [1, 2], ids=["premultiplied", "straight"])
def test_the_alpha_of_a_deep_tiff_is_laid_on_white(extra):
    multiplied = RGB16 * (RGBA16[..., 3:] / 65535 if extra == 1 else 1)
    pixels = np.dstack([multiplied, RGBA16[..., 3]]).astype(np.uint16)
    image, info = decode_rgb(tiff(pixels, 2, extra), max_pixels=MANY)
    assert info.notes == ("16bit_reduced", "alpha_composited")
    assert np.abs(image.astype(int) - on_white(encoded(RGBA, "PNG"))).max() <= 1


def without_box(jp2, name):
    at, outer = jp2.index(name) - 4, jp2.index(b"jp2h") - 4
    size, outer_size = (struct.unpack_from(">I", jp2, i)[0] for i in (at, outer))
    return jp2[:outer] + struct.pack(">I", outer_size - size) + jp2[outer + 4 : at] + jp2[at + size :]


@pytest.mark.parametrize("raw", [False, True])
def test_a_fourth_component_of_a_jpeg_2000_that_nobody_calls_alpha_is_left_out(raw):
    data = encoded(RGBA, "JPEG2000", no_jp2=raw)
    image, info = decode_rgb(data if raw else without_box(data, b"cdef"), max_pixels=MANY)
    assert (image == RGB).all()
    assert info.notes == ("alpha_dropped",)


def test_the_premultiplied_alpha_of_a_jpeg_2000_is_laid_on_white():
    colours = (RGB * (RGBA[..., 3:] / 255)).astype(np.uint8)
    data = encoded(np.dstack([colours, RGBA[..., 3]]), "JPEG2000")
    said = data.index(b"cdef") + 6 + 3 * 6 + 2
    image, info = decode_rgb(data[:said] + b"\0\2" + data[said + 2 :], max_pixels=MANY)
    assert info.notes == ("alpha_composited",)
    assert np.abs(image.astype(int) - on_white(encoded(RGBA, "PNG"))).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "photometric", "in_planes"),
    [
        *[(RGB16, 2, True), (RGBA16, 2, True), (RGBA16[..., :2], 1, True), (GREY16, 0, False), (GREY16, 3, False)],
        *[(RGB16, 1, False), (RGBA16, 1, False), (RGBA16, 5, False)],
    ],
)
def test_a_deep_tiff_that_would_come_out_as_another_picture_is_refused(pixels, photometric, in_planes):
    with pytest.raises(ImageError, match=r"unsupported: TIFF with 16-bit samples in an unusual order.*convert it"):
        decode_rgb(tiff(pixels, photometric, in_planes=in_planes), max_pixels=MANY)


@pytest.mark.parametrize(("pixels", "in_planes"), [(RGB, True), (RGB16, False)])
def test_bands_of_a_tiff_that_are_read_are_the_right_ones(pixels, in_planes):
    assert (decode_rgb(tiff(pixels, 2, in_planes=in_planes), max_pixels=MANY)[0] == RGB).all()


def pnm(magic, white):
    """Three pixels: black, half white, white."""
    values = np.array([0, white // 2, white])
    as_text = magic == b"P2"
    body = b"0 %d %d\n" % tuple(values[1:]) if as_text else values.astype(">u2" if white > 255 else "u1").tobytes()
    return magic + b"\n# made by hand\n3 1\n%d\n" % white + body


@pytest.mark.parametrize(
    ("magic", "white"), [(b"P5", 255), (b"P5", 4095), (b"P5", 65535), (b"P2", 15), (b"P2", 255), (b"P2", 65535)]
)
def test_the_white_of_a_pnm_is_white(magic, white):
    assert decode_rgb(pnm(magic, white), max_pixels=MANY)[0][0, :, 0].tolist() in ([0, 127, 255], [0, 119, 255])


@pytest.mark.parametrize(("magic", "white"), [(b"P5", 15), (b"P5", 1023), (b"P5", 16383), (b"P2", 1023)])
def test_a_pnm_that_would_come_out_too_dark_is_refused(magic, white):
    with pytest.raises(ImageError, match=f"unsupported: PNM whose white is {white}.*convert it"):
        decode_rgb(pnm(magic, white), max_pixels=MANY)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "AVIF"])
def test_of_several_frames_the_first_is_taken_and_said(kind):
    others = [Image.fromarray(RGB[::-1].copy()), Image.fromarray(RGB[:, ::-1].copy())]
    data = encoded(RGB, kind, save_all=True, append_images=others)
    image, info = decode_rgb(data, max_pixels=MANY)
    assert info.notes == ("multi_frame",)
    assert np.abs(image.astype(int) - on_white(data)).max() <= 2


def test_the_picture_of_an_animated_png_that_is_none_of_its_frames_is_taken():
    frames = [Image.fromarray(np.roll(RGB, shift, 1)) for shift in (5, 6)]
    data = encoded(RGB, "PNG", save_all=True, default_image=True, append_images=frames)
    assert (decode_rgb(data, max_pixels=MANY)[0] == RGB).all()


def test_a_jpeg_2000_of_brightness_and_differences_has_the_colours_of_pillow():
    data = encoded(RGB, "JPEG2000", "YCbCr")
    image, info = decode_rgb(data, max_pixels=MANY)
    assert info.notes == ()
    assert np.abs(image.astype(int) - on_white(data)).max() <= 2


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm():
    data = encoded(RGB, "JPEG")
    plain, _ = decode_rgb(data, max_pixels=MANY)
    image, _ = decode_rgb(data + b"trailing", max_pixels=MANY)
    assert (image == plain).all()


@pytest.mark.parametrize("stray", [b"\0", b"stray", b"\xff\0", b"\0\xff\xff"])
def test_bytes_between_the_segments_of_a_jpeg_do_no_harm(stray):
    data = encoded(RGB, "JPEG")
    plain, _ = decode_rgb(data, max_pixels=MANY)
    for marker in (b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xda"):
        at = data.index(marker)
        image, _ = decode_rgb(data[:at] + stray + data[at:], max_pixels=MANY)
        assert (image == plain).all()


def test_a_broken_exif_block_means_upright():
    data = encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x00garbage")
    assert decode_rgb(data, max_pixels=MANY)[1].orientation == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"hello, I am text", "not_an_image"),
        (b"<!doctype html><html></html>", "not_an_image"),
        (b"\xff\xd8\xff", "truncated"),
        (encoded(RGB, "JPEG")[:-2], "truncated"),
        (encoded(gradient(60, 60), "JPEG")[:700], "truncated"),
        (encoded(RGB, "PNG")[:-20], "truncated"),
        (encoded(RGB, "PNG").replace(b"IDAT", b"IDAX"), "corrupt"),
        (encoded(RGB, "WEBP")[:-30], "corrupt"),
        (encoded(RGB, "BMP")[:-30], "corrupt"),
        (encoded(DEEP.astype(np.float32), "TIFF"), "unsupported"),
        (encoded(DEEP.astype(np.int32), "TIFF"), "unsupported"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "unsupported"),
        (b"8BPS\0\1" + bytes(30), "unsupported"),
        (png(0, 5), "corrupt"),
        (png(100_000, 100_000), "too_large"),
        (png(1001, 1000), "too_large"),
        (png(5, 5), "corrupt"),
        (png(5, 5, (b"tRNS", b"\0\0"), bits=0, colour=0), "corrupt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_picture_has_one_code(data, code):
    assert code_of(data) == code


def with_tag(data, number, value):
    """A TIFF whose tag, of one 32-bit value, has another."""
    entry = struct.pack("<HHI", number, 4, 1)
    at = data.index(entry) + len(entry)
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


@pytest.mark.parametrize("compression", [0, 9, 33003, 34712, 50002])
def test_a_tiff_whose_compression_would_come_out_black_is_refused(compression):
    with pytest.raises(ImageError, match=f"unsupported: TIFF of compression {compression}; convert it"):
        decode_rgb(with_tag(tiff(RGB, 2), 259, compression), max_pixels=MANY)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_tag(tiff(RGB, 2), 259, 50000), "Zstandard compression"),
        (with_tag(tiff(RGB[..., 0], 1), 258, 4), "4-bit samples"),
        (tiff(np.dstack([RGB, RGB]), 2, 0), "6 samples"),
        (tiff(RGB, 32803), "photometric 32803"),
        (encoded(RGB, "JPEG2000", "CMYK"), "colour space 12"),
        (encoded(RGB, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc3\0\x11\x08"), "coding process 3, 8-bit"),
        (encoded(RGB, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "coding process 1, 12-bit"),
    ],
)
def test_what_the_decoder_does_not_read_is_not_called_damaged(data, reason):
    with pytest.raises(ImageError, match=f"unsupported: .* with .*{reason}.* cannot be decoded; .*convert it"):
        decode_rgb(data, max_pixels=MANY)


@pytest.mark.parametrize(
    ("kind", "height", "width"), [("PNG", 1, 1_000_001), ("PNG", 1_000_001, 1), ("BMP", 2**20 + 1, 1)]
)
def test_a_side_too_long_for_the_decoder_is_not_called_damaged(kind, height, width):
    data = encoded(np.zeros((height, width), np.uint8), kind)
    with pytest.raises(ImageError, match=f"unsupported: {width}x{height} {kind}: too long a side.*cut it"):
        decode_rgb(data, max_pixels=2 * MANY)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (-20, "the PNG ends inside its chunk b'IDAT'"),
        (-12, "the PNG ends before its chunk b'IEND'"),
        (-9, "the PNG ends before its chunk b'IEND'"),
        (-1, "the PNG ends inside its chunk b'IEND'"),
        (42, "the PNG ends inside its chunk b'IDAT'"),
        (24, "the PNG header ends early"),
        (20, "the PNG header ends early"),
    ],
)
def test_a_png_says_where_it_ends(end, reason):
    with pytest.raises(ImageError, match=re.escape(reason)) as caught:
        decode_rgb(encoded(RGB, "PNG")[:end], max_pixels=MANY)
    assert caught.value.code == "truncated"


def test_a_wrong_checksum_inside_a_png_is_corrupt():
    data = bytearray(encoded(RGB, "PNG"))
    data[data.index(b"IDAT") + 10] ^= 1
    assert code_of(bytes(data)) == "corrupt"


def test_the_size_cap_names_the_pixels():
    with pytest.raises(ImageError, match=r"100000x100000 = 10000000000 pixels, more than max_pixels = 99"):
        decode_rgb(png(100_000, 100_000), max_pixels=99)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1)])
def test_extreme_shapes_decode(size):
    pixels = np.full((*size, 3), 7, np.uint8)
    assert (decode_rgb(encoded(pixels, "PNG"), max_pixels=MANY)[0] == pixels).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF"])
def test_random_damage_gives_a_picture_or_an_image_error(kind):
    rng = np.random.default_rng(0)
    data = encoded(RGB, kind)
    for _ in range(60):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        for _ in range(3):
            damaged[rng.integers(0, len(damaged))] = rng.integers(0, 256)
        try:
            image, info = decode_rgb(bytes(damaged), max_pixels=MANY)
        except ImageError:
            continue
        assert image.shape == (info.height, info.width, 3)


def test_reading_names_what_is_wrong_with_a_path(tmp_path):
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name, code in [
        ("absent.jpg", "missing"),
        ("empty.jpg/x.jpg", "missing"),
        ("a" * 300, "missing"),
        ("nul\0.jpg", "missing"),
        ("empty.jpg", "empty"),
        ("pipe.jpg", "not_a_file"),
        ("loop.jpg", "io_error"),
        ("", "is_a_directory"),
    ]:
        with pytest.raises(ImageError) as caught:
            read_bytes(f"{tmp_path}/{name}")
        assert caught.value.code == code, name


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_permission(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(ImageError, match="permission"):
        read_bytes(str(path))


def test_passing_errors_are_tried_again_and_lasting_ones_are_not():
    def failing(*numbers):
        left = list(numbers)
        calls.clear()

        def call():
            calls.append(1)
            if left:
                raise OSError(left.pop(0), "failed")
            return "data"

        return call

    calls = []
    assert retry_transient(failing(errno.ESTALE, errno.EIO), (0, 0)) == "data"
    with pytest.raises(OSError, match="failed"):
        retry_transient(failing(errno.EIO, errno.EIO, errno.EIO), (0, 0))
    assert len(calls) == 3
    with pytest.raises(PermissionError):
        retry_transient(failing(errno.EACCES), (0, 0))
    assert len(calls) == 1


def test_a_frame_is_the_picture_of_its_ref(tmp_path):
    name = os.fsdecode(b"line\nbreak \xff.png")
    path = tmp_path / name
    path.write_bytes(encoded(RGB, "PNG"))
    ref = ImageRef(name, str(path))
    frame = load_frame(ref, max_pixels=MANY, min_side=1)
    assert frame.ref is ref
    assert (frame.image_rgb == RGB).all()
    with pytest.raises(ImageError, match=f"too_small: {W}x{H} px"):
        load_frame(ref, max_pixels=MANY, min_side=H + 1)
    with pytest.raises(ImageError, match="bad_label: line 3"):
        load_frame(ImageRef(name, str(path), problem=Problem("bad_label", "line 3")), max_pixels=MANY, min_side=1)


def test_a_replaced_image_open_is_never_asked(monkeypatch):
    def replaced(*args, **kwargs):
        raise AssertionError("ultralytics replaces Image.open and may call pip")

    data = encoded(RGB, "AVIF")
    monkeypatch.setattr(Image, "open", replaced)
    assert decode_rgb(data, max_pixels=MANY)[0].shape == (H, W, 3)
    assert code_of(b"no picture at all") == "not_an_image"
