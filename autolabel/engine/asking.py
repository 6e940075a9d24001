"""From questions to at most one answer an object: what cannot be asked stops here, windows are cut out of the
picture and their masks put back, and several answers to one object become one. Decides nothing about labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autolabel.core.protocols import Segmenter
from autolabel.core.types import NO_OBJECT, Frame, ImageInfo, PromptedMask, Prompts
from autolabel.engine.sifting import sifted
from autolabel.ops.masks import ious
from autolabel.ops.points import prompt_problems
from autolabel.ops.returned import answers_of
from autolabel.ops.views import frame_view, prompts_view
from autolabel.ops.windows import Window, paste


@dataclass(frozen=True, slots=True)
class Answers:
    """About one image: the answer to each object by its number, why others have none, and objects without number."""

    by_object: Mapping[int, PromptedMask]
    reasons: Mapping[int, str]
    found: tuple[PromptedMask, ...] = ()
    added: int = 0


def ask(segmenter: Segmenter, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> Callable[[], list[Answers]]:
    """Every sound question is asked, those about one view together; images without any cost nothing. What is returned
    gives the answers, from any thread, and holds no pixels."""
    images = [frame.info for frame in frames]
    problems = [prompt_problems(one, image.size_hw) for image, one in zip(images, prompts, strict=True)]
    views = [
        (number, rows, window)
        for number, (one, bad) in enumerate(zip(prompts, problems, strict=True))
        for window, rows in _views(one, bad).items()
    ]
    seen = [_view(frames[number], prompts[number].select(rows), window) for number, rows, window in views]
    given = answers_of(segmenter, [frame for frame, _ in seen], [asked for _, asked in seen]) if seen else list

    def settle() -> list[Answers]:
        answers: list[list[tuple[Window | None, PromptedMask]]] = [[] for _ in prompts]
        for (number, rows, window), masks in zip(views, given(), strict=True):
            size_hw = images[number].size_hw
            answers[number] += [(window, _in_picture(mask, rows, window, size_hw)) for mask in masks]
        return [
            settled(one, bad, answer, image)
            for one, bad, answer, image in zip(prompts, problems, answers, images, strict=True)
        ]

    return settle


def _views(prompts: Prompts, bad: Mapping[int, str]) -> dict[Window | None, list[int]]:
    """The sound prompts by the part of the picture that they are about, in their order."""
    views: dict[Window | None, list[int]] = defaultdict(list)
    for row in range(len(prompts)):
        if row not in bad:
            x = prompts.windows_xyxy
            views[None if x is None else _window(x[row])].append(row)
    return views


def _window(row: np.ndarray) -> Window:
    x0, y0, x1, y1 = (int(v) for v in row)
    return x0, y0, x1, y1


def _view(frame: Frame, prompts: Prompts, window: Window | None) -> tuple[Frame, Prompts]:
    return (frame, prompts) if window is None else (frame_view(frame, window), prompts_view(prompts, window))


def _in_picture(
    mask: PromptedMask, rows: Sequence[int], window: Window | None, size_hw: tuple[int, int]
) -> PromptedMask:
    if window is None:
        return mask if rows[mask.prompt] == mask.prompt else replace(mask, prompt=rows[mask.prompt])
    return replace(mask, prompt=rows[mask.prompt], mask=paste(mask.mask, window, size_hw))


def settled(
    prompts: Prompts,
    problems: Mapping[int, str],
    answers: Sequence[tuple[Window | None, PromptedMask]],
    image: ImageInfo,
) -> Answers:
    """At most one answer an object, and a reason for each object that was asked for in vain."""
    objects = prompts.object_numbers
    of_object: dict[int, list[PromptedMask]] = defaultdict(list)
    for _, answer in answers:
        of_object[int(objects[answer.prompt])].append(answer)
    loose = [(window, answer) for window, answer in answers if objects[answer.prompt] == NO_OBJECT]
    of_object.pop(NO_OBJECT, None)
    reasons = dict(prompts.refused)
    for row, number in enumerate(objects.tolist()):
        if number != NO_OBJECT and number not in of_object:
            reasons.setdefault(number, problems.get(row, "no_mask: the segmenter gave no mask"))
    return Answers(
        {number: kept(some, prompts.keep) for number, some in of_object.items()},
        reasons,
        tuple(answer for _, answer in loose) if prompts.sieve is None else sifted(loose, prompts.sieve, image),
        prompts.added,
    )


def kept(answers: Sequence[PromptedMask], keep: str) -> PromptedMask:
    """One of the answers about one object, with its mean IoU with the others. `medoid`: where that is highest."""
    answers = sorted(answers, key=lambda answer: answer.prompt)
    if len(answers) == 1:
        return answers[0]
    masks = [answer.mask for answer in answers]
    agreements = (ious(masks, masks).sum(axis=1) - 1) / (len(masks) - 1)
    chosen = 0 if keep == "first" else int(agreements.argmax())
    return replace(answers[chosen], agreement=float(np.clip(agreements[chosen], 0, 1)))
