"""A COCO data set opened by supervision: read_supervision.py FOLDER OUT."""

from __future__ import annotations

import sys
from pathlib import Path

import supervision as sv
from found import Image, write_found


def main(folder: Path, out: str) -> None:
    data = sv.DetectionDataset.from_coco(str(folder / "images"), str(folder / "instances.json"), force_masks=True)
    images = {}
    for path, picture_bgr, found in data:
        masks = [] if found.mask is None else found.mask
        objects = [(data.classes[n], mask) for n, mask in zip(found.class_id, masks, strict=True)]
        images[Path(path).relative_to(folder / "images").as_posix()] = Image(picture_bgr[..., ::-1], objects)
    write_found(out, images, sv.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
