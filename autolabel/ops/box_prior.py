"""What the box says about a small object's mask, added to what the network says: the mask of a box that is a few pixels
wide, for the model or in the picture, is decided by both.

A network that sees a picture at one size knows the place of a small box only roughly: its logits are weak inside and
run out of the box. So it is with what is small in the picture itself and was enlarged. A box is evidence too
(Lempitsky, Kohli, Rother and Sharp, "Image segmentation with a bounding box prior", ICCV 2009). With u the place in the
box from -1 to 1 along each axis, a pixel is inside where

    logit + constant + bulge (ux^2 + uy^2) + edge (rise(ux) + rise(uy)) > 0,    rise(u) = max(|u| - 0.9, 0)

and nothing is beyond `REACH` of the box. The three numbers depend on the box's side, the root of its area: on that in
pixels of the model where it is small there, else on that in pixels of the picture, straight between the sides that the
file names in their logarithm; they were fitted to masks (`scripts/fit_box_prior.py`). Boxes of the last side and larger
have no prior: there the network knows better.

Letters: h and w the low-resolution map, a quarter of the model's side R; H and W the picture.
"""

# Numba's decorators carry no types; the public functions do.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from autolabel.core.types import Float32, Rle, UInt8
from autolabel.ops.boxes import clip_xyxy
from autolabel.ops.masks import encode_crop
from autolabel.ops.rle import interpolate_window
from autolabel.ops.settings import finite, read_fitted

VERSION = 2
REACH = 0.25
"""The part of the box's width and height that a mask may reach beyond it, on each side."""
RISE_FROM = 0.9
MODEL_TO_MAP = 4
"""Low-resolution maps have a quarter of the model's side."""


@dataclass(frozen=True, slots=True)
class BySide:
    """Rising sides and what belongs to each."""

    sides_px: tuple[float, ...]
    constant: tuple[float, ...]
    bulge: tuple[float, ...]
    edge: tuple[float, ...]

    def at(self, side_px: float) -> tuple[float, float, float]:
        """Constant, bulge and edge. Logarithms from `math`, whose last digits do not differ between processors."""
        at, known = math.log2(side_px), [math.log2(one) for one in self.sides_px]
        constant, bulge, edge = (
            float(np.interp(at, known, column)) for column in (self.constant, self.bulge, self.edge)
        )
        return constant, bulge, edge


@dataclass(frozen=True, slots=True)
class BoxPrior:
    """What boxes say by their sides on the model's square and, of those too large there, by their sides in the picture
    that it is shown; `about` is what it was fitted on."""

    model_px: BySide
    picture_px: BySide
    about: Mapping[str, Any]

    def rle(self, logits_hw: Float32, box_xyxy: Float32, size_hw: tuple[int, int], *, fused: bool) -> Rle | None:
        """The mask of a picture of `size_hw` from float32 logits (h, w) and a box (4,) in its pixels; `fused` as in
        `ops/rle.py`. None where the box is too large for a prior, or has no area inside the picture."""
        height, width = size_hw
        x0, y0, x1, y1 = clip_xyxy(np.array([box_xyxy], np.float32), size_hw)[0].tolist()
        if not (x1 > x0 and y1 > y0):
            return None
        (x0, x1), (y0, y1) = _a_pixel_wide(x0, x1, width), _a_pixel_wide(y0, y1, height)
        numbers = self._numbers((x1 - x0, y1 - y0), logits_hw.shape, size_hw)
        if numbers is None:
            return None
        window = (*reached(x0, x1, width), *reached(y0, y1, height))
        left, right, top, bottom = window
        values = interpolate_window(logits_hw, size_hw, (left, top, right, bottom), fused=fused)
        constant, bulge, edge = numbers
        columns, rows = (
            (bulge * squared + edge * rise).astype(np.float32)
            for squared, rise in (terms(np.arange(left, right), x0, x1), terms(np.arange(top, bottom), y0, y1))
        )
        inside = _above(values.T, columns, rows + np.float32(constant)).T
        return encode_crop(inside, left, top, size_hw)

    def _numbers(
        self, box_wh: tuple[float, float], map_hw: tuple[int, ...], size_hw: tuple[int, int]
    ) -> tuple[float, float, float] | None:
        """Constant, bulge and edge of a box of that width and height in the picture; None for a large one."""
        in_picture = math.sqrt(box_wh[0] * box_wh[1])
        h, w = map_hw
        in_model = MODEL_TO_MAP * math.sqrt(box_wh[0] / size_hw[1] * w * box_wh[1] / size_hw[0] * h)
        for by_side, side in ((self.model_px, in_model), (self.picture_px, in_picture)):
            if side < by_side.sides_px[-1]:
                return by_side.at(side)
        return None


@njit(nogil=True, cache=True)
def _above(values: Float32, columns: Float32, rows: Float32) -> UInt8:
    """1 where a value (w, h) and what its column (w,) and row (h,) add are above 0."""
    w, h = values.shape
    out = np.empty((w, h), np.uint8)
    for x in range(w):
        for y in range(h):
            out[x, y] = values[x, y] + (columns[x] + rows[y]) > 0
    return out


def _a_pixel_wide(low: float, high: float, limit: int) -> tuple[float, float]:
    """At the least, so that the centre of a pixel is inside: beside a box without one everything would be edge."""
    if high - low >= 1:
        return low, high
    start = min(max((low + high - 1) / 2, 0.0), limit - 1.0)
    return start, start + 1


def reached(low: float, high: float, limit: int) -> tuple[int, int]:
    """First and end of the pixels whose centres are within REACH of the box; one at the least."""
    widen = REACH * (high - low)
    start = min(max(math.ceil(low - widen - 0.5), 0), limit - 1)
    return start, max(min(math.ceil(high + widen - 0.5), limit), start + 1)


def terms(pixels: Any, low: float, high: float) -> tuple[Any, Any]:
    """What bulge and edge are multiplied with along one axis, at the centres of `pixels`, for a box from `low` to
    `high`."""
    u = (2 * (pixels + 0.5) - low - high) / (high - low)
    return u * u, np.maximum(np.abs(u) - RISE_FROM, 0)


def to_json(prior: BoxPrior) -> str:
    """The text of a file."""
    return json.dumps({"version": VERSION, **asdict(prior)}, indent=1, allow_nan=False) + "\n"


def read_box_prior(path: Path, *, key: str = "box_prior") -> tuple[BoxPrior, str]:
    """The prior in a file, and the sha256 of its bytes. Raises ConfigError, in the name of the setting."""
    return read_fitted(
        path,
        _box_prior,
        key=key,
        version=VERSION,
        kind="box prior of scripts/fit_box_prior.py",
        instead="a file of scripts/fit_box_prior.py, nano or null",
    )


def _box_prior(document: Any) -> BoxPrior:
    return BoxPrior(_by_side(document["model_px"]), _by_side(document["picture_px"]), dict(document["about"]))


def _by_side(columns: Any) -> BySide:
    found = BySide(*(tuple(map(finite, columns[field.name])) for field in fields(BySide)))
    sides = found.sides_px
    if len(sides) < 2 or sides[0] <= 0 or any(a >= b for a, b in pairwise(sides)):
        raise ValueError(f"sides_px must be two or more rising numbers above 0, got {sides}")
    if any(len(column) != len(sides) for column in (found.constant, found.bulge, found.edge)):
        raise ValueError("there must be as many numbers of each kind as sides_px")
    return found
