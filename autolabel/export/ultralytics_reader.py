"""What the ultralytics loader makes of a file: the door to its readers, for reading exports back.

Exports never need it; only `read_back` does. Detection has its own door in detect/yolo.py.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ExportError
from autolabel.core.text import printable
from autolabel.core.types import Float32, Int64, UInt8
from autolabel.weights.quiet import ultralytics_at_bay


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """The rows of one label file: class numbers (N,), boxes (N, 4) as centre and size in fractions of the
    picture, and the points of each row that holds a polygon, (M, 2) in fractions."""

    classes: Int64
    boxes_cxcywh: Float32
    segments: tuple[Float32, ...]


def read_labels(picture: Path, label: Path, *, num_classes: int) -> Loaded:
    """Raises ExportError when the loader takes the picture or its labels for corrupt."""
    with ultralytics_at_bay():
        from ultralytics.data.utils import verify_image_label

    with tempfile.TemporaryDirectory() as scratch:
        # A copy, since the loader rewrites a JPEG that does not end with its end marker.
        copy = shutil.copyfile(picture, Path(scratch, f"picture{picture.suffix}"))
        found = verify_image_label((str(copy), str(label), "", False, num_classes, 0, 0, False))
    _, labels, _, segments, _, missing, _, _, corrupt, message = found
    if missing or corrupt:
        why = message.rpartition("ignoring corrupt image/label: ")[2].partition("\n")[0] or "no label file"
        raise ExportError(printable(f"the loader does not take it: {why}"))
    return Loaded(labels[:, 0].astype("int64"), labels[:, 1:5], tuple(segments))


def read_class_mask(path: Path) -> UInt8:
    """Class ids (H, W) of a semantic mask."""
    with ultralytics_at_bay():
        from ultralytics.data.utils import read_mask

    mask: NDArray[np.uint8] = read_mask(str(path), "L")
    return mask
