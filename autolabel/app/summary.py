"""What happened, in numbers: the last lines of a run, and `summary.json`."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from autolabel.app.publish import Outcome
from autolabel.app.run_directory import write_text
from autolabel.core.errors import STOPPED, told
from autolabel.core.protocols import ExportReport
from autolabel.core.text import counted, printable
from autolabel.core.types import MAX_DET, UNLABELLED
from autolabel.store.run import RunReader, mapping_of

LISTED_FAILURES = 20
"""Failures spelled out on the screen; `summary.json` has them all."""
SIEVE = "prompt.min_predicted_iou"
"""A setting that is there where the answers to a prompt are sifted before they become candidates."""
_SKIPPED = {UNLABELLED: "[has|have] no labels in the source, not even that [it is|they are] empty"}


@dataclass(frozen=True, slots=True)
class Failure:
    image_id: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What the labelling of a run took, all its sittings together but for those that were killed: loading models, a
    trial of bfloat16 and writing exports are in `seconds`. `stages` are seconds by stage; stages overlap in time."""

    pictures: int
    seconds: float
    stages: Mapping[str, float]

    @property
    def pictures_per_second(self) -> float | None:
        return self.pictures / self.seconds if self.pictures and self.seconds else None


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a run holds, in numbers of pictures and objects. `vanished` pictures left the source: they are in no other
    number. In `limited` ones the detector, or the model, found all that it may; in `sifted` ones the limits of the
    prompt left nothing of what the segmenter answered. `skipped` counts by code."""

    status: Mapping[str, int]
    instances: Mapping[str, int]
    dropped: Mapping[str, int]
    failures: tuple[Failure, ...]
    pending: int
    vanished: int
    limited: int
    sifted: int
    skipped: Mapping[str, int]

    @property
    def labels(self) -> int:
        """How many pictures are labelled."""
        return self.status.get("ok", 0) + self.status.get("empty", 0)


@dataclass(frozen=True, slots=True)
class Invocation:
    """What one `label` command did. It wrote `committed` records in `seconds`, and `labelled` of them hold objects or
    that nothing was found; the rest was there before. `stages` are seconds by stage, empty where the engine does not
    measure them. `ignored` counts files of the source by kind."""

    labelled: int = 0
    committed: int = 0
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run `holds`, and the `invocation` that labelled it, None after a command that labels nothing.

    `precision` is what a trial decided, and why; empty where there was nothing to decide. `unwritten` formats, by name,
    say why; `outdated` ones are there, were not asked for, and are of other records than the run has now.
    """

    run: str
    holds: Holdings
    precision: str = ""
    invocation: Invocation | None = None
    exports: Mapping[str, ExportReport] = field(default_factory=dict)
    unwritten: Mapping[str, str] = field(default_factory=dict)
    outdated: tuple[str, ...] = ()

    @property
    def unfinished(self) -> bool:
        return bool(self.holds.pending) or (self.invocation is not None and self.invocation.stopped)

    @property
    def exit_code(self) -> int:
        """130 when stopped before the end (of the exports too), 2 when some pictures failed, or a format, or one lacks
        pictures, else 0."""
        if self.unfinished:
            return STOPPED
        lost = any(report.lost for report in self.exports.values())
        return 2 if self.holds.failures or self.unwritten or lost else 0

    def text(self) -> str:
        return "\n".join(self.lines()) + "\n"

    def lines(self) -> list[str]:
        """Speed and what is next are only said of an invocation."""
        holds, run = self.holds, printable(self.run)
        to_do = f", {holds.pending} to do" if holds.pending else ""
        lines = [f"pictures   {sum(holds.status.values())}: {_counts(holds.status)}{to_do}"]
        lines.append(f"instances  {sum(holds.instances.values())}: {_counts(holds.instances)}")
        if holds.dropped:
            lines.append(f"dropped    {sum(holds.dropped.values())}: {_counts(holds.dropped)}")
        for code, n in holds.skipped.items():
            why = _SKIPPED.get(code, "[was|were] skipped ({})")
            text = f"skipped    {{}} picture[|s] {why}: exports leave [it|them] out"
            lines.append(counted(n, text, printable(code)))
        if holds.limited:
            lines.append(
                counted(
                    holds.limited,
                    "limited    {} picture[ has|s have] as many objects as max_det lets the model find: further "
                    "objects are not labelled",
                )
            )
        if holds.sifted:
            lines.append(
                counted(
                    holds.sifted,
                    "sifted     {} picture[|s] without an object: no answer to the grid passed the limits of the prompt "
                    "(prompt.min_predicted_iou, prompt.min_stability, prompt.min_area_px, prompt.max_area_fraction)",
                )
            )
        if holds.vanished:
            lines.append(
                counted(
                    holds.vanished,
                    "vanished   {} picture[ is|s are] no longer in the source: exports leave [it|them] out, [its|their] "
                    "labels are kept for when [it is|they are] back",
                )
            )
        if self.invocation and self.invocation.ignored:
            lines.append(f"ignored    {kinds(self.invocation.ignored)}")
        lines += [
            f"failed     {printable(f'{f.image_id}: {f.code}: {f.detail}')}"
            for f in holds.failures[:LISTED_FAILURES]
        ]
        if len(holds.failures) > LISTED_FAILURES:
            lines.append(f"failed     ... {len(holds.failures) - LISTED_FAILURES} more in {run}/summary.json")
        if self.invocation:
            lines += _speed(self.invocation)
        if self.precision:
            lines.append(f"precision  {printable(self.precision)}")
        for name, report in self.exports.items():
            lines.append(f"written    {run}/export/{name}: {what_is_in(report)}")
            lines += [f"           {printable(note)}" for note in report.notes]
        lines += [
            f"failed     export={name}: {printable(why)} (all labels are safe in {run})"
            for name, why in self.unwritten.items()
        ]
        for name in self.outdated:
            command = f"autolabel export {printable(shlex.quote(self.run))} export={printable(shlex.quote(name))}"
            lines.append(
                f"outdated   {run}/export/{printable(name)}: written from other records; again: {command}"
            )
        if self.invocation:
            lines.append(f"next       {self._next()}")
        return lines

    def _next(self) -> str:
        if self.unfinished:
            return "the same command continues where this one stopped"
        if not self.holds.labels:
            return "no picture is labelled: correct what is said above, then run the same command again"
        if "overlay" not in self.exports:
            # Without brackets: zsh would look for files called like that.
            return f"autolabel export {printable(shlex.quote(self.run))} export=overlay    (pictures of the masks)"
        return f"look at {printable(self.run)}/export/overlay"

    def write(self, directory: Path) -> None:
        """`summary.json`, replaced whole. Exports by the number of their files: a million names help nobody."""
        invocation = self.invocation or Invocation()
        document = {
            "run": self.run,
            **asdict(self.holds),
            "precision": self.precision,
            **asdict(invocation),
            "exports": {name: {**asdict(one), "files": len(one.files)} for name, one in self.exports.items()},
            "unwritten": self.unwritten,
            "outdated": self.outdated,
            "cost": asdict(self._cost(directory, invocation)),
            "exit_code": self.exit_code,
        }
        write_text(directory / "summary.json", json.dumps(document, indent=1, allow_nan=False) + "\n")

    def _cost(self, directory: Path, invocation: Invocation) -> Cost:
        before = read_cost(directory)
        if before is None or (not self.holds.pending and invocation.labelled >= self.holds.labels):
            before = Cost(0, 0.0, {})  # all of it was labelled now
        if not invocation.labelled:
            return before
        stages = {
            name: before.stages.get(name, 0.0) + invocation.stages.get(name, 0.0)
            for name in dict.fromkeys((*before.stages, *invocation.stages))
        }
        return Cost(before.pictures + invocation.labelled, before.seconds + invocation.seconds, stages)


