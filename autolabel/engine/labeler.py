"""The pipeline: detect, prompt, segment, refine. Says what is computed; knows no threads and no files but pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from autolabel.core.errors import ConfigError, ImageError
from autolabel.core.protocols import (
    AsksAbout,
    BatchLimit,
    Detector,
    FindsNew,
    Finish,
    Prompter,
    Refiner,
    Segmenter,
)
from autolabel.core.types import (
    BEFORE_REFINING,
    NO_OBJECT,
    UNLABELLED,
    Category,
    Detections,
    Frame,
    ImageInfo,
    ImageRecord,
    ImageRef,
    Instance,
    PromptedMask,
    Prompts,
    Rle,
    Verdict,
)
from autolabel.engine.stage_times import StageTimes
from autolabel.ops.settings import count

CROWD_BOX = "crowd_box: a box around a crowd, without its mask, asks for no object"

NO_CLASS_OF_NEW = (
    "these prompts find objects of their own, which have no class; use detect=none, which has one class for them"
)

UNASKED = "no_prompt: nothing was asked about it"

if TYPE_CHECKING:
    from autolabel.engine.asking import Answers

FinishOne = Callable[[], ImageRecord]
Answer = TypeVar("Answer")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """About one image: what was found, clipped, which of it wants a mask, and why the rest is not asked for."""

    clipped: Detections
    asked: tuple[int, ...]
    problems: Mapping[int, str]


@dataclass(eq=False, kw_only=True)
class FrameLabeler(ABC):
    """What labelers have in common: pictures are read, what was found in them is judged, records pass through.
    `batch_size` pictures are computed together, or fewer that have `batch_mb` MB of pixels, so both decide last digits.

    Pictures of more than `max_pixels` become `failed` records before they are decoded, those with a side under
    `min_side` pixels after it. `read_frame` reads pictures elsewhere, within the same bounds; None: in this process.
    `times` says how long its stages took. `categories` are the classes of what is found; empty: not known yet.
    """

    refiners: Sequence[Refiner]
    batch_size: int
    batch_mb: int
    max_pixels: int
    min_side: int
    read_frame: Callable[[ImageRef], Frame] | None = None
    categories: Sequence[Category] = ()
    times: StageTimes = field(init=False, default_factory=StageTimes)

    def __post_init__(self) -> None:
        for key in ("batch_size", "batch_mb", "images.max_pixels", "images.min_side"):
            count(key, getattr(self, key.rpartition(".")[2]), 1)

    @property
    def batch_limit(self) -> BatchLimit:
        return BatchLimit(self.batch_size, self.batch_mb)

    @property
    @abstractmethod
    def identities(self) -> Mapping[str, Mapping[str, str]]:
        """For each group of settings that decides what is found, what decides it beside the settings."""

    @abstractmethod
    def find_in(self, frames: list[Frame]) -> list[FinishOne]:
        """The models' part; for each picture, in order, what makes its record from any thread and holds no pixels."""

    def load(self, ref: ImageRef) -> Frame | ImageRecord:
        """The decoded picture, or its final `failed` record. Safe from any thread."""
        from autolabel.ops.images import load_frame

        if ref.problem is not None:
            return failed(ref, ref.problem.code, ref.problem.detail)
        try:
            with self.times.of("decode"):
                if self.read_frame is not None:
                    return self.read_frame(ref)
                return load_frame(ref, max_pixels=self.max_pixels, min_side=self.min_side)
        except ImageError as error:
            return failed(ref, error.code, error.detail)

    def find(self, loaded: Sequence[Frame | ImageRecord]) -> Finish:
        """The models' part; what finishes it gives one record an input, in order. Records pass through."""
        found = iter(self.find_in([item for item in loaded if isinstance(item, Frame)]))
        rest = [next(found) if isinstance(item, Frame) else item for item in loaded]
        return lambda: [one if isinstance(one, ImageRecord) else one() for one in rest]

    def label(self, loaded: Sequence[Frame | ImageRecord]) -> list[ImageRecord]:
        """One record an input, in order; records pass through."""
        return self.find(loaded)()

    def record(
        self,
        ref: ImageRef,
        info: ImageInfo,
        candidates: Sequence[Instance],
        reasons: Mapping[int, str],
        notes: tuple[str, ...],
    ) -> ImageRecord:
        """The record of a picture with these candidates, those in `reasons` dropped before any refiner, and the `notes`
        of the models."""
        from autolabel.ops.masks import is_empty

        info = replace(info, notes=info.notes + notes)
        # Existing masks too: a polygon may be so thin that it holds no pixel, and no format can carry that.
        empty = (c.index for c in candidates if c.mask is not None and is_empty(c.mask))
        reasons = {**reasons, **dict.fromkeys(empty, "empty_mask: no pixel is inside")}
        with self.times.of("refine"):
            verdicts = decide(candidates, reasons, self.refiners, info)
        return ImageRecord(
            image_id=ref.image_id,
            path=ref.path,
            status=status_of(verdicts),
            info=info,
            split=ref.split,
            candidates=tuple(candidates),
            verdicts=verdicts,
            source_id=ref.source_id,
            extra=ref.extra,
        )


