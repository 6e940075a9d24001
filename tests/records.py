"""Masks, records and a run in memory, for the tests of what is made from records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from autolabel.core.types import Category, ImageInfo, ImageRecord, Instance, Rle, Verdict
from autolabel.ops.masks import bounds_xyxy, decode, encode
from autolabel.ops.polygons import yolo_rasterize, yolo_ring

CATEGORIES = (Category(3, "cat"), Category(7, 'dog: "big"'))


@dataclass(frozen=True)
class ListReader:
    """A RecordReader of a list; `break_at` raises in front of that record, as a kill would."""

    items: Sequence[ImageRecord]
    categories: tuple[Category, ...] = CATEGORIES
    break_at: int | None = None
    document: str = ""

    def records(self) -> Iterator[ImageRecord]:
        for i, record in enumerate(self.items):
            if i == self.break_at:
                raise KeyboardInterrupt
            yield record


def disc(h: int, w: int, cx: float, cy: float, r: float) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return ((x - cx) ** 2 + (y - cy) ** 2 <= r * r).astype(np.uint8)


def part_areas_px(rle: Rle) -> list[int]:
    """Pixels of each part, largest first; pixels that touch at a corner are one part."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(decode(rle), connectivity=8)
    return sorted(stats[1:, cv2.CC_STAT_AREA].tolist(), reverse=True)


def hole_areas_px(rle: Rle) -> list[int]:
    """Pixels of each hole, largest first; background that touches at a corner is two holes."""
    background = 1 - np.pad(decode(rle), 1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(background, connectivity=4)
    outside = int(labels[0, 0])
    return sorted(np.delete(stats[:, cv2.CC_STAT_AREA], [0, outside]).tolist(), reverse=True)


def shapes() -> dict[str, np.ndarray]:
    """Masks of 120x160 that formats get wrong."""
    h, w = 120, 160
    ring = disc(h, w, 70, 60, 40) - disc(h, w, 70, 60, 15)
    nested = ring | disc(h, w, 70, 60, 6)
    swiss = disc(h, w, 80, 60, 50)
    for i in range(5):
        swiss[50:54, 40 + 16 * i : 44 + 16 * i] = 0
    line, pixel, diagonal = (np.zeros((h, w), np.uint8) for _ in range(3))
    line[33, 20:140] = 1
    pixel[119, 159] = 1
    diagonal[np.arange(30), np.arange(30)] = 1
    return {
        "disc": disc(h, w, 60, 60, 30),
        "ring": ring,
        "swiss": swiss,
        "island in a hole": nested,
        "two parts": disc(h, w, 40, 60, 30) | disc(h, w, 118, 60, 30),
        "twelve parts": twelve_parts(),
        "line": line,
        "pixel": pixel,
        "diagonal": diagonal,
        "two pixels": pixel | np.roll(pixel, (-60, -60), (0, 1)),
        "full": np.ones((h, w), np.uint8),
        "noise": (np.random.default_rng(0).random((h, w)) < 0.5).astype(np.uint8),
        "speck": disc(h, w, 61, 60, 30) | pixel,
    }


def twelve_parts() -> np.ndarray:
    mask = np.zeros((120, 160), np.uint8)
    for i in range(12):
        mask |= disc(120, 160, 20 + 40 * (i % 4), 20 + 40 * (i // 4), 14)
    return mask


def drawn_for_yolo() -> list[Instance]:
    """Objects as a YOLO source gives them: polygons through the centres of pixels, and what its loader makes of them.
    pycocotools makes another mask of all but the largest, and none of a pixel or a line."""
    masks = [*shapes().values(), *(disc(120, 160, 80, 60, r) for r in (1, 2, 5, 12, 58))]
    rings = [yolo_ring(encode(mask)).points_xy for mask in masks]
    return [
        instance(
            yolo_rasterize(ring / [160, 120], (120, 160)),
            index,
            origin="label",
            polygons=(tuple(ring.ravel().tolist()),),
        )
        for index, ring in enumerate(rings)
    ]


def instance(mask: np.ndarray | Rle, index: int = 0, **changes: Any) -> Instance:
    rle = mask if isinstance(mask, Rle) else encode(mask)
    box = tuple(float(v) for v in bounds_xyxy(rle) or (0, 0, 1, 1))
    fields = {"category_id": 3, "detector_score": 0.9, "predicted_iou": 0.8, **changes}
    return Instance(index=index, box_xyxy=fields.pop("box_xyxy", box), mask=rle, **fields)


def record(
    image_id: str, instances: Sequence[Instance] = (), path: Path | str = "", **changes: Any
) -> ImageRecord:
    """A labelled image; its size is the masks' or that of the file."""
    given = changes.pop("size_hw", (120, 160))
    size = instances[0].mask.size_hw if instances and instances[0].mask else given
    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    fields = {"status": "ok" if instances else "empty", "info": ImageInfo(size[1], size[0], 1, sha256), **changes}
    verdicts = tuple(Verdict() for _ in instances)
    return ImageRecord(image_id, str(path), candidates=tuple(instances), verdicts=verdicts, **fields)


def failed(image_id: str) -> ImageRecord:
    return ImageRecord(image_id, image_id, "failed", code="corrupt", detail="on purpose")


def picture(path: Path, size_hw: tuple[int, int] = (120, 160), seed: int = 0) -> Path:
    """A small picture file of any format that OpenCV writes, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 255, (*size_hw, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def tree_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
