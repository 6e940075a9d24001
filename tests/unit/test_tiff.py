"""TIFFs in strips, tiles and planes: whole ones are read as they are meant, damaged ones fail."""

import io
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from autolabel.core.errors import ImageError
from autolabel.ops.images import decode_rgb
from tests.unit.test_images import on_white

MANY = 10**6
H, W = 37, 45
Y, X = np.mgrid[0:H, 0:W]
RGB = np.stack([X * 5, Y * 6, (X * 7 + Y * 11) % 256], axis=2).astype(np.uint8)
ALPHA = (X * 5 + 20).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])
GREY = RGB[..., 2]
LAYOUTS = {"strips": {"rows": 8}, "one strip": {"rows": H}, "tiles": {"tile": 32}}
NONE, LZW, JPEG, DEFLATE, PACKBITS = 1, 5, 7, 8, 32773
NAMES = {LZW: "tiff_lzw", PACKBITS: "packbits"}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def through_pillow(pixels, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def compressed(block, compression):
    if compression == NONE:
        return block.tobytes()
    if compression == DEFLATE:
        return zlib.compress(block.tobytes())
    if compression == JPEG:
        return through_pillow(block[..., 0], "JPEG")
    data = through_pillow(block.reshape(len(block), -1), "TIFF", compression=NAMES[compression], strip_size=MANY)
    tags = Image.open(io.BytesIO(data)).tag_v2
    return data[tags[273][0] :][: tags[279][0]]


def cut(pixels, rows=None, tile=None):
    if tile is None:
        return [pixels[y : y + rows] for y in range(0, H, rows)]
    whole = np.pad(pixels, [(0, -H % tile), (0, -W % tile), (0, 0)])
    return [whole[y : y + tile, x : x + tile] for y in range(0, H, tile) for x in range(0, W, tile)]


def tiff(
    pixels,
    photometric=2,
    compression=NONE,
    layout="strips",
    *,
    tags=None,
    in_planes=False,
    damage=lambda blocks: blocks,
):
    """`tags` are added, replace others, or, where None, remove them; `damage` gets the blocks as they are stored."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    samples = pixels.shape[2]
    planes = np.split(pixels, samples, axis=2) if in_planes else [pixels]
    blocks = [block for plane in planes for block in cut(plane, **LAYOUTS[layout])]
    blocks = damage([compressed(np.ascontiguousarray(block), compression) for block in blocks])
    starts = [8 + sum(map(len, blocks[:at])) for at in range(len(blocks))]
    place = [starts, [len(block) for block in blocks]]
    size = LAYOUTS[layout]
    found = {256: [W], 257: [H], 258: [8] * samples, 259: [compression], 262: [photometric], 277: [samples]}
    found |= {284: [1 + in_planes], 317: [1]}
    form = {322: [32], 323: [32]} if "tile" in size else {278: [size["rows"]]}
    found |= form | dict(zip((324, 325) if "tile" in size else (273, 279), place, strict=True)) | (tags or {})
    found = {tag: values for tag, values in found.items() if values is not None}
    ifd = 8 + sum(map(len, blocks))
    far_at, far, entries = ifd + 6 + 12 * len(found), b"", b""
    for tag, values in sorted(found.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        inline = packed if len(values) == 1 else struct.pack("<I", far_at + len(far))
        entries += struct.pack("<HHI", tag, 4, len(values)) + inline
        far += packed if len(values) > 1 else b""
    head = b"II*\0" + struct.pack("<I", ifd)
    return head + b"".join(blocks) + struct.pack("<H", len(found)) + entries + bytes(4) + far


def second(change, blocks):
    """Changes the second block, or the only one."""
    at = min(1, len(blocks) - 1)
    return [*blocks[:at], change(blocks[at]), *blocks[at + 1 :]]


def noise(block):
    middle = len(block) // 2
    return block[:middle] + bytes(byte ^ 0xA5 for byte in block[middle : middle + 20]) + block[middle + 20 :]


def first_half(block):
    return block[: len(block) // 2]


def hole(block):
    return first_half(block).ljust(len(block), b"\0")


def fails(data):
    with pytest.raises(ImageError, match="corrupt: a strip or tile of the TIFF is missing or damaged"):
        decode_rgb(data, max_pixels=MANY)


@layouts
@pytest.mark.parametrize(
    ("compression", "change"),
    [
        (NONE, first_half),
        (LZW, noise),
        (LZW, hole),
        (LZW, first_half),
        (DEFLATE, noise),
        (DEFLATE, hole),
        (DEFLATE, first_half),
        (PACKBITS, hole),
        (PACKBITS, first_half),
        (JPEG, hole),
        (JPEG, first_half),
    ],
)
def test_a_damaged_block_fails(layout, compression, change):
    pixels, photometric = (GREY, 1) if compression == JPEG else (RGB, 2)
    fails(tiff(pixels, photometric, compression, layout, damage=partial(second, change)))


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, PACKBITS])
@pytest.mark.parametrize(("layout", "tag"), [("strips", 273), ("one strip", 273), ("tiles", 324)])
@pytest.mark.parametrize("start", [0, 10**6])
def test_a_block_that_is_nowhere_fails(compression, layout, tag, start):
    count = len(cut(RGB, **LAYOUTS[layout]))
    fails(tiff(RGB, 2, compression, layout, tags={tag: [8] * (count - 1) + [start]}))


def test_a_strip_that_is_said_to_be_shorter_than_its_rows_fails():
    rows = 8 * W * 3
    fails(tiff(RGB, tags={279: [rows, rows - 1, rows, rows, 5 * W * 3]}))


def test_fewer_strips_than_rows_fail_in_eight_and_in_sixteen_bits():
    fails(tiff(RGB, tags={273: [8, 8 + 8 * W * 3], 279: [8 * W * 3] * 2}))
    deep = tiff(np.repeat(GREY, 2, axis=1), 1, tags={256: [W], 258: [16], 273: [8, 8 + 16 * W], 279: [16 * W] * 2})
    fails(deep)


def test_a_file_that_ends_early_fails():
    pixels = tiff(RGB)
    body, ifd = pixels[8 : 8 + RGB.nbytes], pixels[8 + RGB.nbytes :]
    at = struct.unpack("<H", ifd[:2])[0] * 12 + 6
    far = ifd[at:]
    # The directory before the pixels, as cameras and scanners write it.
    starts = [8 + len(ifd) + 8 * W * 3 * strip for strip in range(5)]
    head = bytearray(b"II*\0" + struct.pack("<I", 8) + ifd[:at] + far)
    for entry in range(10, 8 + at - 4, 12):
        if struct.unpack_from("<I", head, entry + 4)[0] > 1:
            place = struct.unpack_from("<I", head, entry + 8)[0] - RGB.nbytes
            struct.pack_into("<I", head, entry + 8, place)
            if struct.unpack_from("<H", head, entry)[0] == 273:
                struct.pack_into("<5I", head, place, *starts)
    whole = bytes(head) + body
    assert (decode_rgb(whole, max_pixels=MANY)[0] == RGB).all()
    fails(whole[:-1])
    fails(whole[: len(whole) // 2])


@layouts
@pytest.mark.parametrize("in_planes", [False, True])
@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, PACKBITS])
def test_whole_ones_are_read_as_they_are_meant(compression, in_planes, layout):
    read = partial(decode_rgb, max_pixels=MANY)
    form = {"compression": compression, "layout": layout, "in_planes": in_planes}
    assert (read(tiff(RGB, **form))[0] == RGB).all()
    assert (read(tiff(GREY, 1, **form))[0] == GREY[..., None]).all()
    assert (read(tiff(GREY, 0, **form))[0] == 255 - GREY[..., None]).all()
    assert (read(tiff(RGBA, tags={338: [0]}, **form))[0] == RGB).all()
    assert (read(tiff(np.dstack([GREY, ALPHA]), 1, tags={338: [0]}, **form))[0] == GREY[..., None]).all()


@layouts
@pytest.mark.parametrize("extra", [1, 2], ids=["premultiplied", "straight"])
@pytest.mark.parametrize(("samples", "in_planes"), [(2, False), (4, False), (4, True)])
def test_alpha_of_eight_bits_is_laid_on_white(samples, extra, in_planes, layout):
    straight = RGBA if samples == 4 else np.dstack([GREY, ALPHA])
    pixels = straight.copy()
    if extra == 1:
        pixels[..., :-1] = (straight[..., :-1] * (ALPHA[..., None] / 255)).astype(np.uint8)
    data = tiff(pixels, 2 if samples == 4 else 1, DEFLATE, layout, tags={338: [extra]}, in_planes=in_planes)
    image, info = decode_rgb(data, max_pixels=MANY)
    shown = on_white(through_pillow(straight, "PNG"))
    assert np.abs(image.astype(int) - shown).max() <= (1 if extra == 2 else 2)
    assert info.notes == ("alpha_composited",)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"layout": "tiles"}, "a second band in tiles"),
        ({"in_planes": True, "tags": {338: [2]}}, "alpha in a plane"),
        ({"in_planes": True, "tags": {338: [1]}}, "alpha in a plane"),
    ],
)
def test_a_band_beside_grey_that_would_be_read_as_another_picture_is_refused(form, said):
    with pytest.raises(ImageError, match=f"unsupported: grey TIFF with {said}.*convert it"):
        decode_rgb(tiff(np.dstack([GREY, ALPHA]), 1, **form), max_pixels=MANY)


@pytest.mark.parametrize(
    "harmless",
    [
        {"tags": {65000: [7]}},
        {"tags": {34665: [3]}},
        {"layout": "one strip", "tags": {279: None}},
        {"layout": "one strip", "tags": {279: [0]}},
        {"layout": "one strip", "tags": {278: None}},
        {"layout": "one strip", "tags": {278: [2**32 - 1]}},
        {"tags": {284: None}},
        {"compression": DEFLATE, "damage": partial(second, lambda block: block + b"more")},
        {"compression": LZW, "damage": partial(second, lambda block: block + b"more")},
    ],
)
def test_what_libtiff_reads_whole_is_read(harmless):
    assert (decode_rgb(tiff(RGB, **harmless), max_pixels=MANY)[0] == RGB).all()


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_lzw"])
def test_differences_are_undone(predictor, compression):
    data = through_pillow(RGB, "TIFF", compression=compression, tiffinfo={317: predictor}, strip_size=1000)
    assert (decode_rgb(data, max_pixels=MANY)[0] == RGB).all()


def test_damage_in_a_second_page_is_not_looked_for():
    buffer = io.BytesIO()
    pages = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    data = buffer.getvalue()
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    start, size = image.tag_v2[273][0], image.tag_v2[279][0]
    first = decode_rgb(data[:start] + bytes(size) + data[start + size :], max_pixels=MANY)
    assert (first[0] == RGB).all()
    assert first[1].notes == ("multi_frame",)
