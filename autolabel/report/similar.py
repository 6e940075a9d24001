"""Pictures that look alike, found by perceptual hashes: small, quick, and blind to size and compression.

There are two, of 64 bits each. dHash (Krawetz, "Kind of Like That", 2013): a grey picture of 9 x 8 pixels, one bit for
each pixel that is brighter than its left neighbour. pHash (Zauner, "Implementation and Benchmarking of Perceptual Image
Hash Functions", 2010): a grey picture of 32 x 32 pixels, one bit for each of its frequencies 1 to 8, across and down,
that is clearly above their median (in a symmetric picture half of them are only noise). Two pictures are alike when
both hashes differ in `max_bits` bits at most. One alone is not enough: on a plain background most bits of dHash are 0,
whatever stands on it. Flat pictures have no hash: noise decides their bits. Reads files only.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ImageError
from autolabel.core.types import ImageRecord, Int64, UInt8

UInt64 = NDArray[np.uint64]

_THREADS = 4
_FLAT = 2.0
"""Standard deviation of the small grey picture below which there is nothing to compare."""
_CLEARLY = 0.02
"""Of the strongest frequency."""


@dataclass(frozen=True, slots=True)
class Alike:
    """Records that look alike, in their order; a chain counts, so the first and the last may differ more."""

    records: tuple[ImageRecord, ...]
    splits: frozenset[str]


@dataclass(frozen=True, slots=True)
class Search:
    """What was found among `compared` pictures; `flat` and `unread` ones were left out."""

    groups: tuple[Alike, ...]
    compared: int
    flat: int
    unread: int


def find_alike(
    records: Sequence[ImageRecord], max_bits: int, progress: Callable[[int], None] = lambda done: None
) -> Search:
    """Groups of pictures that look alike, the largest first. Opens every record's picture once."""
    hashes, kept, flat, unread = [], [], 0, 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for record, found in zip(records, pool.map(_hash_of, records), strict=True):
            progress(1)
            if found is None:
                unread += 1
            elif found == ():
                flat += 1
            else:
                hashes.append(found)
                kept.append(record)
    groups = group_alike(np.array(hashes, np.uint64).reshape(-1, 2), max_bits)
    alike = [tuple(kept[i] for i in group) for group in groups]
    alike.sort(key=lambda members: (-len(members), members[0].image_id))
    found_groups = tuple(Alike(members, frozenset(r.split or "" for r in members)) for members in alike)
    return Search(found_groups, len(kept), flat, unread)


def group_alike(hashes_N2: UInt64, max_bits: int) -> list[list[int]]:  # noqa: N803
    """Rows that are linked by pairs of which both columns differ in `max_bits` bits at most; each group sorted.

    Exact, and far from N x N comparisons: cut into `max_bits` + 1 pieces, each column of a pair has one that is equal.
    """
    different, which = np.unique(hashes_N2, axis=0, return_inverse=True)
    parent = np.arange(len(different))
    for keys in _keys(different, max_bits):
        for a, b in _pairs_of_equals(keys, parent):
            close = np.bitwise_count(different[a] ^ different[b]).max(axis=1) <= max_bits
            _join(parent, a[close], b[close])
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row, root in enumerate(_roots(parent, which.reshape(-1)).tolist()):
        groups[root].append(row)
    return [group for group in groups.values() if len(group) > 1]


def perceptual_hashes(grey: UInt8) -> tuple[int, int] | tuple[()]:
    """dHash and pHash, 64 bits each, of a grey picture (H, W); () for a flat one."""
    import cv2

    steps = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    if float(steps.std()) < _FLAT:
        return ()
    waves = cv2.dct(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32))[1:9, 1:9]
    return _bits(steps[:, 1:] > steps[:, :-1]), _bits(waves > np.median(waves) + _CLEARLY * np.abs(waves).max())


def _bits(set_: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(set_.reshape(-1)).tobytes(), "big")


def _hash_of(record: ImageRecord) -> tuple[int, int] | tuple[()] | None:
    """None when the picture is gone, changed, or in a form that is not decoded here."""
    grey = _small_grey(record)
    return None if grey is None else perceptual_hashes(grey)


def _small_grey(record: ImageRecord) -> UInt8 | None:
    """Upright grey, decoded at an eighth of the size where the format can: a hash needs no more."""
    import cv2

    from autolabel.ops.images import read_bytes
    from autolabel.ops.orientation import upright_image

    assert record.info is not None, "only decoded pictures are compared"
    try:
        data = read_bytes(record.path)
    except ImageError:
        return None
    # Only bytes that were decoded before are decoded here, so a header cannot ask for too much.
    if record.info.sha256 and hashlib.sha256(data).hexdigest() != record.info.sha256:
        return None
    smallest = min(record.info.size_hw)
    reduced = (
        cv2.IMREAD_REDUCED_GRAYSCALE_8
        if smallest >= 256
        else cv2.IMREAD_REDUCED_GRAYSCALE_4
        if smallest >= 128
        else cv2.IMREAD_GRAYSCALE
    )
    try:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), reduced | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if grey is None or not grey.size:
        return None
    return np.ascontiguousarray(upright_image(np.asarray(grey, np.uint8), record.info.orientation))


def _keys(hashes_N2: UInt64, max_bits: int) -> Iterator[Int64]:  # noqa: N803
    """A close pair has equal keys in one of these at least."""
    for first in _pieces(hashes_N2[:, 0], max_bits + 1):
        for second in _pieces(hashes_N2[:, 1], max_bits + 1):
            yield first << 31 | second


def _pieces(hashes: UInt64, count: int) -> Iterator[Int64]:
    """The 64 bits in `count` pieces of nearly equal length; of a long piece 31 bits are enough to tell most apart."""
    ends = [round(i * 64 / count) for i in range(count + 1)]
    for low, high in pairwise(ends):
        mask = np.uint64((1 << min(high - low, 31)) - 1)
        yield ((hashes >> np.uint64(low)) & mask).astype(np.int64)


def _pairs_of_equals(keys: Int64, parent: Int64) -> Iterator[tuple[Int64, Int64]]:
    """Pairs of rows with equal keys: neighbours in sorted order first, then those two apart, and so on.

    Where all rows of a key are joined already (thousands of frames of one camera) there is nothing to ask.
    """
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    if not len(starts):
        return
    roots = _roots(parent, order)
    mixed = np.minimum.reduceat(roots, starts) != np.maximum.reduceat(roots, starts)
    order = order[np.repeat(mixed, np.diff(starts, append=len(order)))]
    ordered, first = keys[order], np.arange(len(order))
    for apart in range(1, len(order)):
        first = first[: np.searchsorted(first, len(order) - apart)]
        first = first[ordered[first] == ordered[first + apart]]
        if not len(first):
            return
        yield order[first], order[first + apart]


def _join(parent: Int64, a: Int64, b: Int64) -> None:
    roots_a, roots_b = _roots(parent, a), _roots(parent, b)
    apart = roots_a != roots_b
    for one, other in zip(roots_a[apart].tolist(), roots_b[apart].tolist(), strict=True):
        low, high = sorted((_root(parent, one), _root(parent, other)))
        parent[high] = low


def _roots(parent: Int64, rows: Int64) -> Int64:
    found = parent[rows]
    while (found != parent[found]).any():
        found = parent[found]
    parent[rows] = found
    return found


def _root(parent: Int64, row: int) -> int:
    while parent[row] != row:
        row = int(parent[row])
    return row
