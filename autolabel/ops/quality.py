"""From what is known about a mask to the IoU that it can be expected to have with the true one. Trains nothing.

The model is additive: every signal has a curve, straight between equally spaced points and flat beyond its ends;
their sum goes through the logistic function. So each signal's share can be read off the file, a signal that is
missing adds what it adds on average (0), and no value however odd leads out of (0, 1). Fitting is
evaluate/calibration.py's work; signals, curves and file are here because refining needs them too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ConfigError
from autolabel.core.types import Instance
from autolabel.ops.boxes import area_xyxy, paired_iou_xyxy
from autolabel.ops.mask_shape import MaskShape, mask_shape
from autolabel.ops.masks import mask_of

Float64 = NDArray[np.float64]

VERSION = 1
NUM_GIVEN = 5
"""The first SIGNALS came with the object."""
DIGITS = 4
"""Of an expected IoU: what lies behind them differs between processors."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Where the points of a curve lie: `steps` equal ones from `low` to `high`. A `rising` signal can only raise
    the expectation, whatever a small set of objects says."""

    name: str
    low: float
    high: float
    steps: int
    rising: bool = False


SIGNALS = (
    # As they came with the object; NaN where a model does not give one.
    Signal("predicted_iou", 0, 1, 10, rising=True),
    Signal("stability", 0, 1, 10, rising=True),
    Signal("object_score", 0, 1, 10, rising=True),
    Signal("detector_score", 0, 1, 10, rising=True),
    Signal("agreement", 0, 1, 10, rising=True),
    # Of the mask and its prompt box.
    Signal("box_fit", 0, 1, 10, rising=True),  # IoU of the tight box with the prompt box inside the picture
    Signal("fill", 0, 1, 8),  # share of the box that the mask covers
    Signal("outside", 0, 1, 8),  # root of the share of the mask outside the box
    # Of the mask alone.
    Signal("loose", 0, 1, 6),  # root of the share of all parts but the largest
    Signal("parts", 0, 5, 5),  # log2 of their number
    Signal("holes", 0, 5, 5),  # log2 of 1 + their number
    Signal("hole_share", 0, 1, 6),  # root of the holes' share of object and holes
    Signal("compactness", 0, 0.8, 8),  # 4 pi area / outline^2: low for a frayed boundary; a square has 0.785
    Signal(
        "image_share", -5, 0, 10
    ),  # log10 of the mask's share of the picture: segmenters see all pictures at one size
    Signal("border", 0, 0.5, 5),  # share of the outline on the picture's border
)


@dataclass(frozen=True, slots=True)
class Curve:
    """What a signal adds at equally spaced values from `low` to `high`, and where it is `missing`."""

    signal: str
    low: float
    high: float
    adds: tuple[float, ...]
    missing: float = 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Curves, and in `about` what they were fitted on and how they did on what was held out."""

    bias: float
    curves: tuple[Curve, ...]
    about: Mapping[str, Any]


def signals(instances: Sequence[Instance]) -> Float64:
    """One row an instance, one column for each of SIGNALS; NaN is missing. Every instance has a mask
    that is not empty and a finite box."""
    if not instances:
        return np.zeros((0, len(SIGNALS)))
    shapes = [mask_shape(mask_of(one), one.box_xyxy) for one in instances]
    boxes = np.array([one.box_xyxy for one in instances], np.float32)
    w_h = np.array([mask_of(one).size_hw[::-1] for one in instances], np.float32)
    boxes = np.clip(boxes, 0, np.tile(w_h, 2))  # those of labels may overhang the picture
    inside_px = np.array([shape.inside_px for shape in shapes])
    tight = np.array([shape.box_xyxy for shape in shapes], np.float32)
    given = [[getattr(one, signal.name) for signal in SIGNALS[:NUM_GIVEN]] for one in instances]
    return np.concatenate(
        [
            np.array(given, np.float64),  # None becomes NaN
            paired_iou_xyxy(tight, boxes)[:, None],
            (inside_px / np.maximum(area_xyxy(boxes), 1))[:, None],
            np.array([_form(s, mask_of(one).size_hw) for s, one in zip(shapes, instances, strict=True)]),
        ],
        axis=1,
    )


def expected_iou(rows: Float64, calibration: Calibration) -> list[float]:
    """Of every row of `signals`; in (0, 1), rounded."""
    column = {signal.name: k for k, signal in enumerate(SIGNALS)}
    total = np.full(len(rows), calibration.bias)
    for curve in calibration.curves:
        values = rows[:, column[curve.signal]]
        total += np.where(np.isnan(values), curve.missing, np.interp(values, *_points(curve)))
    # math.exp: numpy's own differs between processors in the last digits.
    return [round(1 / (1 + math.exp(-max(min(t, 30.0), -30.0))), DIGITS) for t in total.tolist()]


@lru_cache(maxsize=256)
def _points(curve: Curve) -> tuple[Float64, Float64]:
    """Where its values are, and the values. Once a curve: it took more time than reading off them."""
    return np.linspace(curve.low, curve.high, len(curve.adds)), np.array(curve.adds, np.float64)


def _form(shape: MaskShape, size_hw: tuple[int, int]) -> list[float]:
    area = shape.area_px
    return [
        math.sqrt(1 - shape.inside_px / area),
        math.sqrt(1 - shape.largest_part_px / area),
        math.log2(shape.parts),
        math.log2(1 + shape.holes),
        math.sqrt(shape.hole_px / (shape.hole_px + area)),
        4 * math.pi * area / shape.outline_px**2,
        math.log10(area / (size_hw[0] * size_hw[1])),
        shape.border_px / shape.outline_px,
    ]


def to_json(calibration: Calibration) -> str:
    """The text of a calibration file, a line a curve."""
    curves = ",\n  ".join(
        f"{json.dumps(c.signal)}: "
        + json.dumps({"low": c.low, "high": c.high, "adds": list(c.adds), "missing": c.missing}, allow_nan=False)
        for c in calibration.curves
    )
    head = {"version": VERSION, "about": dict(calibration.about), "bias": calibration.bias}
    text = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
    return f'{text},\n "curves": {{\n  {curves}\n }}\n}}\n'


def read_calibration(path: Path, *, key: str) -> tuple[Calibration, str]:
    """The calibration in a file, and the sha256 of its bytes. Raises ConfigError, in the name of the setting."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read ({error.strerror}); give the quality.json of an evaluated run, or default") from error  # fmt: skip
    try:
        document = json.loads(data)
        if document["version"] != VERSION:
            raise ConfigError(f"{key}: {path} has version {document['version']!r}, this program reads {VERSION}")
        found = Calibration(
            _finite(document["bias"]),
            tuple(_curve(str(name), curve) for name, curve in document["curves"].items()),
            dict(document["about"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{key}: {path} is no calibration of `autolabel evaluate --calibrate` ({error!r})"
        ) from error
    return found, hashlib.sha256(data).hexdigest()


def _curve(name: str, curve: Mapping[str, Any]) -> Curve:
    if name not in {signal.name for signal in SIGNALS}:
        raise ValueError(f"there is no signal {name!r}")
    low, high, missing = _finite(curve["low"]), _finite(curve["high"]), _finite(curve["missing"])
    adds = tuple(_finite(value) for value in curve["adds"])
    if low >= high or len(adds) < 2:
        raise ValueError(f"the curve of {name} needs low < high and two points at least")
    return Curve(name, low, high, adds, missing)


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
