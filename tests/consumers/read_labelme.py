"""A folder of LabelMe files, opened by LabelMe's own `LabelFile`: read_labelme.py FOLDER OUT."""

from __future__ import annotations

import sys
from pathlib import Path

import labelme
import numpy as np
from found import Image, write_found
from labelme import utils


def mask_of(shape: dict, size_hw: tuple[int, int]) -> np.ndarray:
    """As the examples' `labelme2coco.py` and `shapes_to_label` have it."""
    if shape["shape_type"] != "mask":
        return utils.shape_to_mask(size_hw, shape["points"], shape["shape_type"])
    mask = np.zeros(size_hw, bool)
    (x0, y0), (x1, y1) = np.asarray(shape["points"]).astype(int)
    mask[y0 : y1 + 1, x0 : x1 + 1] = shape["mask"]
    return mask


def main(folder: Path, out: str) -> None:
    images = {}
    for path in sorted(folder.rglob("*.json")):
        if path.name == "manifest.json":
            continue
        file = labelme.LabelFile(str(path))
        picture = np.asarray(utils.img_data_to_pil(file.image_data).convert("RGB"))
        objects: dict[object, tuple[str, np.ndarray]] = {}
        for number, shape in enumerate(file.shapes):
            key = f"shape {number}" if shape["group_id"] is None else shape["group_id"]
            label, mask = objects.get(key, (shape["label"], np.zeros(picture.shape[:2], bool)))
            objects[key] = label, mask | mask_of(shape, picture.shape[:2])
        name = (path.parent / str(file.image_path)).relative_to(folder)
        images[name.as_posix()] = Image(picture, list(objects.values()))
    write_found(out, images, labelme.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
