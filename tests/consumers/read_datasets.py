"""Parquet files opened by Hugging Face `datasets`, from disk or streamed: read_datasets.py MODE FOLDER OUT."""

from __future__ import annotations

import sys

import datasets
import numpy as np
from datasets import load_dataset
from found import Image, write_found
from pycocotools import mask as coco_mask


def main(mode: str, folder: str, out: str) -> None:
    images = {}
    for split in load_dataset(folder, streaming=mode == "streamed").values():
        names = split.features["objects"]
        labels = getattr(names, "feature", names)  # a List, or the dict of lists of older releases
        labels = (labels[0] if isinstance(labels, list) else labels)["category"]
        for row in split:
            objects = row["objects"]
            if isinstance(objects, dict):
                objects = [
                    dict(zip(objects, values, strict=True)) for values in zip(*objects.values(), strict=True)
                ]
            found = [
                (labels.int2str(one["category"]), coco_mask.decode(one["segmentation"]).astype(bool))
                for one in objects
            ]
            images[row["image_id"]] = Image(np.asarray(row["image"].convert("RGB")), found)
    write_found(out, images, datasets.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:4])
