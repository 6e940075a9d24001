"""Row-major runs and Label Studio's bit stream, against decoders that are not ours."""

import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolabel.core.types import Rle
from autolabel.ops.brush import decode_brush, encode_brush
from autolabel.ops.masks import area_px, decode, decode_crop, encode, from_changes
from autolabel.ops.row_rle import crop_runs, from_crop_runs, image_runs
from tests.rasters import noise
from tests.records import disc, shapes

SHAPES = {**shapes(), "empty": np.zeros((5, 7), np.uint8), "one": np.ones((1, 1), np.uint8)}


def unpacked(data):
    """The values of a stream, as the format's own JavaScript reads them: bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(count):
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word, fields = read(32), read(5) + 1, [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
        repeated = read(1)
        length = read(fields[read(2)]) + 1
        values += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    return np.array(values, np.uint8)


def packed(bits):
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def header(values, word=8):
    return [f"{values:032b}", f"{word - 1:05b}", *(f"{n - 1:04b}" for n in (3, 4, 8, 16))]


@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES)
def test_all_four_channels_are_255_inside_and_0_outside(mask):
    values = unpacked(encode_brush(encode(mask)))
    assert (values.reshape(*mask.shape, 4) == mask[..., None] * 255).all()


@given(noise(1))
def test_every_mask_comes_back_from_a_brush_and_from_runs(masks):
    rle = encode(masks[0])
    h, w = rle.size_hw
    assert decode_brush(encode_brush(rle), rle.size_hw) == rle
    crop, x0, y0 = decode_crop(rle)
    assert from_crop_runs(crop_runs(crop), (x0, y0, crop.shape[1], crop.shape[0]), (h, w)) == rle
    runs = image_runs(rle)
    assert from_crop_runs(runs, (0, 0, w, h), (h, w)) == rle
    assert (np.repeat(np.arange(len(runs)) % 2, runs).reshape(h, w) == decode(rle)).all()
    assert (runs[1:] > 0).all()


def test_the_example_of_the_format_s_description():
    assert crop_runs(np.array([[1, 1], [1, 0]], np.uint8)).tolist() == [0, 3, 1]
    assert decode(from_crop_runs(np.array([0, 3, 1]), (1, 1, 2, 2), (4, 4))).tolist() == [
        [0, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]


def test_a_mask_costs_its_outline_and_not_the_size_that_it_states():
    side = 1 << 14
    tracemalloc.start()
    try:
        rows = from_crop_runs(np.array([side * side - 1, 1]), (0, 0, side, side), (side, side))
        block = ["1", "11", f"{(1 << 16) - 1:016b}", f"{255:08b}"]
        brush = decode_brush(packed([*header(4 * side * side), *block * (side * side >> 14)]), (side, side))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert (area_px(rows), area_px(brush)) == (1, side * side)
    stripes = np.full(1 << 12, side * 4)
    with pytest.raises(ValueError, match="crosses its columns"):
        from_crop_runs(stripes, (0, 0, side, side), (side, side))


@pytest.mark.parametrize(
    "runs", [[2, 3, 1], [2, 0, 0, 0, 1, 3], [0, 0, 2, 3, 0, 1], [6], [0, 6], [2, 4, 0], [0, 0, 6]]
)
def test_runs_without_a_pixel_change_nothing(runs):
    inside = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    assert from_changes(np.cumsum(runs)[:-1], (3, 2)) == encode(inside.reshape(2, 3).T)
    assert from_crop_runs(np.array(runs), (0, 0, 3, 2), (2, 3)) == encode(inside.reshape(2, 3))


def test_a_run_longer_than_a_field_is_cut():
    rle = encode(np.ones((300, 301), np.uint8))
    assert (unpacked(encode_brush(rle)) == 255).all()
    assert decode_brush(encode_brush(rle), (300, 301)) == rle


def test_the_bytes_of_a_1080p_disc_are_those_of_the_tool_s_own_encoder():
    data = encode_brush(encode(disc(1080, 1920, 960, 540, 400)))
    assert hashlib.sha256(data).hexdigest() == GOLDEN


def test_words_in_a_row_and_soft_edges_are_read_as_the_tool_s_browser_writes_them():
    # One pixel of four different channels as literal words, one with a low alpha, two repeated.
    literal = ["0", "00", f"{8 - 1:03b}", *(f"{v:08b}" for v in (9, 8, 7, 255, 1, 2, 3, 4))]
    repeated = ["1", "00", f"{8 - 1:03b}", f"{0:08b}"]
    data = packed([*header(16), *literal, *repeated])
    assert decode(decode_brush(data, (2, 2))).tolist() == [[1, 1], [0, 0]]


def test_words_that_begin_in_the_middle_of_a_pixel_belong_to_the_right_one():
    start = ["1", "00", f"{2 - 1:03b}", f"{0:08b}"]
    words = ["0", "01", f"{10 - 1:04b}", *(f"{v:08b}" for v in (0, 255, 0, 0, 0, 0, 0, 0, 0, 255))]
    assert decode(decode_brush(packed([*header(12), *start, *words]), (1, 3))).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not of a 2x2"),
        (packed(header(64)), "not of a 2x2"),
        (packed(header(16, word=16)), "words of 16 bits"),
        (packed(header(16)), "damaged"),
        (packed([*header(16), "1", "11", f"{999:016b}", f"{255:08b}"]), "damaged"),
        (encode_brush(encode(np.eye(2, dtype=np.uint8)))[:-3], "damaged"),
    ],
    ids=range(6),
)
def test_a_stream_that_does_not_fit_is_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        decode_brush(data, (2, 2))


@given(st.binary(max_size=60))
def test_no_bytes_do_worse_than_be_refused(data):
    try:
        decode_brush((4 * 4 * 4).to_bytes(4, "big") + data, (4, 4))
    except ValueError as e:
        assert "brush" in str(e)  # noqa: PT017


def test_a_picture_too_large_to_count_is_refused():
    with pytest.raises(ValueError, match="more than the format"):
        encode_brush(Rle((40_000, 40_000), b""))


@pytest.mark.parametrize(
    ("runs", "box"),
    [
        ([0, 3], (1, 1, 2, 2)),
        ([0, 5, -1], (1, 1, 2, 2)),
        ([4], (3, 3, 2, 2)),
        ([4], (-1, 0, 2, 2)),
        ([0], (0, 0, 0, 0)),
    ],
)
def test_runs_that_do_not_fill_their_box_are_refused(runs, box):
    with pytest.raises(ValueError, match="box"):
        from_crop_runs(np.array(runs), box, (4, 4))


@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES)
def test_the_bytes_are_those_of_the_label_studio_sdk(mask):
    sdk = pytest.importorskip("label_studio_sdk.converter.brush", reason="compares with label-studio-sdk")
    assert list(encode_brush(encode(mask))) == sdk.mask2rle(mask * 255)


@pytest.mark.parametrize("mask", [m for m in SHAPES.values() if m.any()])
def test_the_runs_are_those_of_the_cvat_sdk(mask):
    sdk = pytest.importorskip("cvat_sdk.masks", reason="compares with cvat-sdk")
    crop, x0, y0 = decode_crop(encode(mask))
    h, w = crop.shape
    assert [*crop_runs(crop).tolist(), x0, y0, x0 + w - 1, y0 + h - 1] == sdk.encode_mask(mask.astype(bool))


GOLDEN = "c6e5b0d0fea7ad9589836991083c399f3b74cc65ac4c2fabb98e0aa70e4e7560"
"""Of `label_studio_sdk.converter.brush.mask2rle`, version 2.1.2."""
