"""Which found object is which true one, and what is wrong with the others. Pure; knows no file and no picture.

Matching is greedy by score, as COCO's evaluation does it: the found objects in order of their rank, each takes the
free true object of the highest IoU that reaches the threshold; only where there is none, an ignored region absorbs
it (any number of times). A found object that is absorbed is judged neither right nor wrong.

The kinds of errors follow TIDE (Bolya et al. 2020, arXiv 2008.08115), with the difference that here every object,
found or true, is in exactly one of them, so that the counts add up. In this order:

- matched: IoU of at least `iou` with a true object of its class, one to one.
- wrong_class: the same with a true object of another class that is still free.
- duplicate: IoU of at least `iou` with a true object that is taken.
- poor_mask: IoU of at least 0.1 with a free true object of its class, one to one.
- false: everything else that was found.
- missed: every true object that is still free.

Letters in shapes: N found and M true objects of one picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.evaluate.scene import Box, Float64, Scene, box_ious

Kind = Literal["matched", "missed", "false", "wrong_class", "poor_mask", "duplicate"]
ERRORS: tuple[Kind, ...] = ("missed", "false", "wrong_class", "poor_mask", "duplicate")
BACKGROUND_IOU = 0.1
"""Below, two objects have nothing to do with one another: TIDE's t_b."""
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one object. `found` and `truth` are positions in the scene, None where there is none; `iou`
    is that of the two, of a false one the highest with any true object."""

    kind: Kind
    found: int | None
    truth: int | None
    iou: float | None


def greedy(
    ious: Float64,
    order: Sequence[int],
    threshold: float,
    *,
    allowed: NDArray[np.bool_] | None = None,
    ignored: NDArray[np.bool_] | None = None,
) -> list[int]:
    """For each found object the true one that it takes, or NOBODY. Among equal IoUs the last one, as pycocotools."""
    n, m = ious.shape
    taken = [NOBODY] * n
    if not m:
        return taken
    usable = ious.copy() if allowed is None else np.where(allowed, ious, -1.0)
    region = np.zeros(m, np.bool_) if ignored is None else ignored
    least = min(threshold, 1 - 1e-10)
    for i in order:
        objects = np.where(region, -1.0, usable[i])
        best = _last_highest(objects)
        if objects[best] < least:
            best = _last_highest(np.where(region, usable[i], -1.0))
            if not region[best] or usable[i, best] < least:
                continue
        taken[i] = best
        if not region[best]:
            usable[:, best] = -1.0
    return taken


def _last_highest(values: Float64) -> int:
    return len(values) - 1 - int(np.argmax(values[::-1]))


def by_iou(scene: Scene, iou: float) -> list[Judgement]:
    """Every object of the picture in its kind: the found ones in their order, then the missed ones."""
    same, ignored = scene.same_class, scene.ignored
    match = greedy(scene.ious, scene.order, iou, allowed=same, ignored=ignored)
    absorbed = {i for i, t in enumerate(match) if t != NOBODY and ignored[t]}
    kinds: dict[int, Judgement] = {}

    def enter(kind: Kind, taken: Sequence[int]) -> None:
        for i, t in enumerate(taken):
            if t != NOBODY and i not in absorbed and i not in kinds:
                kinds[i] = Judgement(kind, i, t, float(scene.ious[i, t]))

    def free() -> NDArray[np.bool_]:
        """(N, M): neither is taken, and the true one is not a region."""
        open_found = np.array([i not in kinds and i not in absorbed for i in range(len(match))], np.bool_)
        open_truth = ~ignored
        open_truth[[v.truth for v in kinds.values() if v.kind != "duplicate" and v.truth is not None]] = False
        return open_found[:, None] & open_truth[None]

    enter("matched", match)
    enter("wrong_class", greedy(scene.ious, scene.order, iou, allowed=free() & ~same))
    enter("duplicate", _taken(scene, iou, {v.truth for v in kinds.values()}))
    enter("poor_mask", greedy(scene.ious, scene.order, BACKGROUND_IOU, allowed=free() & same))
    for i in range(len(scene.found)):
        if i not in kinds and i not in absorbed:
            kinds[i] = Judgement("false", i, None, float(scene.ious[i][~ignored].max(initial=0.0)))
    return [kinds[i] for i in sorted(kinds)] + _missed(scene, kinds.values())


def _taken(scene: Scene, iou: float, truth: set[int | None]) -> list[int]:
    """For each found object the true one among `truth` that it covers best."""
    known = np.array([t in truth for t in range(len(scene.truth))], np.bool_)
    covered = np.where(known[None], scene.ious, -1.0)
    return [_last_highest(row) if len(row) and row.max() >= min(iou, 1 - 1e-10) else NOBODY for row in covered]


def by_annotation(scene: Scene, pairs: dict[int, int], iou: float) -> list[Judgement]:
    """The same for a run whose boxes are the annotations themselves: `pairs` leads from the found object to the
    true one whose box asked for it. A pair below `iou` has a poor mask, however poor."""
    judgements = [
        Judgement("matched" if scene.ious[i, t] >= iou else "poor_mask", i, t, float(scene.ious[i, t]))
        for i, t in sorted(pairs.items())
        if not scene.truth[t].ignored
    ]
    return judgements + _missed(scene, judgements)


def _missed(scene: Scene, judgements: Iterable[Judgement]) -> list[Judgement]:
    used = {j.truth for j in judgements if j.kind != "duplicate"}
    return [
        Judgement("missed", None, t, None)
        for t, one in enumerate(scene.truth)
        if not one.ignored and t not in used
    ]


def by_prompt(scene: Scene, iou: float) -> dict[int, int]:
    """Found objects to the true ones that their prompt boxes meet, one to one, whatever the class and the mask: the
    pairs that show what the segmenter made of a right box."""
    if not scene.found or not scene.truth:
        return {}
    prompts: list[Box] = [f.prompt_xyxy for f in scene.found]
    ious = box_ious(prompts, [t.box_xyxy for t in scene.truth], np.zeros(len(scene.truth), np.bool_))
    order = sorted(range(len(prompts)), key=lambda i: -(scene.found[i].scores[-1] or 0.0))
    free = np.broadcast_to(~scene.ignored, ious.shape)
    return {i: t for i, t in enumerate(greedy(ious, order, iou, allowed=free)) if t != NOBODY}
