"""A quality score fitted to truth: from objects whose IoU is known to the curves of a Calibration. numpy alone.

The expected IoU is fitted by logistic regression with the IoU itself as its target (Papke and Wooldridge 1996:
fractional response). Each curve is a sum of ramps; its kinks are punished, so that a curve goes straight on where
there are no objects, and a rising signal never falls. With a `prior`, what is punished is the difference to its
curves: with few objects the fit stays near it. Deterministic.

Letters in shapes: N objects, C ramps of all curves.
"""

# ruff: noqa: N803, N806  (matrices are upper case)

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ConfigError
from autolabel.core.protocols import RecordReader
from autolabel.core.types import Instance
from autolabel.evaluate.ranking import ranking
from autolabel.ops.masks import is_empty
from autolabel.ops.quality import SIGNALS, Calibration, Curve, Float64, Signal, expected_iou, signals

FEWEST_OBJECTS = 50
"""With fewer the curves say more about chance than about masks."""
FOLDS = 5
KINK_PENALTY = 10.0
SLOPE_PENALTY = 1.0
MOST_STEPS = 50
CONVERGED = 1e-8


@dataclass(frozen=True, slots=True)
class Known:
    """An object and its IoU with the truth; 0 for one that is not there."""

    image_id: str
    instance: Instance
    iou: float


def known(run: RecordReader, objects: Iterable[str], without: Collection[str] = ()) -> Iterator[Known]:
    """The found objects of a run that was evaluated by masks; `objects` are the lines of its `objects.jsonl`. Masks
    that came with the source are left out: nobody asks how good they are. So are the pictures `without` masks for
    all true objects: what is false there would count, and what is right would not."""
    ious: dict[tuple[str, int], float] = {}
    for line in objects:
        row = json.loads(line)
        if row["index"] is not None and row["image_id"] not in without:
            ious[row["image_id"], row["index"]] = row["iou"] or 0.0
    for record in run.records():
        for instance in record.instances:
            iou = ious.get((record.image_id, instance.index))
            mask = instance.mask
            if iou is not None and mask is not None and not is_empty(mask) and instance.origin == "model":
                yield Known(record.image_id, instance, iou)


def fit(objects: Sequence[Known], *, data: str, prior: Calibration | None) -> Calibration:
    """The calibration of these objects, none of them with an empty mask; `data` says in its file where they are
    from. What it says about how well it does is measured on images that were held out, a fifth at a time.

    Raises ConfigError for fewer than FEWEST_OBJECTS.
    """
    if len(objects) < FEWEST_OBJECTS:
        raise ConfigError(
            f"--calibrate needs at least {FEWEST_OBJECTS} found objects with ground truth, there are {len(objects)}; "
            "label more of the pictures that have ground truth, or keep refine.quality.calibration=default"
        )
    rows = signals([one.instance for one in objects])
    ious = np.array([one.iou for one in objects], np.float64)
    fold = np.array([zlib.crc32(one.image_id.encode("utf-8", "surrogateescape")) % FOLDS for one in objects])
    held_out = np.zeros(len(objects))
    for number in np.unique(fold):
        rest = fold != number
        if rest.any():
            held_out[~rest] = expected_iou(rows[~rest], fit_rows(rows[rest], ious[rest], prior))
    about = {
        "data": data,
        "objects": len(objects),
        "images": len({one.image_id for one in objects}),
        "mean_iou": round(float(ious.mean()), 4),
        "held_out": scores(held_out, ious),
        "predicted_iou": scores(rows[:, 0], ious),
    }
    found = fit_rows(rows, ious, prior)
    return Calibration(found.bias, found.curves, about)


