"""What follows the model alone: from low-resolution logits to run lengths, the usual way against the direct one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from autolabel.core.types import Rle
from autolabel.ops.masks import encode
from autolabel.ops.rle import logits_to_rle
from benchmarks.page import table
from benchmarks.pictures import SIZES_HW

AT_ONCE = 20
"""Calls of the direct way that are timed together: one is too short."""


def tail_table(repeats: int) -> list[str]:
    """10 masks of each size, the two ways in turns: medians, and the ratio pair by pair."""
    fused = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    logits = blobs(10)
    rows = []
    for name, size in SIZES_HW.items():

        def usual(size: tuple[int, int] = size) -> list[Rle]:
            return [reference_rle(one, size) for one in logits]

        def direct(size: tuple[int, int] = size) -> list[Rle]:
            return [logits_to_rle(one, size, fused=fused) for one in logits]

        same = sum(a == b for a, b in zip(usual(), direct(), strict=True))
        times = [(cpu_seconds(usual), cpu_seconds(direct, AT_ONCE)) for _ in range(repeats)]
        slow, fast = (statistics.median(column) * 1000 / len(logits) for column in zip(*times, strict=True))
        rows.append(
            {
                "picture": name,
                "reference, ms a mask": f"{slow:.2f}",
                "direct, ms a mask": f"{fast:.3f}",
                "ratio": f"{statistics.median(a / b for a, b in times):.0f}",
                "identical bytes": f"{same} of {len(logits)}",
            }
        )
    return ["## Mask tail: 256 x 256 logits to COCO RLE, 10 masks\n", *table(rows), ""]


def cpu_seconds(call: Callable[[], object], times: int = 1) -> float:
    """Of one call; the mean of several."""
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def reference_rle(logits: np.ndarray, size: tuple[int, int]) -> Rle:
    full = F.interpolate(torch.from_numpy(logits)[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return encode((full > 0).numpy())


def blobs(count: int) -> list[np.ndarray]:
    """Wobbly ellipses of about 3 % of the area, as logits."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:256, 0:256]
    found = []
    for _ in range(count):
        y, x = random.uniform(50, 206, 2)
        angle = np.arctan2(rows - y, columns - x)
        wobble = 1 + 0.15 * np.sin(random.integers(3, 8) * angle + random.uniform(0, 6))
        found.append(
            (25 * wobble - np.hypot(rows - y, (columns - x) * random.uniform(0.7, 1.4))).astype(np.float32)
        )
    return found