@dataclass(eq=False, kw_only=True)
class PipelineLabeler(FrameLabeler):
    """Detector, prompter and segmenter in a row; the rest is as in FrameLabeler."""

    detector: Detector
    prompter: Prompter
    segmenter: Segmenter

    @property
    def identities(self) -> Mapping[str, Mapping[str, str]]:
        return {
            "detect": self.detector.identity,
            "prompt": self.prompter.identity,
            "segment": self.segmenter.identity,
        }

    def find_in(self, frames: list[Frame]) -> list[FinishOne]:
        from autolabel.ops.returned import detections_of

        with self.times.of("detect"):
            found = one_by_one_on_error(lambda some: detections_of(self.detector, some, self.categories), frames)
        good = [(f, d) for f, d in zip(frames, found, strict=True) if not isinstance(d, ImageError)]
        questions = [self._question(frame, detections) for frame, detections in good]
        asked = [(frame, question) for (frame, _), question in zip(good, questions, strict=True)]
        with self.times.of("segment"):
            answers = one_by_one_on_error(self._ask, asked)
        judged = iter(zip(questions, answers, strict=True))
        rest: list[FinishOne] = []
        for frame, detections in zip(frames, found, strict=True):
            question, answer = (None, detections) if isinstance(detections, ImageError) else next(judged)
            ref, info = frame.ref, frame.info
            if isinstance(answer, ImageError):
                rest.append(partial(failed, ref, answer.code, answer.detail, info))
            else:
                assert question is not None
                assert isinstance(detections, Detections)
                rest.append(partial(self._record, ref, info, detections, question, answer))
        return rest

    def _question(self, frame: Frame, detections: Detections) -> Question:
        """What to ask about one image: the boxes that have no mask yet and that a model may see."""
        from autolabel.ops.boxes import are_sound, box_problem, clip_xyxy

        size_hw, boxes = frame.info.size_hw, detections.boxes_xyxy
        asked, problems = [], {}
        for i, sound in enumerate(are_sound(boxes, size_hw).tolist()):
            if detections.masks[i] is not None:
                continue  # an existing mask needs no prompt, whatever its box is
            reason = CROWD_BOX if detections.crowd[i] else None if sound else box_problem(boxes[i], size_hw)
            if reason is None:
                asked.append(i)
            else:
                problems[i] = reason
        return Question(replace(detections, boxes_xyxy=clip_xyxy(boxes, size_hw)), tuple(asked), problems)

    def _ask(self, pairs: Sequence[tuple[Frame, Question]]) -> list[Callable[[], Answers]]:
        """What gives the answers of each image; those without a question never reach the encoder."""
        from autolabel.engine.asking import ask
        from autolabel.ops.returned import prompts_of

        frames = [frame for frame, _ in pairs]
        questions = [question for _, question in pairs]
        found = prompts_of(self.prompter, frames, [q.clipped for q in questions], [q.asked for q in questions])
        # Where new objects have no class, a name of no detection is that of an annotation whose class is left out: it
        # gets no record, as its box.
        by_name = isinstance(self.prompter, AsksAbout) and self.prompter.about == "names"
        of_new = self._class_of_new is not None or not by_name
        prompts = [wanted(some, q, of_new) for some, q in zip(found, questions, strict=True)]
        settle = cache(ask(self.segmenter, frames, prompts))
        return [partial(lambda i: settle()[i], i) for i in range(len(frames))]

    def _record(
        self,
        ref: ImageRef,
        info: ImageInfo,
        detections: Detections,
        question: Question,
        settle: Callable[[], Answers],
    ) -> ImageRecord:
        answers = settle()
        by_index, reasons = dict(answers.by_object), {**answers.reasons, **question.problems}
        reasons.update(
            {i: UNASKED for i in question.asked if i not in by_index and i not in reasons},
        )
        if answers.added or answers.found:
            if self._class_of_new is None:
                raise ConfigError(NO_CLASS_OF_NEW)
            by_index.update(enumerate(answers.found, start=len(detections) + answers.added))
            detections = with_new(detections, by_index, answers.added + len(answers.found), self._class_of_new)
        if detections.unlabelled and not len(detections):
            return unlabelled(ref, info)
        return self.record(ref, info, candidates_of(detections, by_index), reasons, detections.notes)

    @property
    def _class_of_new(self) -> int | None:
        """The class of an object that only a prompt knows of. A detector's only class is that of its own objects."""
        return self.detector.class_of_new if isinstance(self.detector, FindsNew) else None


