"""What components give back, looked at once a batch where it enters. What no label could be made of ends the run at the
first picture, with a line that names the component: after hours of labelling nobody could say whose it was.

Numbers are judged elsewhere (`ops.boxes`, `ops.points`): a box may be bad, and is dropped alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import chain
from numbers import Real
from operator import attrgetter, is_
from types import NoneType
from typing import Any, TypeVar

import numpy as np

from autolabel.core.errors import ComponentError, Malformed
from autolabel.core.protocols import Detector, InstanceModel, Later, LateSegmenter, Prompter, Refiner, Segmenter
from autolabel.core.text import counted
from autolabel.core.types import (
    NO_OBJECT,
    Category,
    Detections,
    Dropped,
    Frame,
    ImageInfo,
    Instance,
    Instances,
    PromptedMask,
    Prompts,
    Rle,
)


@contextmanager
def blaming(key: str, component: object) -> Iterator[None]:
    """What is `Malformed` meanwhile is this component's, which is set at `key`: raises ComponentError for it."""
    try:
        yield
    except Malformed as error:
        kind = type(component)
        raise ComponentError(f"{key} ({kind.__module__}.{kind.__qualname__}): {error}") from error


def require_categories(key: str, component: Detector | InstanceModel) -> None:
    """Raises ComponentError for classes that files could not tell apart. None, which are the source's, are sound."""
    categories: object = component.categories
    if categories is None:
        return
    with blaming(key, component):
        found = listed(categories)
        if not found:
            raise Malformed("categories is empty; it must hold the classes that it finds")
        for one in found:
            if not (isinstance(one, Category) and type(one.id) is int and one.id >= 0):
                raise Malformed(
                    f"categories must hold Category(id, name) with whole ids from 0 on, got {one!r:.100}"
                )
            if not (isinstance(one.name, str) and one.name.strip()):
                raise Malformed(f"class {one.id} needs a name, got {one.name!r:.100}")
        names: dict[int, str] = {}
        for one in found:
            if one.id in names:
                raise Malformed(f"the classes {names[one.id]!r} and {one.name!r} have the same id {one.id}")
            names[one.id] = one.name


def detections_of(
    detector: Detector, frames: Sequence[Frame], categories: Sequence[Category], key: str = "detect"
) -> list[Detections]:
    """What a detector finds in each picture, in these classes; none given: they are not known yet. Raises
    ComponentError."""
    ids = {category.id for category in categories}
    with blaming(key, detector):
        found = one_each(detector.detect(frames), len(frames))
        for frame, some in zip(frames, found, strict=True):
            name = repr(frame.ref.image_id)
            if not isinstance(some, Detections):
                raise Malformed(f"{name}: it must give Detections, got a {type(some).__name__}")
            _require_classes(some.category_ids.tolist(), ids, name)
            for mask in chain(some.masks, some.replaced):
                if mask is not None:
                    require_mask(mask, frame.info.size_hw, name)
        return [_with_plain_columns(some) for some in found]


def _with_plain_columns(some: Detections) -> Detections:
    """numpy's numbers cannot be stored. Raises Malformed for what is none."""
    changed: dict[str, Any] = {}
    for column, kind in (("source_ids", int), ("crowd", bool), ("extras", str), ("notes", str)):
        values = getattr(some, column)
        odd = {type(value) for value in values} - ({kind, NoneType} if kind is int else {kind})
        if any(not issubclass(one, np.generic) or kind is str for one in odd):
            raise Malformed(f"{column} must hold {kind.__name__}, got {sorted(one.__name__ for one in odd)[0]}")
        if odd:
            changed[column] = tuple(None if value is None else kind(value) for value in values)
    return replace(some, **changed) if changed else some


def instances_of(
    model: InstanceModel, frames: Sequence[Frame], categories: Sequence[Category], key: str = "labeler"
) -> list[Instances]:
    """What a model of one step finds in each picture, in these classes. Raises ComponentError."""
    ids = {category.id for category in categories}
    with blaming(key, model):
        found = one_each(model.find(frames), len(frames))
        for frame, some in zip(frames, found, strict=True):
            name = repr(frame.ref.image_id)
            if not isinstance(some, Instances) or {type(one) for one in some.found} - {Instance}:
                raise Malformed(f"{name}: it must give Instances of Instance objects, got {some!r:.60}")
            if {type(note) for note in some.notes} - {str}:
                raise Malformed(f"{name}: notes must hold str, got {some.notes!r:.60}")
            if [one.index for one in some.found] != list(range(len(some.found))):
                raise Malformed(f"{name}: the index of an instance must be its position, counted from 0")
            _require_classes([one.category_id for one in some.found], ids, name)
            for one in some.found:
                if one.mask is not None:
                    require_mask(one.mask, frame.info.size_hw, name)
        return [replace(some, found=tuple(_plain_instance(one) for one in some.found)) for some in found]


