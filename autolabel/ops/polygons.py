"""Masks as closed rings, exact for the reader each ring is meant for. No simplification that moves a pixel.

Two readers, two conventions, never mixed:

    coco   pycocotools: pixel (x, y) covers [x, x+1] x [y, y+1], so rings run along pixel corners
    yolo   the ultralytics loader: truncates to the pixel and paints the outline, so rings run through pixel
           centres

A ring cannot have a hole, so each hole is reached over a keyhole: a bridge walked out and back. The bridge
runs straight left from the hole's leftmost pixel to the next background, hence over the object alone: it
costs no pixel in either convention, and the holes of a part always form a tree, whatever their number.

A COCO object lists its parts. A YOLO object is one ring, so its parts are first joined by painted lines one
pixel wide along the shortest gaps; only those pixels are wrong. A part smaller than the line that it would
need is left out when that is allowed, since that is wrong in fewer pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import Float32, Int64, Polygon, Rle, UInt8
from autolabel.ops.masks import decode_crop
from autolabel.ops.outline import outline

Ring = NDArray[np.int64]
"""(M, 2) points x, y; the last is joined to the first."""


@dataclass(frozen=True, slots=True, eq=False)
class YoloRing:
    """One object as one ring: `points_xy` (M, 2) float64 pixels, M >= 3, to be divided by the image size.

    `bridge_px` background pixels are painted to join parts; `left_out` parts with `left_out_px` pixels are not in it.
    """

    points_xy: NDArray[np.float64]
    parts: int
    bridge_px: int = 0
    left_out: int = 0
    left_out_px: int = 0


@dataclass(frozen=True, slots=True)
class _Keyhole:
    """`hole` hangs on ring `target` at its point number `at`, and is entered at its own point number `start`."""

    hole: int
    target: int
    at: int
    start: int


@dataclass(frozen=True, slots=True)
class _Gap:
    """The shortest line between two parts, from pixel to pixel, over `px` background pixels."""

    px: int
    a: int
    b: int
    start_xy: tuple[int, int]
    end_xy: tuple[int, int]


def coco_polygons(rle: Rle) -> list[Polygon]:
    """One polygon a part, holes keyholed; pycocotools gives the mask back pixel by pixel. [] when empty."""
    return [tuple(polygon) for polygon in outline(rle).polygons]


def yolo_ring(rle: Rle, *, keep_far_parts: bool = False) -> YoloRing:
    """The object as one ring for the ultralytics loader; exact for one part, holes or not.

    Several parts are joined along the shortest gaps. Unless `keep_far_parts`, a part (with all that hangs on
    it) smaller than its bridge is left out. Raises ValueError for an empty mask.
    """
    crop, x0, y0 = decode_crop(rle)
    if not crop.size:
        raise ValueError("an empty mask has no ring")
    count, labels, stats, _ = cv2.connectedComponentsWithStats(crop, connectivity=8, ltype=cv2.CV_32S)
    parts, bridge_px, left_out, left_out_px = count - 1, 0, 0, 0
    if parts > 1:
        areas = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
        bridges, kept = _choose_bridges(_shortest_gaps(crop, labels, count), areas, keep_far_parts)
        left_out, left_out_px = int((~kept[1:]).sum()), int(areas[1:][~kept[1:]].sum())
        crop = _joined(crop, labels, bridges, kept)
        bridge_px = int(crop.sum()) - int(areas[1:][kept[1:]].sum())
    (ring,) = _simplified_outlines(crop)
    ring = np.resize(ring, (max(3, len(ring)), 2))  # a pixel or a line has fewer: its points again
    return YoloRing(ring + np.array([x0, y0]) + 0.5, parts, bridge_px, left_out, left_out_px)


def yolo_rasterize(ring: NDArray[np.float64] | Float32, size_hw: tuple[int, int]) -> UInt8:
    """(M, 2) fractions of the image to an (H, W) mask of 0 and 1, as `ultralytics.data.utils.polygon2mask` does."""
    height, width = size_hw
    pixels = (np.asarray(ring, np.float32) * np.array([width, height], np.float32)).astype(np.int32)
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [pixels], color=(1,))
    return mask


def yolo_iou(ring: NDArray[np.float64] | Float32, rle: Rle) -> float:
    """IoU of a mask and of what the ultralytics loader makes of `ring` (fractions of the image), as written.

    Works on the box of both; painting does not depend on where the box lies.
    """
    height, width = rle.size_hw
    pixels = (np.asarray(ring, np.float32) * np.array([width, height], np.float32)).astype(np.int32)
    crop, x0, y0 = decode_crop(rle)
    low = np.maximum(np.minimum(pixels.min(axis=0), [x0, y0]), 0)
    high = np.maximum(pixels.max(axis=0) + 1, [x0 + crop.shape[1], y0 + crop.shape[0]])
    w, h = (np.minimum(high, [width, height]) - low).tolist()
    painted = np.zeros((h, w), np.uint8)
    cv2.fillPoly(painted, [pixels - low.astype(np.int32)], color=(1,))
    left, top = (np.array([x0, y0]) - low).tolist()
    both = int((painted[top : top + crop.shape[0], left : left + crop.shape[1]] & crop).sum())
    either = int(painted.sum()) + int(crop.sum()) - both
    return both / either if either else 0.0


# --- rings ---------------------------------------------------------------------------------------------------


def _simplified_outlines(crop: UInt8) -> list[Ring]:
    rings, parents = _trace(crop)
    keyholes = _keyholes(crop, rings, parents) if (parents >= 0).any() else {}
    return [_without_collinear(_spliced(i, rings, keyholes)) for i in np.flatnonzero(parents < 0).tolist()]


def _trace(crop: UInt8) -> tuple[list[Ring], Int64]:
    """Every ring in unit steps, and for a hole the number of its outer ring (-1 for outer rings)."""
    found, hierarchy = cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0, :].astype(np.int64) for contour in found], hierarchy[0, :, 3].astype(np.int64)


def _keyholes(crop: UInt8, rings: list[Ring], parents: Int64) -> dict[int, list[_Keyhole]]:
    """Where each hole hangs, by the ring it hangs on."""
    height, width = crop.shape
    _, regions = cv2.connectedComponents(np.pad(1 - crop, 1, constant_values=1), connectivity=4)
    holes = np.flatnonzero(parents >= 0).tolist()
    entries = {hole: _leftmost(rings[hole]) for hole in holes}
    first = 1  # a ring of pixel centres runs one pixel left of the hole
    ring_of = {int(regions[y + 1, x + 1 + first]): hole for hole, (x, y) in entries.items()}
    wanted = []
    for hole, (x, y) in entries.items():
        background = np.flatnonzero(crop[y, : x + first] == 0)
        stop = int(background[-1]) if len(background) else -1
        target = ring_of.get(int(regions[y + 1, stop + 1]), -1)
        # A region that is not a hole of this part is what lies around it.
        target = target if target >= 0 and parents[target] == parents[hole] else int(parents[hole])
        wanted.append((hole, target, (stop + 1, y), (x, y)))
    at = _positions(rings, [(target, point) for _, target, point, _ in wanted], width + 1, height + 1)
    start = _positions(rings, [(hole, entry) for hole, _, _, entry in wanted], width + 1, height + 1)
    hanging: dict[int, list[_Keyhole]] = {}
    for (hole, target, _, _), a, s in zip(wanted, at, start, strict=True):
        hanging.setdefault(target, []).append(_Keyhole(hole, target, a, s))
    return hanging


def _leftmost(ring: Ring) -> tuple[int, int]:
    """The top one of the leftmost points."""
    x = int(ring[:, 0].min())
    return x, int(ring[ring[:, 0] == x, 1].min())


def _positions(rings: list[Ring], wanted: list[tuple[int, tuple[int, int]]], width: int, height: int) -> list[int]:
    """The position of each wanted point on its ring, all by one sort."""
    used = sorted({number for number, _ in wanted})
    rank = {number: i for i, number in enumerate(used)}
    keys = np.concatenate([(rank[n] * height + rings[n][:, 1]) * width + rings[n][:, 0] for n in used])
    places = np.concatenate([np.arange(len(rings[n])) for n in used])
    order = np.argsort(keys, kind="stable")
    sought = np.array([(rank[n] * height + y) * width + x for n, (x, y) in wanted])
    found = order[np.searchsorted(keys[order], sought)]
    assert (keys[found] == sought).all(), "a keyhole must end on a ring"
    return places[found].tolist()


def _spliced(root: int, rings: list[Ring], hanging: dict[int, list[_Keyhole]]) -> Ring:
    """The outer ring with its holes walked in place, each out and back. No recursion: holes can hang in long chains."""
    pieces: list[Ring] = []
    stack = [_visit(root, 0, rings, hanging)]
    while stack:
        ring, stops, reached = stack.pop()
        if not stops:
            pieces.append(ring[reached:])
            continue
        position, keyhole = stops[-1]
        pieces.append(ring[reached : position + 1])
        stack.append((ring, stops[:-1], position))
        stack.append(_visit(keyhole.hole, keyhole.start, rings, hanging))
    return np.concatenate(pieces)


_Visit = tuple[Ring, list[tuple[int, _Keyhole]], int]


def _visit(number: int, start: int, rings: list[Ring], hanging: dict[int, list[_Keyhole]]) -> _Visit:
    """A ring from its entry round to its entry, and what hangs on it, the first stop last."""
    ring = np.roll(rings[number], -start, axis=0)
    stops = [((k.at - start) % len(ring), k) for k in hanging.get(number, ())]
    stops.sort(key=lambda stop: stop[0], reverse=True)
    return np.concatenate([ring, ring[:1]]), stops, 0


def _without_repeats(ring: Ring) -> Ring:
    """Equal neighbours once."""
    different = (ring != np.roll(ring, 1, axis=0)).any(axis=1)
    return ring[different] if different.any() else ring[:1]


def _without_collinear(ring: Ring) -> Ring:
    """Points in the middle of a straight run go; turning points stay, also those of a spike."""
    ring = _without_repeats(ring)
    if len(ring) < 3:
        return ring
    heading = np.sign(np.roll(ring, -1, axis=0) - ring)  # steps are unit steps or horizontal, so this is exact
    return ring[(heading != np.roll(heading, 1, axis=0)).any(axis=1)]


# --- parts ---------------------------------------------------------------------------------------------------


def _shortest_gaps(crop: UInt8, labels: NDArray[np.int32], count: int) -> list[_Gap]:
    """For parts that are neighbours, the shortest line between them; by one distance transform for any number.

    Where the zones of two parts (pixels nearest to each) touch, the two nearest pixels are joined. The
    shortest of these per pair contain the minimum spanning tree.
    """
    width = crop.shape[1]
    _, zones = cv2.distanceTransformWithLabels(
        1 - crop, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    site = np.zeros(int(zones.max()) + 1, np.int64)
    inside = np.flatnonzero(crop)
    site[zones.ravel()[inside]] = inside
    first, second = _touching(zones, labels.ravel()[site][zones])
    first, second = site[first], site[second]
    swap = labels.ravel()[first] > labels.ravel()[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    a, b = labels.ravel()[first].astype(np.int64), labels.ravel()[second].astype(np.int64)
    # An 8-connected line covers max(|dx|, |dy|) - 1 pixels between its ends.
    px = np.maximum(np.abs(first % width - second % width), np.abs(first // width - second // width)) - 1
    order = np.lexsort((second, first, px, a * count + b))
    order = order[np.diff((a * count + b)[order], prepend=-1) != 0]
    return [
        _Gap(int(px[i]), int(a[i]), int(b[i]), (int(first[i] % width), int(first[i] // width)),
             (int(second[i] % width), int(second[i] // width)))
        for i in order[np.argsort(px[order], kind="stable")].tolist()
    ]  # fmt: skip


def _touching(zones: NDArray[np.int32], parts: NDArray[np.int32]) -> tuple[Int64, Int64]:
    """The zones of neighbouring pixels (8 directions) that belong to two parts."""
    found = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = (slice(None, -dy or None), slice(max(0, -dx), -dx if dx > 0 else None))
        there = (slice(dy, None), slice(max(0, dx), dx if dx < 0 else None))
        differ = parts[here] != parts[there]
        found.append((zones[here][differ], zones[there][differ]))
    return np.concatenate([one for one, _ in found]), np.concatenate([other for _, other in found])


def _choose_bridges(gaps: list[_Gap], areas: Int64, keep_all: bool) -> tuple[list[_Gap], NDArray[np.bool_]]:
    """The spanning tree of the shortest gaps without the branches that are worth less than their bridge.

    `gaps` are sorted by length. Returns the bridges to paint, and which labels stay (label 0 does not).
    """
    tree = _spanning_tree(gaps, len(areas))
    root = int(np.argmax(areas[1:])) + 1
    order, above = _from_root(root, tree)
    worth = areas.copy()
    keep = np.zeros(len(areas), bool)
    for label in reversed(order[1:]):  # leaves first
        gap = above[label]
        gain = int(worth[label]) - gap.px
        keep[label] = keep_all or gain >= 0
        if keep[label]:
            worth[gap.a if gap.b == label else gap.b] += gain
    keep[root] = True
    bridges = []
    for label in order[1:]:
        gap = above[label]
        keep[label] &= keep[gap.a if gap.b == label else gap.b]
        if keep[label]:
            bridges.append(gap)
    return bridges, keep


def _spanning_tree(gaps: list[_Gap], count: int) -> dict[int, list[_Gap]]:
    """Kruskal: the gaps of the tree by the labels they end at."""
    leader = list(range(count))

    def find(label: int) -> int:
        while leader[label] != label:
            leader[label] = leader[leader[label]]
            label = leader[label]
        return label

    tree: dict[int, list[_Gap]] = {}
    for gap in gaps:
        a, b = find(gap.a), find(gap.b)
        if a != b:
            leader[a] = b
            tree.setdefault(gap.a, []).append(gap)
            tree.setdefault(gap.b, []).append(gap)
    return tree


def _from_root(root: int, tree: dict[int, list[_Gap]]) -> tuple[list[int], dict[int, _Gap]]:
    """Labels in an order that names each after the one it hangs on, and the gap above each."""
    order = [root]
    above: dict[int, _Gap] = {}
    for label in order:  # grows while it is walked
        for gap in tree.get(label, ()):
            other = gap.a if gap.b == label else gap.b
            if gap is not above.get(label):
                above[other] = gap
                order.append(other)
    return order, above


def _joined(crop: UInt8, labels: NDArray[np.int32], bridges: list[_Gap], kept: NDArray[np.bool_]) -> UInt8:
    joined = kept[labels].astype(np.uint8)
    for gap in bridges:
        cv2.line(joined, gap.start_xy, gap.end_xy, color=(1,), thickness=1, lineType=cv2.LINE_8)
    return joined
