"""Does a score say which masks are good? Risk-coverage, rank correlation and calibration of a score against IoU.

The risk of a mask is 1 - IoU with its true mask. Sorted by the score, the best first, the risk of the first k masks
is their mean; the area under this curve (AURC: Geifman, Uziel, El-Yaniv, ICLR 2019, arXiv 1805.08206) is its mean
over all k. Masks of equal score count as in a random order, each with the mean risk of its equals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autolabel.evaluate.scene import Float64

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Masks with a score in [low, high), the last one closed; the means are None for none."""

    low: float
    high: float
    count: int
    mean_score: float | None
    mean_iou: float | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """`aurc` lies between `aurc_best` (sorted by the IoU itself) and, for a score that says nothing, about
    `aurc_random`. All None for no masks; `spearman` also where one side is constant."""

    count: int
    aurc: float | None
    aurc_best: float | None
    aurc_random: float | None
    spearman: float | None
    bins: tuple[Bin, ...]


def ranking(scores: Sequence[float], ious: Sequence[float]) -> Ranking:
    """The ranking of masks with a score and an IoU in [0, 1] each."""
    s, i = np.array(scores, np.float64), np.array(ious, np.float64)
    if not len(s):
        return Ranking(0, None, None, None, None, _bins(s, i))
    return Ranking(
        len(s), aurc(s, i), aurc(i, i), float(np.mean(1 - i)), spearman(s, i), _bins(s, i)
    )  # fmt: skip


def aurc(scores: Float64, ious: Float64) -> float:
    """Area under the risk-coverage curve of at least one mask."""
    _, group, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    mean_risk = np.bincount(group, weights=1 - ious) / counts
    risks = np.repeat(mean_risk, counts)
    return float(np.mean(np.cumsum(risks) / np.arange(1, len(risks) + 1)))


def spearman(a: Float64, b: Float64) -> float | None:
    """Rank correlation, equals with their mean rank; None where one side is constant."""
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    ranks_a, ranks_b = ranks_a - ranks_a.mean(), ranks_b - ranks_b.mean()
    whole = float(np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum()))
    return float((ranks_a * ranks_b).sum()) / whole if whole else None


def _ranks(values: Float64) -> Float64:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group], np.float64)


def _bins(scores: Float64, ious: Float64) -> tuple[Bin, ...]:
    place = np.clip((scores * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    return tuple(
        Bin(
            k / NUM_BINS,
            (k + 1) / NUM_BINS,
            int(np.count_nonzero(place == k)),
            float(scores[place == k].mean()) if (place == k).any() else None,
            float(ious[place == k].mean()) if (place == k).any() else None,
        )
        for k in range(NUM_BINS)
    )
