"""`autolabel evaluate RUN truth=PATH`: a finished run against ground truth. Loads no model.

Writes `evaluate/evaluation.json` and `evaluate/objects.jsonl` into the run directory, replaced whole; with
`--calibrate` also `evaluate/quality.json`, the quality score fitted to this truth.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from autolabel.app.build import build_of
from autolabel.app.command_line import parse
from autolabel.app.compose import compose, plain, show
from autolabel.app.part import part_text
from autolabel.app.run_directory import existing_run, replaced_text, run_path
from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError, SourceError, StoreError
from autolabel.core.protocols import Inferred, Source
from autolabel.core.text import counted, printable
from autolabel.core.types import ImageRef
from autolabel.ops.evaluation_file import FIGURES, FOLDER, OBJECTS
from autolabel.ops.export_mark import RECORDS
from autolabel.store.lock import exclusive
from autolabel.store.manifest import digest
from autolabel.store.run import RunReader, mapping_of, open_reader

if TYPE_CHECKING:
    from autolabel.evaluate.evaluator import Evaluator, Truth
    from autolabel.evaluate.result import Evaluation

NOT_SETTINGS = ("truth", "run", "oracle")


def main(arguments: Sequence[str]) -> int:
    """Measure a run; exit code 0, whatever is found."""
    from omegaconf import OmegaConf

    from autolabel.evaluate.table import text

    request = parse(arguments, "evaluate")
    config = compose("evaluate", [as_path(o) for o in request.overrides], request.config_dir)
    if request.show:
        return show(config)
    directory = existing_run(request.path, config.run, "evaluate")
    if OmegaConf.is_missing(config.truth, "path"):
        raise ConfigError(
            "which ground truth? autolabel evaluate RUN truth=PATH (labels of any kind that label reads)"
        )
    values = plain(config)
    oracle = None if values["oracle"] is None else oracle_of(run_path(values["oracle"]), str(config.truth.path))
    with truth_settings():
        truth = read_truth(build_of("source", config.truth, "truth"), str(values["truth"].get("path", "")))
    evaluator = evaluator_of(values)
    with exclusive(directory):
        found = evaluate_run(evaluator, directory, truth, calibrating=request.flag)
        sys.stdout.write(text(found))
        with open_reader(directory) as reader:
            sys.stdout.write(part_text(reader))
        if oracle is not None:
            sys.stdout.write(oracle_text(evaluator, oracle, truth, found))
        sys.stdout.write(f"written    {printable(str(directory / FOLDER))}: {FIGURES}, {OBJECTS}\n")
        if request.flag:
            place = printable(shlex.quote(str(calibrate(directory, truth, found))))
            sys.stdout.write(f"written    {place}\n"
                             f"next       autolabel refine {printable(shlex.quote(str(directory)))} refine.quality.calibration={place}\n")  # fmt: skip
    return 0


def as_path(override: str) -> str:
    """`truth=PATH` is short for `truth.path=PATH`, the source's own setting. A shell leaves the `~` in it alone."""
    key, _, value = override.partition("=")
    return f"truth.path={Path(value).expanduser() if value[:1] == '~' else value}" if key == "truth" else override


def evaluator_of(values: dict[str, object]) -> Evaluator:
    """The settings of `configs/evaluate.yaml` but for what is judged, and against what."""
    from autolabel.evaluate.evaluator import Evaluator

    settings = {key: value for key, value in values.items() if key not in NOT_SETTINGS}
    return Evaluator(**settings)  # type: ignore[arg-type]


def read_truth(source: Source, path: str) -> Truth:
    """All of the source; its digest is that of the classes and of every picture's labels, wherever they are kept."""
    from autolabel.evaluate.evaluator import Truth

    refs = tuple(source.images())
    if isinstance(source, Inferred) and source.kind:
        told = as_truth_settings(source.reason)
        sys.stderr.write(counted(len(refs), "source: {1} ({2}), {0} picture[|s]\n", source.kind, told))
    categories = tuple(source.categories)
    h = hashlib.sha256(repr(categories).encode(errors="surrogateescape"))
    for ref in refs:
        h.update(ref.image_id.encode(errors="surrogateescape") + b"\0" + digest(ref))
    return Truth(path, h.hexdigest(), categories, tuple(map(_with_truth_settings, refs)))


@contextmanager
def truth_settings() -> Iterator[None]:
    """A context in which a source's advice names its settings as they are called here."""
    try:
        yield
    except SourceError as error:
        raise SourceError(as_truth_settings(str(error))) from error