def scores(expected: Float64, ious: Float64) -> dict[str, float | None]:
    """How well a score ranks and how far it is off. Objects without one are left out."""
    there = ~np.isnan(expected)
    found = ranking(expected[there].tolist(), ious[there].tolist())
    off = np.abs(expected[there] - ious[there])
    values = {
        "aurc": found.aurc,
        "aurc_best": found.aurc_best,
        "aurc_random": found.aurc_random,
        "spearman": found.spearman,
        "mean_abs_error": float(off.mean()) if len(off) else None,
    }
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def fit_rows(rows: Float64, ious: Float64, prior: Calibration | None) -> Calibration:
    """Curves for rows of `signals` (N, S) and their IoUs (N,). A signal that is always missing or always the same
    gets none."""
    used = [(k, signal) for k, signal in enumerate(SIGNALS) if _says_something(rows[:, k])]
    start = _slopes(prior, [signal for _, signal in used])
    ramps = [_ramps(rows[:, k], signal) for k, signal in used]
    means = [np.nanmean(columns, axis=0) for columns in ramps]
    X = np.concatenate(
        [np.ones((len(rows), 1)), *(np.nan_to_num(r - m) for r, m in zip(ramps, means, strict=True))], axis=1
    )
    weights = _minimised(X, ious, start, _penalty([s for _, s in used]), _rising([s for _, s in used]))
    curves, at = [], 1
    for (_, signal), mean in zip(used, means, strict=True):
        slopes = weights[at : at + signal.steps]
        at += signal.steps
        adds = np.concatenate([[0.0], np.cumsum(slopes)]) - float(slopes @ mean)
        if slopes.any():
            curves.append(Curve(signal.name, signal.low, signal.high, tuple(np.round(adds, 4).tolist())))
    return Calibration(round(float(weights[0]), 4), tuple(curves), {})


def _says_something(values: Float64) -> bool:
    there = values[~np.isnan(values)]
    return len(there) > 0 and float(there.min()) < float(there.max())


def _ramps(values: Float64, signal: Signal) -> Float64:
    """(N, steps): how far each step of the curve is climbed, 0 to 1; NaN where the signal is missing."""
    at = (values - signal.low) / (signal.high - signal.low) * signal.steps
    return np.clip(at[:, None] - np.arange(signal.steps), 0, 1)


def _slopes(prior: Calibration | None, used: Sequence[Signal]) -> Float64:
    """(C,): what each ramp adds in the prior; 0 where it knows nothing."""
    curves = {curve.signal: curve for curve in prior.curves} if prior else {}
    found = [np.zeros(1)]
    for signal in used:
        curve, at = curves.get(signal.name), np.linspace(signal.low, signal.high, signal.steps + 1)
        adds = np.interp(at, np.linspace(curve.low, curve.high, len(curve.adds)), curve.adds) if curve else 0 * at
        found.append(np.diff(adds))
    return np.concatenate(found)


def _penalty(used: Sequence[Signal]) -> Float64:
    """(C, C): half the curvature of what kinks and slopes cost."""
    size = 1 + sum(signal.steps for signal in used)
    found, at = np.zeros((size, size)), 1
    for signal in used:
        kinks = np.diff(np.eye(signal.steps), axis=0)
        block = KINK_PENALTY * kinks.T @ kinks + SLOPE_PENALTY * np.eye(signal.steps)
        found[at : at + signal.steps, at : at + signal.steps] = block
        at += signal.steps
    return found


def _rising(used: Sequence[Signal]) -> NDArray[np.bool_]:
    return np.array([False, *(signal.rising for signal in used for _ in range(signal.steps))])


def _minimised(X: Float64, ious: Float64, start: Float64, penalty: Float64, rising: NDArray[np.bool_]) -> Float64:
    """Newton's method from `start`, from which it is punished to go; a weight that may only rise and wants to fall
    is held at 0 in that step."""
    mean = float(np.clip(ious.mean(), 0.01, 0.99))
    weights = start.copy()
    weights[0] = np.log(mean / (1 - mean))
    for _ in range(MOST_STEPS):
        expected = 1 / (1 + np.exp(-np.clip(X @ weights, -30, 30)))
        H = (X * (expected * (1 - expected))[:, None]).T @ X + penalty
        target = H @ weights + X.T @ (ious - expected) - penalty @ (weights - start)
        step = _solved(H, target, rising) - weights
        weights = weights + step
        if float(np.abs(step).max()) < CONVERGED:
            break
    return weights


def _solved(H: Float64, target: Float64, rising: NDArray[np.bool_]) -> Float64:
    free = np.ones(len(target), bool)
    while True:
        found = np.zeros(len(target))
        found[free] = np.linalg.solve(H[np.ix_(free, free)], target[free])
        falls = rising & (found < 0)
        if not falls.any():
            return found
        free &= ~falls