def wanted(prompts: Prompts, question: Question, of_new: bool) -> Prompts:
    """Without what is said of detections that want no mask, so that one that the source gave stays, and `of_new` or
    not of added objects."""
    count = len(question.clipped)
    is_wanted = np.zeros(count + prompts.added + 1, bool)
    is_wanted[list(question.asked)] = True
    is_wanted[count:-1] = of_new
    is_wanted[NO_OBJECT] = True  # the last
    rows = np.flatnonzero(is_wanted[prompts.object_numbers]).tolist()
    refused = {number: why for number, why in prompts.refused.items() if is_wanted[number]}
    added = prompts.added if of_new else 0
    return replace(prompts.select(rows), added=added, refused=refused)


def with_new(
    detections: Detections, answers: Mapping[int, PromptedMask], count: int, category_id: int
) -> Detections:
    """The detections and behind them `count` objects that only prompts know of: the tight box of the mask, and for
    a score what the segmenter thinks of it."""
    from autolabel.ops.masks import bounds_xyxy

    new = [answers.get(i) for i in range(len(detections), len(detections) + count)]
    bounds = [(None if answer is None else bounds_xyxy(answer.mask)) or (0, 0, 0, 0) for answer in new]
    scores = [0.0 if answer is None else min(max(answer.predicted_iou, 0.0), 1.0) for answer in new]
    return detections.plus(
        Detections(
            np.array(bounds, np.float32).reshape(-1, 4),
            np.array(scores, np.float32),
            np.full(count, category_id, np.int64),
        )
    )


def refined(record: ImageRecord, refiners: Sequence[Refiner]) -> ImageRecord:
    """The record with its candidates judged again. What never became a mask stays dropped for its old reason."""
    if record.info is None or record.status not in ("ok", "empty"):
        return record
    reasons = {
        candidate.index: verdict.reason
        for candidate, verdict in zip(record.candidates, record.verdicts, strict=True)
        if verdict.reason is not None and verdict.reason.partition(":")[0] in BEFORE_REFINING
    }
    verdicts = decide(record.candidates, reasons, refiners, record.info)
    return replace(record, verdicts=verdicts, status=status_of(verdicts))


