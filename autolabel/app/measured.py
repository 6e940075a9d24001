"""What is known of one finished run for a comparison: counts, quality, cost, configuration. Reads; computes no label.

A run directory is data, maybe a stranger's: nothing in it is instantiated, and references are left as they are.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolabel.app.leaves import leaves
from autolabel.app.repeat import choice_names
from autolabel.app.stored_settings import plain_settings
from autolabel.app.summary import Cost, read_cost
from autolabel.core.types import ImageRecord
from autolabel.evaluate.counterparts import file_name
from autolabel.ops.changes import changed
from autolabel.ops.evaluation_file import Document, read_document, unreadable
from autolabel.store.run import RunReader, mapping_of

EXPECTED, PREDICTED = "expected IoU", "predicted IoU"
TRUTH_FIGURES = {
    "mask AP": ("segm", "AP"),
    "mask AP50": ("segm", "AP50"),
    "mean IoU": ("matched", "mean_iou"),
    "boundary IoU": ("matched", "boundary_iou"),
    "PQ": ("panoptic", "pq"),
}
"""Measures by their names in a table, and where `evaluation.json` has them."""
GUESSERS = ("segment._target_", "segment (weights", "segment (architecture")
"""The settings that say whose guess a predicted IoU is."""
LEFT_OUT = ("run",)
"""Settings that are never the same and say nothing."""


@dataclass(frozen=True, slots=True)
class TruthFigures:
    """A run against ground truth. `judged` is what must be equal for two evaluations to be comparable."""

    figures: Mapping[str, float | None]
    truth: str
    judged: str


@dataclass(frozen=True, slots=True)
class RunFigures:
    """Counts by name. `expected_iou` and `predicted_iou` are means over the kept objects, None where none has one.
    `evaluated_before`: there is an evaluation, of records that are no more.
    `inputs` is a digest of all pictures, whatever their ids and their order, `root` where they came from; `choices`
    is what was chosen of the groups, where that is known."""

    directory: Path
    root: str
    inputs: str
    status: Mapping[str, int]
    pending: int
    instances: Mapping[str, int]
    dropped: Mapping[str, int]
    expected_iou: float | None
    predicted_iou: float | None
    evaluation: TruthFigures | None
    evaluated_before: bool
    cost: Cost | None
    settings: Mapping[str, str]
    choices: Mapping[str, str]

    @property
    def quality(self) -> dict[str, float | None]:
        """All measures, those against truth first."""
        against = {} if self.evaluation is None else self.evaluation.figures
        return {
            **{name: against.get(name) for name in TRUTH_FIGURES},
            EXPECTED: self.expected_iou,
            PREDICTED: self.predicted_iou,
        }

    def guesses_as(self, measure: str) -> tuple[str, ...]:
        """The settings that a score of masks rests on: runs that differ in it cannot be ranked by the score."""
        prefixes = GUESSERS if measure == PREDICTED else (*GUESSERS, "refine.quality", "refine (")
        return tuple(f"{key}={value}" for key, value in sorted(self.settings.items()) if key.startswith(prefixes))


def run_figures(reader: RunReader) -> RunFigures:
    """One pass over the records. Raises StoreError for a run without labels or with files that cannot be read."""
    config = plain_settings(reader)
    names = {c.id: c.name for c in reader.categories}
    status: Counter[str] = Counter()
    instances: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    means = {EXPECTED: _Mean(), PREDICTED: _Mean()}
    inputs = 0
    for record in reader.records_by_id():
        inputs = (inputs + _digest_of(record)) % (1 << 256)
        status[record.status] += 1
        dropped.update(d.reason.partition(":")[0] for d in record.dropped)
        for instance in record.instances:
            instances[names.get(instance.category_id, str(instance.category_id))] += 1
            means[EXPECTED].add(instance.quality)
            means[PREDICTED].add(instance.predicted_iou)
    document = read_document(reader.directory)
    evaluated_before = document is not None and not document.is_of(reader.digest())
    return RunFigures(
        directory=reader.directory,
        root=reader.meta("root") or "",
        inputs=f"{inputs:064x}",
        status=dict(sorted(status.items())),
        pending=reader.counts().get("pending", 0),
        instances=dict(instances.most_common()),
        dropped=dict(dropped.most_common()),
        expected_iou=means[EXPECTED].value,
        predicted_iou=means[PREDICTED].value,
        evaluation=None if document is None or evaluated_before else truth_figures(document, reader.directory),
        evaluated_before=evaluated_before,
        cost=read_cost(reader.directory),
        settings=settings_of(reader, config),
        choices=choice_names(config),
    )


def _digest_of(record: ImageRecord) -> int:
    """Digest of a picture's bytes, or of its file name where they could not be read. Their sum is one of them all."""
    sha256 = record.info.sha256 if record.info else ""
    key = b"bytes:" + sha256.encode() if sha256 else b"name:" + os.fsencode(file_name(record.image_id))
    return int.from_bytes(hashlib.sha256(key).digest(), "big")


class _Mean:
    """The mean of the values that are there."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float | None) -> None:
        if value is not None and math.isfinite(value):
            self._sum += value
            self._count += 1

    @property
    def value(self) -> float | None:
        return self._sum / self._count if self._count else None


def settings_of(reader: RunReader, config: Mapping[str, Any]) -> dict[str, str]:
    """The stored configuration leaf by leaf, what the fingerprint adds to it (weights by their sha256, classes), and
    the versions of the packages; values as text."""
    fingerprint, versions = mapping_of(reader, "fingerprint"), mapping_of(reader, "versions")
    return {
        **{key: _as_set(value) for key, value in leaves(config) if key not in LEFT_OUT},
        # Those with a space are not keys of the configuration: `segment (weights sha256)`.
        **{key: str(value) for key, value in fingerprint.items() if " " in key or key == "classes"},
        **{f"version of {name}": str(value) for name, value in versions.items()},
    }


def _as_set(value: Any) -> str:
    """The value as a person would set it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def different(runs: list[RunFigures]) -> list[tuple[str, list[str]]]:
    """The choices and settings that differ, in the order of the configuration, one value a run."""
    return changed([run.settings for run in runs], [run.choices for run in runs])


def truth_figures(document: Document, directory: Path) -> TruthFigures:
    """Raises StoreCorrupt for a document that does not say what was judged."""
    try:
        judged = [document.fields[key] for key in ("truth_sha256", "matching", "images", "images_without_truth")]
    except KeyError as error:
        raise unreadable(directory, f"it does not say {error}") from error
    figures = {name: document.at(part).number(key) for name, (part, key) in TRUTH_FIGURES.items()}
    return TruthFigures(figures, document.text("truth"), json.dumps(judged, sort_keys=True))
