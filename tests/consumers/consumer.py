"""Exports read by the applications that they are for, each under the interpreter that has it.

A tool that is installed beside autolabel is used there; else the environment variable AUTOLABEL_PYTHON_<TOOL> names the
interpreter of another environment, since their requirements exclude one another. Without either its tests are skipped.
The scripts `read_<tool>.py` know nothing of autolabel: they do what a user of the tool does, and write down what
they got (found.py).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from autolabel.core.protocols import RecordReader
from autolabel.ops.masks import decode
from tests.consumers.found import Image, read_found
from tests.rasters import is_red, photo, turned
from tests.records import ListReader, shapes

_READERS = Path(__file__).parent
_NO_REPORTING = {
    "FIFTYONE_DO_NOT_TRACK": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "QT_QPA_PLATFORM": "offscreen",
}


def python_of(module: str) -> str:
    """The interpreter that has the tool; skips where there is none."""
    variable = f"AUTOLABEL_PYTHON_{module.upper()}"
    if variable in os.environ:
        return os.environ[variable]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed, and {variable} names no interpreter that has it")
    return sys.executable


def environment(home: Path, **more: str) -> dict[str, str]:
    """For a tool's process: settings and caches in a folder of the test, nothing reported to anybody."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, **_NO_REPORTING, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **more}


def read_with(module: str, tmp_path: Path, *arguments: str | Path, **env: str) -> dict[str, Image]:
    """What `read_<module>.py ARGUMENTS OUT` wrote down."""
    out = tmp_path / "found.npz"
    command = [python_of(module), str(_READERS / f"read_{module}.py"), *map(str, arguments), str(out)]
    done = subprocess.run(
        command,
        env=environment(tmp_path / "home", **env),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return read_found(out)[0]


def subject(root: Path) -> ListReader:
    """Masks that formats get wrong, in a folder with a space; a picture without objects; all EXIF orientations."""
    hard = photo(root, "cam 1/ä b.png", [*shapes().values()])
    return ListReader([hard, photo(root, "empty.png"), *(turned(root, o) for o in range(1, 9))])


def ious(run: RecordReader, images: Mapping[str, Image]) -> dict[str, list[float]]:
    """Of each image: every object's IoU with the run's mask, in order. The labels must be the run's."""
    names = {category.id: category.name for category in run.categories}
    found = {}
    for record in run.records():
        objects = image_of(images, record.image_id).objects
        assert [label for label, _ in objects] == [names[one.category_id] for one in record.instances]
        masks = [decode(one.mask) for one in record.instances if one.mask is not None]
        found[record.image_id] = [_iou(mask, own) for (_, mask), own in zip(objects, masks, strict=True)]
    return found


def image_of(images: Mapping[str, Image], image_id: str) -> Image:
    """The image of that name; one that an export turned upright is a PNG."""
    return images[image_id if image_id in images else f"{image_id}.png"]


def exact(run: RecordReader) -> dict[str, list[float]]:
    """What `ious` gives where nothing was lost."""
    return {record.image_id: [1.0] * len(record.instances) for record in run.records()}


def iou_with_the_red(image: Image) -> float:
    """Of the only mask, with what is red in the picture as the tool shows it."""
    ((_, mask),) = image.objects
    return _iou(mask, is_red(image.picture_rgb))


def _iou(mask: np.ndarray, own: np.ndarray) -> float:
    if mask.shape != own.shape:
        return 0.0
    return float(np.sum(mask & (own > 0)) / np.sum(mask | (own > 0)))