def status_of(verdicts: Sequence[Verdict]) -> Literal["ok", "empty"]:
    return "ok" if any(verdict.reason is None for verdict in verdicts) else "empty"


def decide(
    candidates: Sequence[Instance], reasons: Mapping[int, str], refiners: Sequence[Refiner], image: ImageInfo
) -> tuple[Verdict, ...]:
    """One verdict a candidate: dropped for `reasons[index]`, or what the refiners say, asked in their order."""
    from autolabel.ops.returned import refined_by

    kept: Sequence[Instance] = [c for c in candidates if c.index not in reasons]
    reasons = dict(reasons)
    last = {c.index: c for c in candidates}
    for refiner in refiners:
        kept, dropped = refined_by(refiner, kept, image)
        reasons.update({d.instance.index: d.reason for d in dropped})
        last.update({c.index: c for c in (*kept, *(d.instance for d in dropped))})
    return tuple(verdict_on(c, last[c.index], reasons.get(c.index)) for c in candidates)


def verdict_on(candidate: Instance, last: Instance, reason: str | None) -> Verdict:
    """What became of a candidate; a dropped one keeps the mask it was found with."""
    changed = reason is None and last.mask != candidate.mask
    # numpy's numbers cannot be stored.
    return Verdict(reason, last.mask if changed else None, None if last.quality is None else float(last.quality))


def candidates_of(detections: Detections, answers: dict[int, PromptedMask]) -> list[Instance]:
    """One candidate a detection, with the answer to its own prompt or its existing mask."""
    instances = []
    columns = (detections.boxes_xyxy.tolist(), detections.scores.tolist(), detections.category_ids.tolist())
    for i, (existing, box, score, category_id) in enumerate(zip(detections.masks, *columns, strict=True)):
        answer = answers.get(i)
        x0, y0, x1, y1 = box
        instances.append(
            Instance(
                index=i,
                category_id=category_id,
                box_xyxy=(x0, y0, x1, y1),
                detector_score=score,
                mask=answer.mask if answer is not None else existing,
                predicted_iou=answer.predicted_iou if answer is not None else None,
                object_score=answer.object_score if answer is not None else None,
                stability=answer.stability if answer is not None else None,
                agreement=answer.agreement if answer is not None else None,
                origin="label" if existing is not None else "model",
                polygons=detections.polygons[i] if existing is not None else None,
                source_id=detections.source_ids[i],
                crowd=detections.crowd[i],
                extra=detections.extras[i],
                replaced_iou=replaced_iou(answer, detections.replaced[i]),
            )
        )
    return instances


def replaced_iou(answer: PromptedMask | None, replaced: Rle | None) -> float | None:
    """IoU of the new mask with the one it takes the place of."""
    if answer is None or replaced is None:
        return None
    from autolabel.ops.masks import iou

    return iou(answer.mask, replaced)


def one_by_one_on_error(
    call: Callable[[Sequence[Item]], list[Answer]], items: Sequence[Item]
) -> list[Answer | ImageError]:
    """The batch's answers; when a picture spoils its batch, each picture's own answer or its error."""
    try:
        return list(call(items)) if items else []
    except ImageError as error:
        # The error itself holds the tensors of its frames, for which there may be no room beside the next try.
        code, detail = error.code, error.detail
    if len(items) == 1:
        return [ImageError(code, detail)]
    return [answer for item in items for answer in one_by_one_on_error(call, [item])]


def failed(ref: ImageRef, code: str, detail: str, info: ImageInfo | None = None) -> ImageRecord:
    return ImageRecord(
        image_id=ref.image_id,
        path=ref.path,
        status="failed",
        info=info,
        code=code,
        detail=detail,
        split=ref.split,
        source_id=ref.source_id,
        extra=ref.extra,
    )


def unlabelled(ref: ImageRef, info: ImageInfo) -> ImageRecord:
    """The record of a picture whose labels were to be taken and that has none: nobody said that it is empty, so
    exports must not."""
    return replace(failed(ref, UNLABELLED, "the source has no labels for it", info), status="skipped")
