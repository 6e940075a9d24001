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
from autolabel.ops.views import View, ask_views
from autolabel.ops.windows import Window


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
        View(picture, window, rows)
        for picture, (one, bad) in enumerate(zip(prompts, problems, strict=True))
        for window, rows in _by_window(one, bad).items()
    ]
    given = ask_views(segmenter, frames, prompts, views)
    return lambda: [
        settled(one, bad, answers, image)
        for one, bad, answers, image in zip(prompts, problems, given(), images, strict=True)
    ]


def _by_window(prompts: Prompts, bad: Mapping[int, str]) -> dict[Window | None, list[int]]:
    """The sound prompts by the part of the picture that they are about, in their order."""
    rows: dict[Window | None, list[int]] = defaultdict(list)
    for row in range(len(prompts)):
        if row not in bad:
            x = prompts.windows_xyxy
            rows[None if x is None else _window(x[row])].append(row)
    return rows


def _window(row: np.ndarray) -> Window:
    x0, y0, x1, y1 = (int(v) for v in row)
    return x0, y0, x1, y1


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
