"""Label Studio's brush: a bit stream of run lengths over the four channels of every pixel, row by row.

A header of 53 bits: the number of values (32), the word size - 1 (5), the widths of the four length fields - 1
(4 each). Then blocks: one bit "repeat", two bits naming a length field, that field with the length - 1, and one
word to repeat, or without "repeat" as many words as the length says. Zero bits fill the last byte.

Ours has words of 8 bits and fields of 3, 4, 8 and 16; the mask is in every channel, 255 inside: the tool shows
the alpha channel, and a 1 there is invisible.
"""

# Numba's decorators carry no types.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import numpy as np
from numba import njit

from autolabel.core.types import Int64, Rle, UInt8
from autolabel.ops.row_rle import from_crop_changes, image_runs

_CHANNELS = 4
_WORD = 8
_FIELDS = np.array([3, 4, 8, 16])
_LONGEST = 1 << 16
_HEADER_BITS = 53
_MAX_PIXELS = 1 << 28


def encode_brush(rle: Rle) -> bytes:
    """The bytes of `label_studio_sdk.converter.brush.mask2rle(255 * mask)`. Raises ValueError from 2**30 pixels on."""
    height, width = rle.size_hw
    if height * width * _CHANNELS >= 1 << 32:
        raise ValueError(f"{width}x{height} px are more than the format can count")
    lengths, words = _blocks(image_runs(rle) * _CHANNELS)
    field = np.searchsorted(1 << _FIELDS[:3], lengths)
    bits = _FIELDS[field]
    tokens = (((4 | field) << bits) | (lengths - 1)) << _WORD | words
    header = [height * width * _CHANNELS, _WORD - 1, *(_FIELDS - 1).tolist()]
    values = np.concatenate([np.array(header, np.int64), tokens])
    return _packed(values, np.concatenate([[32, 5, 4, 4, 4, 4], bits + 3 + _WORD]))


def decode_brush(data: bytes, size_hw: tuple[int, int]) -> Rle:
    """Any such stream with words of 8 bits: inside is where alpha is not 0, as in the tool's own conversions.

    Raises ValueError for another image size, before anything is allocated, and for a stream that is cut or
    does not fit.
    """
    height, width = size_hw
    stream = int.from_bytes(data[:8].ljust(8, b"\0"), "big") >> (64 - _HEADER_BITS)
    if len(data) * 8 < _HEADER_BITS or stream >> 21 != height * width * _CHANNELS or height * width > _MAX_PIXELS:
        raise ValueError(f"the brush is not of a {width}x{height} image")
    if (stream >> 16) & 31 != _WORD - 1:
        raise ValueError(f"the brush has words of {((stream >> 16) & 31) + 1} bits, not {_WORD}")
    fields = np.array([((stream >> shift) & 15) + 1 for shift in (12, 8, 4, 0)])
    changes, damage = _changes(np.frombuffer(data, np.uint8), fields, height * width)
    if damage:
        raise ValueError(f"the brush is damaged at bit {damage}")
    return from_crop_changes(changes, (0, 0, width, height), size_hw)


def _blocks(runs: Int64) -> tuple[Int64, Int64]:
    """Lengths of 1..65536, and the word of each: runs that are longer are cut, empty ones left out."""
    words = np.arange(len(runs)) % 2 * 255
    runs, words = runs[runs > 0], words[runs > 0]
    pieces = (runs - 1) // _LONGEST + 1
    last = np.cumsum(pieces) - 1
    lengths = np.full(int(pieces.sum()), _LONGEST, np.int64)
    lengths[last] = runs - (pieces - 1) * _LONGEST
    return lengths, np.repeat(words, pieces)


def _packed(values: Int64, bits: Int64) -> bytes:
    """Each value's lowest `bits` one after the other, most significant first; one to eight zero bits follow."""
    ends = np.cumsum(bits)
    place = np.repeat(ends, bits) - 1 - np.arange(int(ends[-1]))
    stream = (np.repeat(values, bits) >> place) & 1
    return np.packbits(stream.astype(np.uint8)).tobytes() + (b"" if ends[-1] % 8 else b"\0")


@njit(nogil=True, cache=True)
def _changes(data: UInt8, fields: Int64, pixels: int) -> tuple[Int64, int]:
    """Where each run of pixels whose alpha is not 0 begins and ends, from the blocks of a stream; and the bit where it
    is damaged, 0 where it is not."""
    found = np.empty(len(data) + 2, np.int64)  # no block, and no four words, have less than a byte
    count, inside = 0, False
    at, done, total = _HEADER_BITS, 0, pixels * _CHANNELS
    while done < total:
        head = _bits(data, at, 3)
        bits = fields[head & 3]
        end = done + _bits(data, at + 3, bits) + 1
        at += 3 + bits
        words = 1 if head & 4 else end - done
        if end > total or at + words * _WORD > len(data) * 8:
            return found[:0], at
        # Channel 3 of pixel k is value 4 k + 3; a repeated word is the same for all pixels.
        first, last = done // _CHANNELS, end // _CHANNELS
        for pixel in range(first, min(last, first + 1) if head & 4 else last):
            value = 0 if head & 4 else pixel * _CHANNELS + _CHANNELS - 1 - done
            if (_bits(data, at + value * _WORD, _WORD) != 0) != inside:
                found[count] = pixel
                count += 1
                inside = not inside
        at += words * _WORD
        done = end
    if inside:
        found[count] = pixels
        count += 1
    return found[:count], 0


@njit(nogil=True, cache=True)
def _bits(data: UInt8, at: int, bits: int) -> int:
    """Up to 16 bits from bit `at` on; past the end they are zero."""
    start, window = at >> 3, 0
    for byte in range(start, start + 3):
        window = window << 8 | (int(data[byte]) if byte < len(data) else 0)
    return (window >> (24 - (at & 7) - bits)) & ((1 << bits) - 1)
