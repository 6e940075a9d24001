"""A data set imported into FiftyOne's database: read_fiftyone.py TYPE FOLDER OUT. FIFTYONE_DATABASE_URI names one."""

from __future__ import annotations

import sys
from pathlib import Path

import fiftyone as fo
import numpy as np
from found import Image, write_found
from PIL import Image as Pillow


def load(kind: str, folder: Path) -> fo.Dataset:
    if kind == "FiftyOneDataset":
        return fo.Dataset.from_dir(str(folder), dataset_type=fo.types.FiftyOneDataset)
    return fo.Dataset.from_dir(
        dataset_type=fo.types.COCODetectionDataset,
        data_path=str(folder / "images"),
        labels_path=str(folder / "instances.json"),
        label_types=["segmentations"],
        label_field="segmentations",
    )


def main(kind: str, folder: Path, out: str) -> None:
    data = load(kind, folder)
    data.compute_metadata(overwrite=True)  # what FiftyOne says of the pictures, not what we say
    fields = data.get_field_schema()
    field = "segmentations" if "segmentations" in fields else None
    top = folder / ("data" if kind == "FiftyOneDataset" else "images")
    images = {}
    for sample in data.iter_samples():
        size = sample.metadata.width, sample.metadata.height
        with Pillow.open(sample.filepath) as opened:  # the pixels as stored: its app takes sizes from there
            picture = np.asarray(opened.convert("RGB"))
        labels = sample[field] if field else None
        found = [
            (one.label, one.to_segmentation(frame_size=size).mask > 0)
            for one in (labels.detections if labels else [])
        ]
        images[Path(sample.filepath).relative_to(top).as_posix()] = Image(picture, found)
    data.delete()
    write_found(out, images, fo.__version__)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