def as_truth_settings(text: str) -> str:
    """`source.images_dir` and `source=coco` in a message are `truth.images_dir` and `source@truth=coco` to evaluate."""
    settings, choices = _source_settings()
    # A path may hold such words, too; there they follow a letter, a slash or a quote.
    text = re.sub(rf"(?<![\w./'\"-])source\.(?=(?:{settings})\b)", "truth.", text)
    return re.sub(rf"(?<![\w./'\"-])source=(?=(?:{choices})\b)", "source@truth=", text)


@cache
def _source_settings() -> tuple[str, str]:
    """The names of the settings of all sources, and the sources' own names; as alternatives of a pattern."""
    from omegaconf import OmegaConf

    files = sorted((configs_dir() / "source").glob("*.yaml"))
    settings = {str(key) for file in files for key in OmegaConf.load(file)}
    return "|".join(sorted(settings)), "|".join(file.stem for file in files)


def _with_truth_settings(ref: ImageRef) -> ImageRef:
    problem = ref.problem
    if problem is None:
        return ref
    return replace(ref, problem=replace(problem, detail=as_truth_settings(problem.detail)))


def evaluate_run(evaluator: Evaluator, directory: Path, truth: Truth, *, calibrating: bool) -> Evaluation:
    """Measure the run and write both files into its directory. Raises SourceError, with the files as they were, where
    the truth says nothing about any picture, or where a quality is to be fitted and it says nothing about masks."""
    folder = directory / FOLDER
    with open_reader(directory) as reader, made(folder):
        pending = reader.pending_ids()
        if pending:
            sys.stderr.write(
                counted(len(pending), "{} picture[|s] of {} [is|are] not labelled yet and left out\n", directory)
            )
        with replaced_text(folder / OBJECTS) as lines:
            found = evaluator.evaluate(
                reader,
                truth,
                on_labels=is_on_labels(reader),
                pending=pending,
                write=lambda line: lines.write(line + "\n"),
            )
            require_judged(found)
            if calibrating:
                require_masks(found)
        document = {**found.document(), RECORDS: reader.digest()}
    with replaced_text(folder / FIGURES) as file:
        file.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
    return found


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """A folder that is there in the block, and afterwards unless the block raises before anything is in it."""
    folder.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def require_judged(found: Evaluation) -> None:
    if not found.images:
        why = found.notes[0] if found.notes else "neither the run nor the ground truth has one"
        raise SourceError(f"no picture could be evaluated: {why}")


def require_masks(found: Evaluation) -> None:
    if found.matching.measure != "segm":
        raise SourceError(
            f"{found.truth}: the ground truth has boxes and no masks, so quality cannot be fitted; evaluate without "
            "--calibrate, or give a ground truth with masks"
        )


def calibrate(directory: Path, truth: Truth, found: Evaluation) -> Path:
    """Fit the quality score to the evaluated run; what is known of other data counts where there are few objects.
    Raises ConfigError for too few."""
    from autolabel.evaluate.calibration import fit, known
    from autolabel.ops.quality import read_calibration, to_json
    from autolabel.refine.quality import default_path

    folder = directory / FOLDER
    prior, _ = read_calibration(default_path(), key="refine.quality.calibration")
    with open_reader(directory) as reader, (folder / OBJECTS).open(encoding="utf-8") as lines:
        objects = list(known(reader, lines, found.half_masked))
    if found.half_masked:
        sys.stderr.write(
            counted(
                len(found.half_masked),
                "{} picture[ has|s have] ground-truth objects without a mask: quality is fitted to the others\n",
            )
        )
    fitted = fit(objects, data=f"{directory.name} against {Path(truth.path).name}", prior=prior)
    with replaced_text(folder / "quality.json") as file:
        file.write(to_json(fitted))
    return folder / "quality.json"


def is_on_labels(reader: RunReader) -> bool:
    """Whether the run's boxes came from labels instead of a detector."""
    return "labels.LabelsDetector" in str(mapping_of(reader, "fingerprint").get("detect._target_"))


def oracle_of(directory: Path, truth: str) -> Path:
    """The run on the true boxes, looked at before anything is computed. Raises StoreError when it is none."""
    with open_reader(existing_run(str(directory), None, "evaluate")) as reader:
        if not is_on_labels(reader):
            raise StoreError(
                f"oracle={directory} was labelled with a detector; make one with the ground-truth boxes: "
                f"autolabel label {printable(shlex.quote(truth))} detect=labels detect.keep_masks=false run=..."
            )
    return directory


def oracle_text(evaluator: Evaluator, oracle: Path, truth: Truth, detected: Evaluation) -> str:
    """The run beside one on the true boxes."""
    from autolabel.evaluate.table import beside

    with open_reader(oracle) as reader:
        return beside(detected, evaluator.evaluate(reader, truth, on_labels=True))
