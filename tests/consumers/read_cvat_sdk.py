"""A "CVAT for images 1.1" file: its masks through the decoder of CVAT's SDK. read_cvat_sdk.py FOLDER OUT."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import cvat_sdk
import numpy as np
from cvat_sdk.masks import decode_mask
from found import Image, write_found
from PIL import Image as Pillow
from PIL import ImageOps


def mask_of(element: ElementTree.Element, width: int, height: int) -> np.ndarray:
    """The points that CVAT makes of a <mask>: the runs, then the box with both corners inside."""
    left, top, box_w, box_h = (int(element.attrib[key]) for key in ("left", "top", "width", "height"))
    points = [int(run) for run in element.attrib["rle"].split(",")]
    encoded = [*points, left, top, left + box_w - 1, top + box_h - 1]
    return decode_mask(encoded, image_width=width, image_height=height)


def main(folder: Path, out: str) -> None:
    images = {}
    for image in ElementTree.parse(folder / "annotations.xml").getroot().iter("image"):
        with Pillow.open(folder / "images" / image.attrib["name"]) as opened:
            picture = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))  # as CVAT's server does
        size = int(image.attrib["width"]), int(image.attrib["height"])
        objects = [(mask.attrib["label"], mask_of(mask, *size)) for mask in image.iter("mask")]
        images[image.attrib["name"]] = Image(picture, objects)
    write_found(out, images, cvat_sdk.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