def _speed(invocation: Invocation) -> Iterator[str]:
    if invocation.labelled:
        yield (
            f"speed      {invocation.labelled / max(invocation.seconds, 1e-9):.2f} pictures a second "
            f"({invocation.labelled} in {invocation.seconds:.1f} s, including model loading)"
        )
    elif invocation.committed:
        yield counted(invocation.committed, "speed      none: {} picture[|s] failed or [was|were] skipped")
    else:
        yield "speed      nothing to do: every picture was labelled before"
    if invocation.stages:
        yield f"stages     {', '.join(f'{name} {s:.1f} s' for name, s in invocation.stages.items())}"


def mark_begun(directory: Path, pending: int) -> None:
    """Say in an earlier `summary.json`, if there is one, that the run is not complete: should this invocation
    be killed, nobody shall take that for success."""
    path = directory / "summary.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        document |= {"pending": pending, "stopped": True, "exit_code": STOPPED}
        text = json.dumps(document, indent=1, allow_nan=False)
    except (OSError, ValueError, TypeError, RecursionError):
        path.unlink(missing_ok=True)
    else:
        write_text(path, text + "\n")


def rewrite_counts(directory: Path, now: Summary) -> None:
    """What a run holds `now`, in its `summary.json`; how it was labelled and exported stays as it was written. The exit
    code is that of both."""
    try:
        document = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        document |= asdict(now.holds)
        exports = {name: ExportReport(**{**one, "files": ()}) for name, one in document["exports"].items()}
        invocation = Invocation(stopped=document["stopped"])
        whole = replace(now, invocation=invocation, exports=exports, unwritten=document.get("unwritten", {}))
        document["exit_code"] = whole.exit_code
        text = json.dumps(document, indent=1, allow_nan=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        now.write(directory)
    else:
        write_text(directory / "summary.json", text + "\n")


def read_cost(directory: Path) -> Cost | None:
    """From the run's `summary.json`; None where there is none, or none that can be understood."""
    try:
        found = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["cost"]
        stages = {str(name): float(seconds) for name, seconds in found["stages"].items()}
        cost = Cost(int(found["pictures"]), float(found["seconds"]), stages)
        return cost if all(map(math.isfinite, (cost.seconds, *stages.values()))) else None
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def summarise(
    reader: RunReader,
    invocation: Invocation | None = None,
    outcomes: Mapping[str, Outcome] | None = None,
    outdated: tuple[str, ...] = (),
) -> Summary:
    """Count a run in one pass over its records; `outcomes` of the exports that the invocation wrote."""
    outcomes = outcomes or {}
    return Summary(
        run=str(reader.directory),
        holds=holdings(reader),
        precision=reader.meta("precision") or "",
        invocation=invocation,
        exports={name: one for name, one in outcomes.items() if isinstance(one, ExportReport)},
        unwritten={name: told(one) for name, one in outcomes.items() if not isinstance(one, ExportReport)},
        outdated=outdated,
    )


def holdings(reader: RunReader) -> Holdings:
    """One pass over the records."""
    names = {c.id: c.name for c in reader.categories}
    status: Counter[str] = Counter()
    instances: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    failures, limited, sifted = [], 0, 0
    sieves = SIEVE in mapping_of(reader, "fingerprint")
    for record in reader.records():
        status[record.status] += 1
        instances.update(names.get(i.category_id, str(i.category_id)) for i in record.instances)
        dropped.update(d.reason.partition(":")[0] for d in record.dropped)
        limited += record.info is not None and MAX_DET in record.info.notes
        sifted += sieves and record.status == "empty" and not record.candidates
        if record.status == "failed":
            failures.append(Failure(record.image_id, record.code, record.detail))
        if record.status == "skipped":
            skipped[record.code] += 1
    return Holdings(
        status=dict(sorted(status.items())),
        instances=dict(instances.most_common()),
        dropped=dict(dropped.most_common()),
        failures=tuple(failures),
        pending=reader.counts().get("pending", 0),
        vanished=sum(1 for _ in reader.gone()),
        limited=limited,
        sifted=sifted,
        skipped=dict(skipped.most_common()),
    )


EVALUATE_AGAIN = "evaluated  before this: evaluate again; the old figures are in evaluate/*.outdated"


def next_export(directory: Path) -> str:
    return f"next       autolabel export {printable(shlex.quote(str(directory)))} export=[coco,yolo]"


def what_is_in(report: ExportReport) -> str:
    """`1 instance of 3 images`."""
    return f"{counted(report.instances, '{} instance[|s]')} of {counted(report.images, '{} image[|s]')}"


def kinds(counts: Mapping[str, int]) -> str:
    """`hidden: 2, polyline shapes: 1`, which reads right for any name and any number."""
    shown = [f"{printable(name)}: {n}" for name, n in list(counts.items())[:12]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _counts(counts: Mapping[str, int]) -> str:
    shown = [f"{n} {printable(name)}" for name, n in list(counts.items())[:12]]
    more = len(counts) - len(shown)
    return ", ".join(shown or ["none"]) + (f" and {more} more" if more else "")