def _plain_instance(one: Instance) -> Instance:
    box = tuple(one.box_xyxy)
    kinds = {type(value) for value in (*box, one.detector_score, *_scores(one))}
    if box is one.box_xyxy and len(box) == 4 and kinds <= {float, NoneType} and type(one.category_id) is int:
        return one
    if len(box) != 4 or not all(isinstance(value, Real) for value in box):
        raise Malformed(f"box_xyxy must be four numbers, got {one.box_xyxy!r:.60}")
    x0, y0, x1, y1 = map(float, box)
    scores = _plain_scores(one, ("detector_score", *_SCORES))
    return replace(scores, category_id=int(one.category_id), box_xyxy=(x0, y0, x1, y1))


_SCORES = ("predicted_iou", "object_score", "stability", "agreement")
_scores = attrgetter(*_SCORES)
Scored = TypeVar("Scored", Instance, PromptedMask)


def _plain_scores(one: Scored, names: Sequence[str] = _SCORES) -> Scored:
    """numpy's numbers cannot be stored. Raises Malformed for what is none."""
    changed: dict[str, Any] = {}
    for name in names:
        value = getattr(one, name)
        if value is not None and not isinstance(value, Real):
            raise Malformed(f"{name} must be a number, got {value!r:.60}")
        if value is not None:
            changed[name] = float(value)
    return replace(one, **changed)


def _require_classes(numbers: Sequence[int], ids: Collection[int], name: str) -> None:
    unknown = set(numbers).difference(ids)
    if ids and unknown:
        known = ", ".join(map(str, sorted(ids)[:9])) + (", ..." if len(ids) > 9 else "")
        raise Malformed(f"{name}: an object is of class {min(unknown)}, but the classes have the ids {known}")


def prompts_of(
    prompter: Prompter, frames: Sequence[Frame], detections: Sequence[Detections], asked: Sequence[Sequence[int]]
) -> list[Prompts]:
    """What is asked about each picture. Raises ComponentError."""
    with blaming("prompt", prompter):
        given = one_each(prompter.prompt(frames, detections, asked), len(frames))
        for frame, found, some in zip(frames, detections, given, strict=True):
            _require_objects(some, frame.ref.image_id, len(found))
    return given


