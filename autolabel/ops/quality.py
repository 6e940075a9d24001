"""From what is known about a mask to the IoU that it can be expected to have with the true one. Trains nothing.

The model is additive: every signal has a curve, straight between equally spaced points and flat beyond its ends;
their sum goes through the logistic function. So each signal's share can be read off the file, a signal that is
missing adds what it adds on average (0), and no value however odd leads out of (0, 1). Fitting is
evaluate/calibration.py's work; signals, curves and file are here because refining needs them too.
"""

# Numba's decorators carry no types; the public functions do.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from autolabel.core.types import Instance, Int64
from autolabel.ops.boxes import area_xyxy, paired_iou_xyxy
from autolabel.ops.mask_shape import MaskShape, mask_shapes
from autolabel.ops.masks import mask_of
from autolabel.ops.settings import finite, read_fitted

Float64 = NDArray[np.float64]

VERSION = 1
NUM_GIVEN = 5
"""The first SIGNALS came with the object."""
DIGITS = 4
"""Decimals of an expected IoU: those behind them differ between processors."""


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


@dataclass(frozen=True)
class Calibration:
    """Curves, and in `about` what they were fitted on and how they did on what was held out."""

    bias: float
    curves: tuple[Curve, ...]
    about: Mapping[str, Any]

    @cached_property
    def table(self) -> tuple[Int64, Float64, Int64, Float64, Float64]:
        """The curves in columns: which signal, what it adds where missing, where its points end; and all points."""
        column = {signal.name: k for k, signal in enumerate(SIGNALS)}
        return (
            np.array([column[curve.signal] for curve in self.curves], np.int64),
            np.array([curve.missing for curve in self.curves], np.float64),
            np.cumsum([len(curve.adds) for curve in self.curves], dtype=np.int64),
            np.concatenate([[], *(np.linspace(c.low, c.high, len(c.adds)) for c in self.curves)]),
            np.array([add for curve in self.curves for add in curve.adds], np.float64),
        )


_GIVEN = attrgetter(*(signal.name for signal in SIGNALS[:NUM_GIVEN]))


def signals(instances: Sequence[Instance]) -> Float64:
    """One row an instance, one column for each of SIGNALS; NaN is missing. Every instance has a mask
    that is not empty and a finite box."""
    if not instances:
        return np.zeros((0, len(SIGNALS)))
    masks = [mask_of(one) for one in instances]
    shapes = mask_shapes(masks, [one.box_xyxy for one in instances])
    boxes = np.array([one.box_xyxy for one in instances], np.float32)
    whwh = np.array([mask.size_hw[::-1] * 2 for mask in masks], np.float32)
    boxes = np.clip(boxes, 0, whwh)  # those of labels may overhang the picture
    inside_px = np.array([shape.inside_px for shape in shapes])
    tight = np.array([shape.box_xyxy for shape in shapes], np.float32)
    given = [_GIVEN(one) for one in instances]
    return np.concatenate(
        [
            np.array(given, np.float64),  # None becomes NaN
            paired_iou_xyxy(tight, boxes)[:, None],
            (inside_px / np.maximum(area_xyxy(boxes), 1))[:, None],
            np.array([_form(shape, mask.size_hw) for shape, mask in zip(shapes, masks, strict=True)]),
        ],
        axis=1,
    )


def expected_iou(rows: Float64, calibration: Calibration) -> list[float]:
    """The expected IoU of every row of `signals`; in (0, 1), rounded."""
    total = _totals(np.ascontiguousarray(rows), calibration.bias, *calibration.table)
    # math.exp: numpy's own differs between processors in the last digits.
    return [round(1 / (1 + math.exp(-max(min(t, 30.0), -30.0))), DIGITS) for t in total.tolist()]


@njit(nogil=True, cache=True)
def _totals(
    rows: Float64, bias: Any, of: Int64, missing: Float64, ends: Int64, at: Float64, adds: Float64
) -> Float64:
    """`bias` and what each curve adds to each row; in the arithmetic of `np.interp`, without a call for each curve."""
    total = np.full(len(rows), bias)
    start = 0
    for k in range(len(of)):
        last = ends[k] - 1
        for i in range(len(rows)):
            x = rows[i, of[k]]
            if np.isnan(x):
                total[i] += missing[k]
            elif x <= at[start]:
                total[i] += adds[start]
            elif x >= at[last]:
                total[i] += adds[last]
            else:
                j = start
                while at[j + 1] <= x:
                    j += 1
                slope = (adds[j + 1] - adds[j]) / (at[j + 1] - at[j])
                total[i] += slope * (x - at[j]) + adds[j]
        start = ends[k]
    return total


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


def read_calibration(path: Path, *, key: str = "calibration") -> tuple[Calibration, str]:
    """The calibration in a file, and the sha256 of its bytes. Raises ConfigError, in the name of the setting."""
    return read_fitted(
        path,
        _calibration,
        key=key,
        version=VERSION,
        kind="calibration of `autolabel evaluate --calibrate`",
        instead="the quality.json of an evaluated run, or default",
    )


def _calibration(document: Any) -> Calibration:
    curves = tuple(_curve(str(name), curve) for name, curve in document["curves"].items())
    return Calibration(finite(document["bias"]), curves, dict(document["about"]))


def _curve(name: str, curve: Mapping[str, Any]) -> Curve:
    if name not in {signal.name for signal in SIGNALS}:
        raise ValueError(f"there is no signal {name!r}")
    low, high, missing = finite(curve["low"]), finite(curve["high"]), finite(curve["missing"])
    adds = tuple(finite(value) for value in curve["adds"])
    if low >= high or len(adds) < 2:
        raise ValueError(f"the curve of {name} needs low < high and two points at least")
    return Curve(name, low, high, adds, missing)
