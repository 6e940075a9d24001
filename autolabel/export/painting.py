"""Objects painted into one image of numbers, and read out of it again.

A pixel has one owner. Objects are painted over crowds; among objects the policy `overlaps` has decided before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.core.types import ImageRecord, Instance, Rle, Verdict
from autolabel.export.pictures import Pictures
from autolabel.export.policy import Policy, policy_of, prepared
from autolabel.ops.index_png import Ids
from autolabel.ops.masks import decode_crop, encode_crop, mask_of
from autolabel.ops.settings import count, one_of

_WIDEST_PX = 100
"""The widest border."""

VOID_NOTES: dict[str, str] = {
    "void_px": "{} [pixel at an outline is|pixels at outlines are] void (border)",
    "void_crowds": "{} crowd [region is|regions are] void",
}
"""What exporters that paint count of what is void, as lines for the report."""


@dataclass(frozen=True, slots=True)
class Painting:
    """What a format that paints objects into one picture is set to: which objects it has (`own`), the same with who
    owns a pixel of several (`policy`), how pictures get there, and what is void."""

    own: Policy
    policy: Policy
    pictures: Pictures
    border_px: int
    crowds_are_void: bool

    def border(self, ids: Ids, counts: Counter[str]) -> NDArray[np.bool_]:
        """(H, W): the pixels at outlines that are void."""
        if not self.border_px:
            return np.zeros(ids.shape, bool)
        found = _outlines(ids, self.border_px)
        counts["void_px"] += int(found.sum())
        return found


def painting_of(
    *,
    images: Literal["copy", "link", "upright"],
    holes: Literal["keep", "fill"],
    parts: Literal["keep", "largest"],
    overlaps: Literal["score", "smallest"],
    min_area_px: int,
    crowd: str,
    void: str,
    border_px: int,
) -> Painting:
    """The settings of an exporter, which calls what is not labelled `void`. Raises ConfigError naming the one
    that is wrong."""
    one_of("images", images, ("copy", "link", "upright"))
    one_of("parts", parts, ("keep", "largest"))
    one_of("overlaps", overlaps, ("score", "smallest"))
    one_of("crowd", crowd, (void, "keep", "drop"))
    count(f"{void}_border_px", border_px, 0, _WIDEST_PX)
    own = {
        "holes": holes,
        "parts": parts,
        "min_area_px": min_area_px,
        "crowd": "drop" if crowd == "drop" else "keep",
    }
    return Painting(
        policy_of(**own),
        policy_of(**own, overlaps=overlaps),
        Pictures(mode=images),
        border_px,
        crowd == void,
    )


def visible(
    record: ImageRecord, objects: Sequence[Instance], policy: Policy, counts: Counter[str]
) -> list[Instance]:
    """What of each object the policy `overlaps` leaves to see, for objects that are prepared in all else."""
    of_objects = replace(record, candidates=tuple(objects), verdicts=(Verdict(),) * len(objects))
    return prepared(of_objects, Policy(overlaps=policy.overlaps), counts)


def paint(canvas: NDArray[np.integer], objects: Iterable[tuple[Instance, int]]) -> None:
    """Give every object's pixels its number; crowds first, so that objects lie over them."""
    for instance, number in sorted(objects, key=lambda pair: not pair[0].crowd):
        crop, x0, y0 = decode_crop(mask_of(instance))
        canvas[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]][crop > 0] = number


def regions(ids: NDArray[np.integer]) -> dict[int, Rle]:
    """The pixels of every number but 0 that an image (H, W) holds. Costs what the image costs, and for each number what
    its box costs."""
    height, width = ids.shape
    flat = ids.ravel()
    starts = np.ones(flat.size, bool)  # of runs of one number within a row
    starts[1:] = flat[1:] != flat[:-1]
    starts[::width] = True
    begin = np.flatnonzero(starts)
    end = np.append(begin[1:], flat.size)
    begin, end = begin[flat[begin] != 0], end[flat[begin] != 0]
    order = np.argsort(flat[begin], kind="stable")
    begin, end = begin[order], end[order]
    numbers, first = np.unique(flat[begin], return_index=True)
    if not len(numbers):
        return {}
    rows = begin // width
    boxes = zip(
        np.minimum.reduceat(begin - rows * width, first).tolist(),
        np.minimum.reduceat(rows, first).tolist(),
        np.maximum.reduceat(end - rows * width, first).tolist(),
        (np.maximum.reduceat(rows, first) + 1).tolist(),
        strict=True,
    )
    return {
        number: encode_crop((ids[y0:y1, x0:x1] == number).astype(np.uint8), x0, y0, (height, width))
        for number, (x0, y0, x1, y1) in zip(numbers.tolist(), boxes, strict=True)
    }


def _outlines(ids: Ids, width_px: int) -> NDArray[np.bool_]:
    """(H, W): pixels with another number within `width_px` of them, in any of the eight directions."""
    kernel = np.ones((2 * width_px + 1, 2 * width_px + 1), np.uint8)
    found: NDArray[np.bool_] = cv2.dilate(ids, kernel) != cv2.erode(ids, kernel)
    return found
