"""Binary masks between arrays and compressed COCO run lengths. The only file that calls pycocotools' mask functions.

Arrays are (H, W), nonzero inside. A crop is the part of a mask inside its tight box; `x0, y0` is where it
lies. Nothing here knows about rings (polygons.py), parts or holes (components.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from autolabel.core.types import Instance, Int64, Polygon, Rle, UInt8
from autolabel.ops.rle import crop_to_rle, runs_to_rle

_SECOND_RUN = re.compile(rb"[P-o]*[0-O]P*[1-OQ-o]")
"""A number (its last digit is below P), and another one that is not 0."""
_SHORT_PX = 10_000
_LONGEST_PX = 20_000_000


def encode(mask: NDArray[np.bool_] | UInt8) -> Rle:
    """(H, W) to run lengths. Any nonzero value is inside."""
    if mask.ndim != 2:
        raise ValueError(f"a mask must have shape (H, W), got {mask.shape}")
    size_hw = int(mask.shape[0]), int(mask.shape[1])
    inside = mask if mask.dtype == np.bool_ else mask != 0
    rows = np.flatnonzero(inside.any(axis=1))
    if not len(rows):
        return encode_crop(np.zeros((0, 0), np.uint8), 0, 0, size_hw)
    # Column by column is how masks are encoded, and what turning costs: most objects are a small part of their picture.
    inside = inside[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(inside.any(axis=0))
    crop = inside[:, columns[0] : columns[-1] + 1].view(np.uint8)
    return encode_crop(crop, int(columns[0]), int(rows[0]), size_hw)


def decode(rle: Rle) -> UInt8:
    """Run lengths to (H, W) of 0 and 1, column-major in memory. Raises ValueError for a damaged string.

    Not by pycocotools, whose `decode` trusts the string and warns on every call with numpy 2.
    """
    height, width = rle.size_hw
    return _values(run_lengths(rle)).reshape(width, height).T


def mask_of(instance: Instance) -> Rle:
    """The mask of an object that has one: whoever calls this has left out the others."""
    assert instance.mask is not None, "objects without a mask are left out first"
    return instance.mask


def area_px(rle: Rle) -> int:
    """Number of pixels inside."""
    return int(coco_mask.area(_coco(rle)))


def is_empty(rle: Rle) -> bool:
    """Whether no pixel is inside; looks at the first two runs alone where that is enough."""
    return not begin_with_pixels([rle.counts]) and not area_px(rle)


def begin_with_pixels(strings: Iterable[bytes]) -> bool:
    """Whether the second run of each string, the first of pixels inside, has any: so it is but for empty masks and
    strings that nobody needs to write."""
    return all(map(_SECOND_RUN.match, strings))


def bounds_xyxy(rle: Rle) -> tuple[int, int, int, int] | None:
    """The tight half-open box in pixels; None for an empty mask."""
    if not area_px(rle):  # pycocotools has a box of runs that are there and have no pixel
        return None
    x, y, w, h = (int(v) for v in coco_mask.toBbox(_coco(rle)))
    return x, y, x + w, y + h


def iou(a: Rle, b: Rle) -> float:
    """Intersection over union in pixels; 0 when either is empty. Raises ValueError for masks of two sizes."""
    if a.size_hw != b.size_hw:
        raise ValueError(f"masks of two sizes: {a.size_hw} and {b.size_hw}")
    return float(coco_mask.iou([_coco(a)], [_coco(b)], [0])[0, 0])


def ious(a: Sequence[Rle], b: Sequence[Rle]) -> NDArray[np.float64]:
    """`iou` of each with each, (len(a), len(b)). Raises ValueError for masks of two sizes."""
    return _pairwise(a, b, crowd=False)


def covered(a: Sequence[Rle], b: Sequence[Rle]) -> NDArray[np.float64]:
    """How much of each `a` lies in each `b`, (len(a), len(b)): COCO's measure for a crowd region `b`."""
    return _pairwise(a, b, crowd=True)


def run_lengths(rle: Rle) -> Int64:
    """Lengths of the runs in column-major order, starting with background.

    Raises ValueError when they do not cover the image exactly, as a damaged string does.
    """
    runs = _parse_counts(rle.counts)
    height, width = rle.size_hw
    if (runs < 0).any() or int(runs.sum()) != height * width:
        raise ValueError(f"run lengths cover {int(runs.sum())} of {height * width} px of a {width}x{height} mask")
    return runs


def decode_crop(rle: Rle) -> tuple[UInt8, int, int]:
    """The mask inside its tight box as a row-major (h, w) array of 0 and 1, and its `x0, y0`.

    Costs what the object's columns cost, not what the image costs. An empty mask gives a (0, 0) array.
    """
    bounds = bounds_xyxy(rle)
    if bounds is None:
        return np.zeros((0, 0), np.uint8), 0, 0
    x0, y0, x1, y1 = bounds
    height = rle.size_hw[0]
    ends = np.clip(np.cumsum(run_lengths(rle)), x0 * height, x1 * height) - x0 * height
    lengths = np.diff(ends, prepend=0)
    columns = _values(lengths).reshape(x1 - x0, height)
    return np.ascontiguousarray(columns[:, y0:y1].T), x0, y0


