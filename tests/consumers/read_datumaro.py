"""A data set opened by Datumaro, with its pictures: read_datumaro.py FORMAT FOLDER OUT."""

from __future__ import annotations

import sys

import datumaro
import numpy as np
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
from found import Image, write_found


def main(kind: str, folder: str, out: str) -> None:
    data = Dataset.import_from(folder, kind)
    labels = data.categories()[AnnotationType.label]
    images = {}
    for item in data:
        # Datumaro drops the suffix from its ids; the path of the picture has it.
        name = item.media.path.split("/images/", 1)[1]
        masks = [one for one in item.annotations if one.type == AnnotationType.mask]
        assert len(masks) == len(item.annotations)
        objects = [(labels[one.label].name, np.asarray(one.image)) for one in masks]
        images[name] = Image(item.media.data[..., 2::-1], objects)  # BGR
    write_found(out, images, getattr(datumaro, "__version__", ""))


if __name__ == "__main__":
    main(*sys.argv[1:4])
