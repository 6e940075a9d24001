"""The pipeline: detect, prompt, segment, refine. Says what is computed; knows no threads and no files but pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from autolabel.core.errors import ConfigError, ImageError
from autolabel.core.protocols import Detector, Prompter, Refiner, Segmenter
from autolabel.core.types import (
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

Answer = TypeVar("Answer")


class PipelineLabeler:
    """Detector and segmenter in a row. `batch_size` pictures are computed together, so it decides last digits.

    Pictures of more than `max_pixels`, or with a side under `min_side` pixels, become `failed` records before
    they are decoded.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        prompter: Prompter,
        segmenter: Segmenter,
        refiners: Sequence[Refiner],
        batch_size: int,
        max_pixels: int,
        min_side: int,
    ) -> None:
        for key, value in (("batch_size", batch_size), ("max_pixels", max_pixels), ("min_side", min_side)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{key} must be a whole number of at least 1, got {value!r}")
        self.detector = detector
        self.prompter = prompter
        self.segmenter = segmenter
        self.refiners = tuple(refiners)
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.min_side = min_side

    def load(self, ref: ImageRef) -> Frame | ImageRecord:
        """The decoded picture, or its final `failed` record. Safe from any thread."""
        from autolabel.ops.images import load_frame

        if ref.problem is not None:
            return failed(ref, ref.problem.code, ref.problem.detail)
        try:
            return load_frame(ref, max_pixels=self.max_pixels, min_side=self.min_side)
        except ImageError as error:
            return failed(ref, error.code, error.detail)

    def label(self, loaded: Sequence[Frame | ImageRecord]) -> list[ImageRecord]:
        """One record an input, in order; records pass through."""
        frames = [item for item in loaded if isinstance(item, Frame)]
        labelled = iter(self._label_frames(frames))
        return [next(labelled) if isinstance(item, Frame) else item for item in loaded]

    def _label_frames(self, frames: list[Frame]) -> list[ImageRecord]:
        found = one_by_one_on_error(self.detector.detect, frames)
        good = [(f, d) for f, d in zip(frames, found, strict=True) if isinstance(d, Detections)]
        candidates = iter(self._segment([f for f, _ in good], [d for _, d in good]))
        return [
            failed(frame.ref, detections.code, detections.detail, frame.info)
            if isinstance(detections, ImageError)
            else self._record(frame, *next(candidates))
            for frame, detections in zip(frames, found, strict=True)
        ]

    def _segment(
        self, frames: list[Frame], found: list[Detections]
    ) -> list[tuple[list[Instance], dict[int, str]]]:
        """Per image: one candidate a detection, and the reasons of those that never became a mask."""
        from autolabel.ops.boxes import box_problem, clip_xyxy
        from autolabel.ops.masks import area_px

        problems: list[dict[int, str]] = []
        asked: list[list[int]] = []
        questions: list[Detections] = []
        for frame, detections in zip(frames, found, strict=True):
            # An existing mask needs no prompt, whatever its box is.
            todo = [i for i, mask in enumerate(detections.masks) if mask is None]
            bad = {i: box_problem(detections.boxes_xyxy[i], frame.info.size_hw) for i in todo}
            problems.append({i: reason for i, reason in bad.items() if reason is not None})
            asked.append([i for i in todo if bad[i] is None])
            valid = detections.select(asked[-1])
            questions.append(with_boxes(valid, clip_xyxy(valid.boxes_xyxy, frame.info.size_hw)))
        answers = self._answers(frames, questions)
        result = []
        for detections, reasons, indices, masks in zip(found, problems, asked, answers, strict=True):
            by_index = {indices[answer.prompt]: answer for answer in masks}
            reasons.update({i: "no_mask: the segmenter gave no mask" for i in indices if i not in by_index})
            reasons.update(
                {i: "empty_mask: no pixel is inside" for i, a in by_index.items() if not area_px(a.mask)}
            )
            result.append((instances_of(detections, by_index), reasons))
        return result

    def _answers(self, frames: list[Frame], questions: list[Detections]) -> list[list[PromptedMask]]:
        """Ask for the images that have a question; the others never reach the encoder."""
        busy = [i for i, q in enumerate(questions) if len(q)]
        answers: list[list[PromptedMask]] = [[] for _ in frames]
        if busy:
            some_frames = [frames[i] for i in busy]
            prompts: list[Prompts] = self.prompter.prompt(some_frames, [questions[i] for i in busy])
            for i, masks in zip(busy, self.segmenter.segment(some_frames, prompts), strict=True):
                answers[i] = masks
        return answers

    def _record(self, frame: Frame, candidates: list[Instance], reasons: dict[int, str]) -> ImageRecord:
        verdicts = decide(candidates, reasons, self.refiners, frame.info)
        return ImageRecord(
            image_id=frame.ref.image_id,
            path=frame.ref.path,
            status="ok" if any(v.reason is None for v in verdicts) else "empty",
            info=frame.info,
            split=frame.ref.split,
            candidates=tuple(candidates),
            verdicts=verdicts,
        )


def decide(
    candidates: Sequence[Instance], reasons: dict[int, str], refiners: Sequence[Refiner], image: ImageInfo
) -> tuple[Verdict, ...]:
    """One verdict a candidate: dropped for `reasons[index]`, or what the refiners say, asked in their order."""
    kept = [c for c in candidates if c.index not in reasons]
    reasons = dict(reasons)
    for refiner in refiners:
        before = {c.index for c in kept}
        kept, dropped = refiner.refine(kept, image)
        after = [c.index for c in kept] + [d.instance.index for d in dropped]
        assert len(after) == len(before), f"{type(refiner).__name__} lost or repeated an instance"
        assert set(after) == before, f"{type(refiner).__name__} invented an instance"
        reasons.update({d.instance.index: d.reason for d in dropped})
    final: dict[int, Rle | None] = {c.index: c.mask for c in kept}
    return tuple(
        Verdict(reason=reasons[c.index])
        if c.index in reasons
        else Verdict(mask=None if final[c.index] == c.mask else final[c.index])
        for c in candidates
    )


def instances_of(detections: Detections, answers: dict[int, PromptedMask]) -> list[Instance]:
    """One candidate a detection, with the answer to its own prompt or its existing mask."""
    instances = []
    for i, existing in enumerate(detections.masks):
        answer = answers.get(i)
        x0, y0, x1, y1 = (float(v) for v in detections.boxes_xyxy[i])
        instances.append(
            Instance(
                index=i,
                category_id=int(detections.category_ids[i]),
                box_xyxy=(x0, y0, x1, y1),
                detector_score=float(detections.scores[i]),
                mask=answer.mask if answer is not None else existing,
                predicted_iou=answer.predicted_iou if answer is not None else None,
                object_score=answer.object_score if answer is not None else None,
                stability=answer.stability if answer is not None else None,
                origin="label" if existing is not None else "model",
                polygons=detections.polygons[i] if existing is not None else None,
                source_id=detections.source_ids[i],
                crowd=detections.crowd[i],
            )
        )
    return instances


def one_by_one_on_error(
    call: Callable[[Sequence[Frame]], list[Answer]], frames: Sequence[Frame]
) -> list[Answer | ImageError]:
    """The batch's answers; when a picture spoils its batch, each picture's own answer or its error."""
    try:
        return list(call(frames)) if frames else []
    except ImageError as error:
        if len(frames) == 1:
            return [error]
        return [answer for frame in frames for answer in one_by_one_on_error(call, [frame])]


def with_boxes(detections: Detections, boxes_xyxy: np.ndarray) -> Detections:
    return Detections(
        boxes_xyxy.astype(np.float32, copy=False),
        detections.scores,
        detections.category_ids,
        detections.masks,
        detections.polygons,
        detections.source_ids,
        detections.crowd,
    )


def failed(ref: ImageRef, code: str, detail: str, info: ImageInfo | None = None) -> ImageRecord:
    return ImageRecord(
        image_id=ref.image_id, path=ref.path, status="failed", info=info, code=code, detail=detail, split=ref.split
    )
