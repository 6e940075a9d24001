"""A mask that is roughly right, to be sharpened: one that came with the labels, or that an earlier run made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from autolabel.core.protocols import About
from autolabel.core.types import Detections, Float32, Frame, Labels, Prompts, Rle
from autolabel.ops.boxes import iou_xyxy
from autolabel.ops.settings import flag, fraction
from autolabel.prompt.box import box_prompts


class EarlierMasks(Protocol):
    """Objects that were found before."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Their content in a few letters; empty when there are none."""

    @property
    def image_ids(self) -> Iterator[str]:
        """The images that have objects."""

    def of(self, image_id: str, sha256: str) -> tuple[Float32, Sequence[Rle]]:
        """The boxes (N, 4) of an image's objects and their masks, if they are of the file with this sha256."""

    def has_same(self, image_id: str, sha256: str) -> bool:
        """False for an image of which only another file has objects."""


class MaskPrompter:
    """Asks with the mask that an object already has. With `run`, that is the mask of the object of that run whose
    box has the highest IoU with the detection's, at least `min_iou`, in the same file; without, the one that
    `detect=labels detect.keep_masks=false` hands on. With `box` the detection's box is asked with it, widened by `pad`;
    then an object without a mask is asked for with its box alone.
    """

    def __init__(self, *, run: str | None, earlier: EarlierMasks, min_iou: float, box: bool, pad: float) -> None:
        self._earlier = None if run is None else earlier
        self._min_iou = fraction("min_iou", min_iou)
        self.box_alone = flag("box", box)
        self._pad = fraction("pad", pad)

    @property
    def about(self) -> About:
        return "masks" if self._earlier is None else "boxes"

    @property
    def image_ids(self) -> Iterator[str] | None:
        """The pictures that the run has masks of; None without a run."""
        return None if self._earlier is None else self._earlier.image_ids

    def is_other(self, image_id: str, sha256: str) -> bool:
        """Whether the run has masks of a picture of this id whose file had other bytes: they are not asked with."""
        return self._earlier is not None and not self._earlier.has_same(image_id, sha256)

    def knows(self, labels: Labels, row: int) -> bool:
        """Whether an annotation has a mask to ask with."""
        return labels.shapes[row] is not None

    @property
    def identity(self) -> Mapping[str, str]:
        return {} if self._earlier is None else self._earlier.identity

    def prompt(
        self, frames: Sequence[Frame], detections: Sequence[Detections], asked: Sequence[Sequence[int]]
    ) -> list[Prompts]:
        return [self._one(*one) for one in zip(frames, detections, asked, strict=True)]

    def _one(self, frame: Frame, found: Detections, rows: Sequence[int]) -> Prompts:
        known = self._known(frame, found)
        prompts = replace(box_prompts(frame, found, rows, self._pad), masks=tuple(known[row] for row in rows))
        if self.box_alone:
            return prompts
        missing = [row for row in rows if known[row] is None]
        asked = prompts.select([i for i, row in enumerate(rows) if known[row] is not None])
        return replace(asked, boxes_xyxy=None, refused=dict.fromkeys(missing, "no_prompt: it has no earlier mask"))

    def _known(self, frame: Frame, found: Detections) -> Sequence[Rle | None]:
        if self._earlier is None:
            return found.replaced
        boxes, masks = self._earlier.of(frame.ref.image_id, frame.info.sha256)
        known: list[Rle | None] = [None] * len(found)
        for row, other in matches(found.boxes_xyxy, boxes, self._min_iou):
            known[row] = masks[other]
        return known


def matches(a_xyxy: Float32, b_xyxy: Float32, min_iou: float) -> list[tuple[int, int]]:
    """Pairs of boxes, each box in one at most, best IoU first; ties in the order given."""
    overlaps = iou_xyxy(a_xyxy, b_xyxy)
    pairs = []
    for flat in np.argsort(-overlaps, axis=None, kind="stable").tolist():
        row, other = divmod(flat, overlaps.shape[1])
        if overlaps[row, other] <= 0 or overlaps[row, other] < min_iou:
            break
        pairs.append((row, other))
    taken: tuple[set[int], set[int]] = (set(), set())
    return [pair for pair in pairs if not _taken(pair, taken)]


def _taken(pair: tuple[int, int], taken: tuple[set[int], set[int]]) -> bool:
    """Whether either box has its partner; if not, both have now."""
    if pair[0] in taken[0] or pair[1] in taken[1]:
        return True
    taken[0].add(pair[0])
    taken[1].add(pair[1])
    return False