def _require_objects(prompts: Prompts, image_id: str, detections: int) -> None:
    """Every prompt is for a detection, an added object or whatever is there, every refusal for one of the first two."""
    if not isinstance(prompts, Prompts):
        raise Malformed(f"{image_id!r}: it must give Prompts, got a {type(prompts).__name__}")
    for kind in {type(mask) for mask in prompts.masks or ()} - {Rle, NoneType}:
        raise Malformed(f"{image_id!r}: masks must hold Rles or None, got a {kind.__name__}")
    end, numbers = detections + prompts.added, prompts.object_numbers
    beyond = [*numbers[(numbers < NO_OBJECT) | (numbers >= end)].tolist()]
    beyond += [number for number in prompts.refused if not 0 <= number < end]
    if beyond:
        raise Malformed(
            f"{image_id!r}: there is no object {beyond[0]} to ask about or to refuse: it has {detections} detections, "
            f"{prompts.added} are added, numbered from 0 ({NO_OBJECT}: whatever is there)"
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What must be known of a question to judge its answers: the picture, its size, and how many prompts there are."""

    image_id: str
    size_hw: tuple[int, int]
    prompts: int


def answers_of(
    segmenter: Segmenter, frames: Sequence[Frame], prompts: Sequence[Prompts], key: str = "segment"
) -> Later:
    """What a segmenter answers, at once or later. Raises ComponentError, then or there."""
    asked = [
        Asked(frame.ref.image_id, frame.info.size_hw, len(some))
        for frame, some in zip(frames, prompts, strict=True)
    ]
    later: Later | None = None
    given: object = None
    with blaming(key, segmenter):
        if isinstance(segmenter, LateSegmenter):
            later = segmenter.begin(frames, prompts)
        else:
            given = segmenter.segment(frames, prompts)

    def settle() -> list[list[PromptedMask]]:
        with blaming(key, segmenter):
            answers = one_each(given if later is None else later(), len(asked))
            return [_answers(some, one) for some, one in zip(answers, asked, strict=True)]

    return settle


_FIXED = tuple(field.name for field in fields(Instance) if field.name not in ("mask", "polygons", "quality"))
_fixed = attrgetter(*_FIXED)


def refined_by(
    refiner: Refiner, instances: Sequence[Instance], image: ImageInfo
) -> tuple[Sequence[Instance], Sequence[Dropped]]:
    """What a refiner keeps, and what it drops. Raises ComponentError where an instance is lost, repeated or invented,
    or differs in more than its mask and quality."""
    with blaming("refine", refiner):
        given = refiner.refine(instances, image)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise Malformed("it must give two lists, the instances that are kept and those dropped")
        kept, dropped = listed(given[0]), listed(given[1])
        if not dropped and len(kept) == len(instances) and all(map(is_, kept, instances)):
            return kept, dropped
        for one in dropped:
            if not isinstance(one, Dropped):
                raise Malformed(f"what it drops must be Dropped, got a {type(one).__name__}")
            if not isinstance(one.reason, str) or not one.reason.strip():
                raise Malformed(f"what it drops needs a reason such as 'min_area: 9 < 16 px', got {one.reason!r}")
        _require_same([*kept, *(one.instance for one in dropped)], instances)
    return kept, dropped


def _require_same(after: Sequence[Instance], before: Sequence[Instance]) -> None:
    """Every instance once, in any order, and as it was but for its mask and quality."""
    for kind in {type(one) for one in after} - {Instance}:
        raise Malformed(f"it must give Instances, got a {kind.__name__}")
    of_index = {one.index: one for one in before}
    for one in after:
        was = of_index.pop(one.index, None)
        if was is None:
            raise Malformed(f"instance {one.index!r} was not given to it, or comes back twice")
        if one is not was:
            _require_fixed(one, was)
    if of_index:
        raise Malformed(f"instance {min(of_index)} is neither kept nor dropped")


def _require_fixed(one: Instance, was: Instance) -> None:
    if _fixed(one) != _fixed(was):
        name = next(name for name in _FIXED if getattr(one, name) != getattr(was, name))
        raise Malformed(
            f"instance {one.index} has another {name}, {getattr(one, name)!r:.60} in place of "
            f"{getattr(was, name)!r:.60}; a refiner may change masks and quality alone"
        )
    if one.polygons is not None and one.polygons != was.polygons:
        raise Malformed(f"instance {one.index} has other polygons; with_mask gives it another mask")
    if one.mask is not was.mask and was.mask is not None:
        require_mask(one.mask, was.mask.size_hw, f"instance {one.index}")
    if one.quality is not None and not isinstance(one.quality, Real):
        raise Malformed(f"instance {one.index}: quality must be a number or None, got {one.quality!r:.60}")


def require_mask(mask: object, size_hw: tuple[int, int], what: str) -> None:
    """Raises Malformed for what is not a mask of this size."""
    if not isinstance(mask, Rle) or type(mask.counts) is not bytes:
        raise Malformed(
            f"{what}: a mask must be an Rle with counts in bytes (autolabel.ops.masks.encode makes one of an array), "
            f"got {mask!r:.60}"
        )
    if mask.size_hw != size_hw:
        raise Malformed(f"{what}: a mask has the size {mask.size_hw}, which must be {size_hw} (height, width)")


def one_each(given: object, count: int) -> list[Any]:
    """A list of `count`."""
    found = listed(given)
    if len(found) != count:
        raise Malformed(
            counted(
                count, "it was asked about {} picture[|s] and gave a list of {}: one each is needed", len(found)
            )
        )
    return found


def listed(given: object) -> list[Any]:
    if not isinstance(given, Iterable):
        raise Malformed(f"it must give a list, got a {type(given).__name__}")
    return list(given)


def _answers(given: object, asked: Asked) -> list[PromptedMask]:
    found = listed(given)
    for kind in {type(answer) for answer in found} - {PromptedMask}:
        raise Malformed(f"{asked.image_id!r}: its answers must be PromptedMasks, got a {kind.__name__}")
    numbers = [answer.prompt for answer in found]
    for kind in {type(number) for number in numbers} - {int}:
        if not issubclass(kind, np.integer):
            raise Malformed(f"{asked.image_id!r}: the number of a prompt must be an int, got a {kind.__name__}")
    if numbers and not 0 <= min(numbers) <= max(numbers) < asked.prompts:
        wrong = min(numbers) if min(numbers) < 0 else max(numbers)
        raise Malformed(
            counted(
                asked.prompts,
                "{1!r}: it answered prompt {2} of {0} prompt[|s], which are numbered from 0",
                asked.image_id,
                wrong,
            )
        )
    name = repr(asked.image_id)
    for answer in found:
        require_mask(answer.mask, asked.size_hw, name)
    odd = {type(score) for answer in found for score in _scores(answer)} - {float, NoneType}
    return [_plain_scores(answer) for answer in found] if odd else found
