"""The pictures and masks that the nano models are trained on, decoded once into one file.

It reads the COCO files below `<data>/masks/*`. It does not augment, resize or batch: each trainer does
that in its own way. Pixels live in one memory-mapped cache file, so that two trainers share the memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

DATASETS = ("duts_tr", "coco_train", "ccp_fashion")

# Data sets in which every object of the listed classes is annotated. Elsewhere "no mask" is no evidence
# of "no object": DUTS marks the salient object alone, CCP one person and what the person wears.
COMPLETE = frozenset({"coco_train"})

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ObjectMask:
    """One annotated object. The box is the tight half-open box of the mask, in pixels of the picture."""

    rle: dict[str, Any]  # compressed COCO RLE, counts as bytes
    bbox_xyxy: tuple[float, float, float, float]
    area_px: int
    category: str
    is_part: bool  # a garment: part of a person, no object of its own
    is_crowd: bool

    @property
    def long_side_px(self) -> float:
        x0, y0, x1, y1 = self.bbox_xyxy
        return max(x1 - x0, y1 - y0)

    def decode(self) -> NDArray[np.uint8]:
        """(H, W) of 0 and 1."""
        return coco_mask.decode(self.rle)


@dataclass(frozen=True, slots=True)
class Picture:
    name: str  # relative to <data>/masks, so unique across data sets
    dataset: str
    split: str  # "train" or "val"
    size_hw: tuple[int, int]
    objects: tuple[ObjectMask, ...]
    complete_labels: bool
    _cache: Pixels = field(repr=False)
    _offset: int = field(repr=False)

    @property
    def image_rgb(self) -> Pixels:
        """(H, W, 3), a read-only view into the cache."""
        h, w = self.size_hw
        return self._cache[self._offset : self._offset + h * w * 3].reshape(h, w, 3)


def load_pictures(
    data_root: Path, cache_dir: Path, datasets: tuple[str, ...] = DATASETS, split: str | None = None
) -> list[Picture]:
    """All pictures in the order of the annotation files; the first call decodes them (about a minute)."""
    entries = [entry for name in datasets for entry in _read_annotations(data_root / "masks" / name)]
    cache, offsets = _open_cache(data_root, cache_dir, entries)
    return [
        Picture(
            name=entry["name"],
            dataset=entry["dataset"],
            split=entry["split"],
            size_hw=entry["size_hw"],
            objects=entry["objects"],
            complete_labels=entry["dataset"] in COMPLETE,
            _cache=cache,
            _offset=offset,
        )
        for entry, offset in zip(entries, offsets, strict=True)
        if split is None or entry["split"] == split
    ]


def _read_annotations(folder: Path) -> list[dict[str, Any]]:
    coco = json.loads((folder / "instances.json").read_text("utf-8"))
    category_names = {category["id"]: category["name"] for category in coco["categories"]}
    objects: dict[int, list[ObjectMask]] = {image["id"]: [] for image in coco["images"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    for annotation in coco["annotations"]:
        image_id = annotation["image_id"]
        rle = _as_compressed_rle(annotation["segmentation"], sizes[image_id])
        area_px = int(coco_mask.area(rle))
        if area_px == 0:  # a polygon thinner than a pixel
            continue
        x, y, w, h = (float(value) for value in coco_mask.toBbox(rle))
        objects[image_id].append(
            ObjectMask(
                rle=rle,
                bbox_xyxy=(x, y, x + w, y + h),
                area_px=area_px,
                category=category_names[annotation["category_id"]],
                is_part=bool(annotation.get("part", 0)),
                is_crowd=bool(annotation.get("iscrowd", 0)),
            )
        )
    return [
        {
            "name": f"{folder.name}/{image['file_name']}",
            "dataset": folder.name,
            "split": image["split"],
            "size_hw": sizes[image["id"]],
            "objects": tuple(objects[image["id"]]),
        }
        for image in coco["images"]
    ]


def _as_compressed_rle(segmentation: Any, size_hw: tuple[int, int]) -> dict[str, Any]:
    h, w = size_hw
    if isinstance(segmentation, list):  # polygons
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, h, w))
    counts = segmentation["counts"]
    if isinstance(counts, list):  # uncompressed, as COCO writes its crowds
        return coco_mask.frPyObjects(segmentation, h, w)
    # Bytes: pycocotools warns when it decodes a string.
    return {"size": segmentation["size"], "counts": counts.encode("ascii")}


def _open_cache(data_root: Path, cache_dir: Path, entries: list[dict[str, Any]]) -> tuple[Pixels, list[int]]:
    sizes = [h * w * 3 for h, w in (entry["size_hw"] for entry in entries)]
    ends = np.cumsum(sizes, dtype=np.int64)
    key = hashlib.sha256(json.dumps([(e["name"], e["size_hw"]) for e in entries]).encode()).hexdigest()[:16]
    path = cache_dir / f"pixels-{key}.bin"
    if not path.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        # Two trainers may start together: each writes its own file, the last rename wins.
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        with unfinished.open("wb") as file:
            for entry in entries:
                file.write(_read_rgb(data_root / "masks" / entry["name"], entry["size_hw"]).tobytes())
        unfinished.replace(path)
    return np.memmap(path, np.uint8, "r"), [0, *ends[:-1].tolist()]


def _read_rgb(path: Path, size_hw: tuple[int, int]) -> Pixels:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None or image.shape[:2] != size_hw:
        raise ValueError(f"{path}: expected a {size_hw} picture, got {None if image is None else image.shape}")
    return image