def encode_crop(crop: UInt8, x0: int, y0: int, size_hw: tuple[int, int]) -> Rle:
    """The mask of an image of `size_hw` that is `crop` at `x0, y0` and empty elsewhere. Raises ValueError for a crop
    that is not inside the image."""
    h, w = crop.shape
    if not (0 <= y0 <= size_hw[0] - h and 0 <= x0 <= size_hw[1] - w):
        raise ValueError(f"a crop of {w}x{h} px at {x0}, {y0} does not lie in {size_hw[1]}x{size_hw[0]} px")
    return crop_to_rle(crop, x0, y0, size_hw)


def from_changes(changes: Int64, size_hw: tuple[int, int]) -> Rle:
    """The mask whose pixels, column by column, change between outside and inside at these places, ascending and from 0
    to H * W; where two meet nothing changes. Costs what the changes cost."""
    first = np.flatnonzero(np.diff(changes, prepend=-1))
    changes = changes[first[np.diff(first, append=len(changes)) % 2 == 1]]
    runs = np.diff(changes, prepend=0, append=size_hw[0] * size_hw[1])
    return runs_to_rle(runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs, size_hw)


def from_polygons(polygons: tuple[Polygon, ...], size_hw: tuple[int, int]) -> Rle:
    """The union of polygons as pycocotools rasterises them: pixel (x, y) covers [x, x+1] x [y, y+1].

    Raises ValueError for an outline so long that it can only be damage.
    """
    height, width = size_hw
    _check_lengths(polygons, size_hw)
    parts = coco_mask.frPyObjects([list(polygon) for polygon in polygons], height, width)
    return Rle(size_hw, coco_mask.merge(parts)["counts"])


def _check_lengths(polygons: tuple[Polygon, ...], size_hw: tuple[int, int]) -> None:
    """pycocotools takes 40 bytes for each pixel of an outline, also outside the picture, and overflows far away.

    An exact outline of noise is 4 px long for each pixel of the picture; more than twice that is damage.
    """
    limit = min(8 * size_hw[0] * size_hw[1] + _SHORT_PX, _LONGEST_PX)
    for polygon in polygons:
        points = np.array(polygon, np.float64).reshape(-1, 2)
        steps = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1)
        length = float(steps.sum() + np.abs(points).max())
        if not length <= limit:  # NaN is not a length either
            h, w = size_hw
            raise ValueError(f"a polygon's outline is {length:.3g} px long, the picture is {w}x{h}")


def union(masks: Iterable[Rle]) -> Rle | None:
    """The pixels of all, which are of one size; None of nothing."""
    found = list(masks)
    if len(found) < 2:
        return next(iter(found), None)
    return Rle(found[0].size_hw, coco_mask.merge([_coco(rle) for rle in found])["counts"])


def _pairwise(a: Sequence[Rle], b: Sequence[Rle], *, crowd: bool) -> NDArray[np.float64]:
    sizes = {rle.size_hw for rle in (*a, *b)}
    if len(sizes) > 1:
        raise ValueError(f"masks of two sizes: {sorted(sizes)}")
    if not a or not b:
        return np.zeros((len(a), len(b)), np.float64)
    found = coco_mask.iou([_coco(rle) for rle in a], [_coco(rle) for rle in b], [int(crowd)] * len(b))
    return np.asarray(found, np.float64).reshape(len(a), len(b))


def _values(lengths: Int64) -> UInt8:
    """Runs of 0 and 1 in turn, written out."""
    return np.repeat((np.arange(len(lengths)) % 2).astype(np.uint8), lengths)


def _coco(rle: Rle) -> dict[str, object]:
    return {"size": list(rle.size_hw), "counts": rle.counts}


def _parse_counts(counts: bytes) -> Int64:
    """COCO's string: 5 bits a byte from 48 up, bit 5 says "more", bit 4 of the last byte is the sign, and from
    the fourth number on each is the difference to the one two before (maskApi.c, rleFrString)."""
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if len(digits) == 0:
        return np.zeros(0, np.int64)
    last = np.flatnonzero((digits & 0x20) == 0)
    if len(last) == 0 or last[-1] != len(digits) - 1:
        raise ValueError("the run-length string ends within a number")
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((digits & 0x1F) << (5 * np.minimum(place, 11)), first)
    negative = (digits[last] & 0x10) != 0
    values[negative] -= np.int64(1) << (5 * np.minimum(last - first + 1, 12)[negative])
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
