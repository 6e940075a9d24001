"""What may be concluded from the figures of several runs, and what not. Reads no run."""

from __future__ import annotations

from collections.abc import Sequence

from autolabel.app.measured import EXPECTED, PREDICTED, TRUTH_FIGURES, RunFigures
from autolabel.core.text import counted, printable
from autolabel.evaluate.pareto import pareto_front
from autolabel.report.compare import Measured

NOT_CONTROLLED = "Speeds were measured during each run, model loading included: not a controlled benchmark."
NO_TRUTH = (
    "Ranked by {}: the mean of the masks' own scores, not measured against ground truth. A run that keeps fewer, more "
    "certain objects scores higher."
)
NO_MEASURE = (
    "No Pareto front: no quality measure is comparable across all runs, since mask scores are each segmenter's own "
    "estimate; autolabel evaluate RUN truth=... for each run gives one."
)


def ranking(runs: Sequence[RunFigures]) -> tuple[str | None, list[str]]:
    """The measure that all runs have and that means the same for all of them, and what to know about it; None and
    why where there is none."""
    if not same_inputs(runs):
        return None, ["No Pareto front: the runs do not hold the same pictures."]
    if len({None if run.evaluation is None else run.evaluation.judged for run in runs}) == 1:
        for measure in TRUTH_FIGURES:
            if all(run.quality[measure] is not None for run in runs):
                return measure, [f"Ranked by {measure}.", NOT_CONTROLLED]
    for measure in (EXPECTED, PREDICTED):
        known = all(run.quality[measure] is not None for run in runs)
        if known and len({run.guesses_as(measure) for run in runs}) == 1:
            return measure, [NO_TRUTH.format(measure), NOT_CONTROLLED]
    return None, [NO_MEASURE, NOT_CONTROLLED]


def same_inputs(runs: Sequence[RunFigures]) -> bool:
    return len({run.inputs for run in runs}) == 1


def notes_on(runs: Sequence[RunFigures], names: Sequence[str]) -> list[str]:
    """What makes figures of these runs not comparable."""
    named = list(zip(names, runs, strict=True))
    notes = [
        f"{name} was evaluated before its records changed; evaluate it again."
        for name, run in named
        if run.evaluated_before
    ]
    notes += [
        counted(run.pending, "{1} is not finished: {0} picture[ is|s are] to do.", name)
        for name, run in named
        if run.pending
    ]
    if not same_inputs(runs):
        held = [
            f"{name} holds {sum(run.status.values())} of {printable(run.root) or 'a source without a path'}"
            for name, run in named
        ]
        notes.append(f"Made from different pictures: {'; '.join(held)}. Their figures cannot be compared.")
    evaluated = [(name, run.evaluation) for name, run in named if run.evaluation is not None]
    if evaluated and len(evaluated) < len(runs):
        without = ", ".join(name for name, run in named if run.evaluation is None)
        notes.append(f"Not evaluated against ground truth: {without}.")
    if len({evaluation.judged for _, evaluation in evaluated}) > 1:
        used = "; ".join(f"{name} against {printable(evaluation.truth)}" for name, evaluation in evaluated)
        notes.append(f"Evaluated against different ground truth, rules or pictures, so not comparable: {used}.")
    return notes


def rows(runs: Sequence[RunFigures], names: Sequence[str], measure: str | None) -> list[Measured]:
    """The rows of the table, with the Pareto front of `measure` and speed."""
    points = [_point(run, measure) for run in runs]
    return [
        Measured(
            name=name,
            directory=str(run.directory),
            status=run.status,
            pending=run.pending,
            instances=run.instances,
            dropped=run.dropped,
            quality=run.quality,
            truth=None if run.evaluation is None else run.evaluation.truth,
            pictures_per_second=None if run.cost is None else run.cost.pictures_per_second,
            stages={} if run.cost is None else run.cost.stages,
            on_front=None if point is None else on_front,
        )
        for name, run, point, on_front in zip(names, runs, points, pareto_front(points), strict=True)
    ]


def _point(run: RunFigures, measure: str | None) -> tuple[float, float] | None:
    value = None if measure is None else run.quality[measure]
    speed = None if run.cost is None else run.cost.pictures_per_second
    return None if value is None or speed is None else (value, speed)
