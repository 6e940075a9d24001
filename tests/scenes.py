"""Small ground truths and runs beside them, for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autolabel.core.types import Category, ImageRecord, ImageRef, Labels
from autolabel.evaluate.evaluator import Evaluator, Truth
from autolabel.evaluate.result import Evaluation
from autolabel.ops.masks import bounds_xyxy, encode
from tests.records import ListReader, disc, instance, record

CAT, DOG, OWL = 1, 2, 3
CATEGORIES = (Category(CAT, "cat"), Category(DOG, "dog"), Category(OWL, "owl"))
SIZE = (120, 160)
SETTINGS: dict[str, Any] = {
    "iou": 0.5,
    "also_at": [0.75],
    "score": "detector",
    "box": "mask",
    "classes": None,
    "class_agnostic": False,
    "unknown": "error",
    "pairing": "auto",
}

Objects = Sequence[tuple[int, np.ndarray]]
"""Class and mask of each object of a picture."""


def at(x: float, y: float, r: float = 20) -> np.ndarray:
    return disc(*SIZE, x, y, r)


def ref(
    image_id: str, objects: Objects, *, crowd: Sequence[int] = (), masks: bool = True, **changes: Any
) -> ImageRef:
    """A picture with labels; `crowd` names the rows that are crowds."""
    rles = [encode(mask) for _, mask in objects]
    labels = Labels(
        np.array([bounds_xyxy(rle) or (0, 0, 0, 0) for rle in rles], np.float32).reshape(-1, 4),
        np.array([c for c, _ in objects], np.int64),
        tuple(rles) if masks else (None,) * len(rles),
        changes.pop("source_ids", tuple(range(1, len(rles) + 1))),
        tuple(i in crowd for i in range(len(rles))),
        size_hw=SIZE,
        extras=changes.pop("extras", ()),
    )
    return ImageRef(image_id, image_id, labels, **changes)


def run_record(image_id: str, objects: Objects, scores: Sequence[float] = (), **changes: Any) -> ImageRecord:
    given = list(scores) or [1.0] * len(objects)
    found = [
        instance(mask, i, category_id=c, detector_score=s, source_id=i + 1, **changes)
        for i, ((c, mask), s) in enumerate(zip(objects, given, strict=True))
    ]
    return record(image_id, found, size_hw=SIZE)


def truth(refs: Sequence[ImageRef], categories: Sequence[Category] = CATEGORIES) -> Truth:
    return Truth("truth.json", "0" * 64, tuple(categories), tuple(refs))


def run(records: Sequence[ImageRecord], categories: Sequence[Category] = CATEGORIES) -> ListReader:
    return ListReader(records, tuple(categories))


def judge(
    found: ListReader, true: Truth, *, on_labels: bool = False, lines: list[str] | None = None, **changes: Any
) -> Evaluation:
    evaluator = Evaluator(**{**SETTINGS, **changes})
    return evaluator.evaluate(found, true, on_labels=on_labels, write=None if lines is None else lines.append)


def one_picture(objects: Objects, found: Objects, scores: Sequence[float] = (), **changes: Any) -> Evaluation:
    """Of a single picture."""
    crowd = changes.pop("crowd", ())
    return judge(run([run_record("a.jpg", found, scores)]), truth([ref("a.jpg", objects, crowd=crowd)]), **changes)


def random_objects(random: np.random.Generator, most: int) -> list[tuple[int, np.ndarray]]:
    """Discs of three classes, anywhere, of radii that meet all of COCO's sizes."""
    return [
        (int(random.integers(1, 4)), at(*random.uniform((0, 0), (160, 120)), float(random.choice([4, 9, 20, 60]))))
        for _ in range(int(random.integers(0, most + 1)))
    ]


def shaken(random: np.random.Generator, objects: Objects) -> list[tuple[int, np.ndarray]]:
    """Moved by some pixels, of another class now and then, some lost, some twice."""
    found = []
    for number, mask in objects:
        for _ in range(int(random.choice([0, 1, 1, 1, 2]))):
            moved = np.roll(mask, tuple(random.integers(-6, 7, 2)), (0, 1))
            found.append((number if random.random() < 0.8 else int(random.integers(1, 4)), moved))
    return [(c, m) for c, m in found if m.any()]


def album(seed: int, pictures: int = 8) -> tuple[list[ImageRef], list[ImageRecord]]:
    """A ground truth with crowds and a run beside it, with equal scores among the scores."""
    random = np.random.default_rng(seed)
    refs, records = [], []
    for k in range(pictures):
        objects = random_objects(random, 6)
        found = shaken(random, objects) + random_objects(random, 2)
        found = [(c, m) for c, m in found if m.any()]
        objects = [(c, m) for c, m in objects if m.any()]
        crowd = [i for i in range(len(objects)) if random.random() < 0.15]
        scores = np.round(random.random(len(found)), 1).astype(np.float32).tolist()
        ids = tuple(100 * k + i + 1 for i in range(len(objects)))
        refs.append(ref(f"{k}.jpg", objects, crowd=crowd, source_id=40 - k, source_ids=ids))
        records.append(replace(run_record(f"{k}.jpg", found, scores), source_id=40 - k))
    return refs, records
