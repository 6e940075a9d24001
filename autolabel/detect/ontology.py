"""Classes and the phrases that stand for them, for detectors that are asked in words. No model."""

from __future__ import annotations

# ruff: noqa: N803  (shape suffixes)
from dataclasses import dataclass

import numpy as np

from autolabel.core.errors import ConfigError
from autolabel.core.types import Category, Detections, Float32
from autolabel.ops.boxes import area_xyxy, clip_xyxy
from autolabel.ops.duplicates import box_nms


@dataclass(frozen=True, slots=True)
class Ontology:
    """`phrases[i]` stands for the class `classes[class_of_phrase[i]]`. Category ids start at 1, in the order given."""

    classes: tuple[str, ...]
    phrases: tuple[str, ...]
    class_of_phrase: tuple[int, ...]

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(Category(number, name) for number, name in enumerate(self.classes, start=1))

    def of_classes(self, scores_NP: np.ndarray) -> Float32:
        """Scores of phrases (N, P) as scores of classes (N, C): a class is as likely as its likeliest phrase."""
        best = [scores_NP[:, np.array(self.class_of_phrase) == c].max(axis=1) for c in range(len(self.classes))]
        return np.stack(best, axis=1).astype(np.float32)


def read_ontology(ontology: object, *, forbidden: str = "") -> Ontology:
    """From `{forklift: yellow forklift, person: [person, worker]}`; null stands for the class's own name.

    `forbidden` are characters that no phrase may hold. Raises ConfigError.
    """
    example = "detect.ontology='{forklift: yellow forklift, person: [person, worker]}'"
    if not isinstance(ontology, dict) or not ontology:
        raise ConfigError(f"which objects? {example}; got {ontology!r}")
    phrases: dict[str, str] = {}
    for name, given in ontology.items():
        some = [name] if given is None else given if isinstance(given, list) else [given]
        if not isinstance(name, str) or not some or not all(isinstance(p, str) and p.strip() for p in some):
            raise ConfigError(
                f"detect.ontology: {name!r} must stand for a phrase or a list of phrases, as in {example}"
            )
        for phrase in (" ".join(p.split()).lower() for p in some):
            if phrases.setdefault(phrase, name) != name:
                raise ConfigError(f"detect.ontology: {phrase!r} stands for {phrases[phrase]!r} and for {name!r}")
            bad = sorted(set(phrase) & set(forbidden))
            if bad:
                raise ConfigError(f"detect.ontology: this model cannot read {bad[0]!r} in {phrase!r}")
    names = tuple(ontology)
    return Ontology(names, tuple(phrases), tuple(names.index(name) for name in phrases.values()))


def best_detections(
    boxes_xyxy: Float32,
    class_scores_NC: Float32,
    size_hw: tuple[int, int],
    *,
    conf: float,
    iou: float,
    max_det: int,
) -> Detections:
    """Boxes with their likeliest class where that is above `conf`, best first. Of boxes of one class with an IoU above
    `iou` one stays; those of which nothing is in the picture, but in its padding, are none."""
    scores, numbers = class_scores_NC.max(axis=1, initial=0), class_scores_NC.argmax(axis=1)
    boxes = clip_xyxy(boxes_xyxy, size_hw)
    rows = np.flatnonzero((scores > conf) & (area_xyxy(boxes) > 0))
    for number in np.unique(numbers[rows]):
        mine = rows[numbers[rows] == number]
        kept = mine[box_nms(boxes[mine], scores[mine], iou)]
        rows = rows[(numbers[rows] != number) | np.isin(rows, kept)]
    rows = rows[np.argsort(-scores[rows], kind="stable")][:max_det]
    return Detections(boxes[rows], scores[rows].astype(np.float32), numbers[rows].astype(np.int64) + 1)
