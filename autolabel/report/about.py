"""The sections on what was run, how to repeat it, what came in, and how long it took."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from autolabel.core.text import counted
from autolabel.core.types import FRAME_ASSUMED, MAX_DET
from autolabel.report.page import (
    Child,
    Column,
    Html,
    Section,
    bars_svg,
    columns_of,
    details,
    element,
    escape_lines,
    figure,
    figures,
    joined,
    meter_svg,
    note,
    number,
    paragraph,
    subsection,
    table,
)
from autolabel.report.tally import Tally

_LONGEST_FILE = 100_000
STATUS = {
    "ok": "labelled, with objects",
    "empty": "labelled, nothing found or kept",
    "failed": "could not be labelled",
    "skipped": "left alone, for the reasons below",
    "pending": "not labelled yet",
}
NOTES = {
    "alpha_composited": "transparent, laid on white",
    "alpha_dropped": "with an alpha channel or a further band that was dropped",
    "multi_frame": "with several frames, the first was taken",
    "16bit_reduced": "16-bit, reduced to 8",
    "12bit_scaled": "12-bit, scaled to 8",
    MAX_DET: "with as many objects as `max_det` lets a model find; there may be more",
    FRAME_ASSUMED: "that are turned, with labels that do not tell whether they are of the stored or of the upright picture; "
    "taken as of the upright one",
    "turned_upright": "turned upright by their EXIF orientation",
}


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a run beside its records. `command` repeats it, all settings included if `exact`; `config`
    is YAML text. `timed` pictures took `seconds`, of which `stages` (they overlap)."""

    name: str
    directory: str
    command: str
    exact: bool
    config: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    pending: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    timed: int = 0
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)


def repeat_section(about: About) -> Section:
    """Command, models, versions, configuration, fingerprint."""
    how = (
        "The command, its settings complete:"
        if about.exact
        else "The nearest command; this version cannot say all settings of the run, which stand in config.yaml below:"
    )
    models = [(key, _short(value)) for key, value in about.fingerprint.items() if key.endswith(")")]
    body = [
        paragraph(how),
        element("pre", element("code", escape_lines(about.command))),
        element(
            "div",
            subsection("Models and numerics", columns_of(models) if models else note("Not recorded.")),
            subsection(
                "Versions", columns_of(about.versions.items()) if about.versions else note("Not recorded.")
            ),
            class_="split",
        ),
        details("Configuration (config.yaml)", _file(about.config)),
        details(f"Fingerprint {fingerprint_digest(about.fingerprint)}", _fingerprint(about.fingerprint)),
    ]
    return Section("repeat", "What was run", joined(body))


def inputs_section(tally: Tally, about: About) -> Section:
    """Pictures by status, and every failure that fits."""
    statuses = {**{s: tally.status[s] for s in ("ok", "empty", "failed", "skipped") if tally.status[s]}}
    if about.pending:
        statuses["pending"] = about.pending
    total = sum(statuses.values())
    rows: list[list[Child]] = [
        [name, STATUS.get(name, ""), n, meter_svg(n / total, f"{n / total:.1%}")] for name, n in statuses.items()
    ]
    columns = [Column("Status"), Column("Meaning"), Column("Pictures", "number"), Column("Share", "wide")]
    parts = [table(columns, rows) if rows else note("The run holds no picture.")]
    if tally.codes:
        code_columns = [Column("Why"), Column("Pictures", "number")]
        parts.append(subsection("Reasons", table(code_columns, tally.codes.most_common(100))))
    parts.append(_failures(tally))
    facts = _facts(tally, about)
    if facts:
        parts.append(subsection("About the pictures", columns_of(facts)))
    return Section(
        "inputs", "Inputs", joined(parts), lead="Every picture of the source ends in exactly one of these."
    )


def timing_section(about: About) -> Section | None:
    """None when nothing is known."""
    if not about.timed and not about.stages:
        return None
    speed = about.timed / about.seconds if about.seconds > 0 else None
    facts = [
        ("Pictures labelled", number(about.timed)),
        ("Time", _duration(about.seconds)),
        ("Pictures a second", number(speed, 2)),
    ]
    body = [columns_of(facts)]
    stages = [(name, float(s)) for name, s in about.stages.items()]
    if stages:
        chart = bars_svg(stages, label="Seconds by stage", digits=1)
        body.append(figures([figure(chart, "Seconds by stage", "Stages overlap, so they add up to more.")]))
    body.append(note("Wall time, model loading included; other work on the machine slows it down."))
    return Section("timing", "Timing", joined(body))


def fingerprint_digest(fingerprint: Mapping[str, str]) -> str:
    """Twelve characters that tell two fingerprints apart at a glance."""
    return hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:12]


def _short(value: str) -> Html:
    """A checksum by its first characters; the fingerprint below has all of it."""
    return element("code", value if len(value) < 40 else f"{value[:16]}…")


def _failures(tally: Tally) -> Html:
    if not tally.failures:
        return Html("")
    total = tally.status["failed"] + tally.status["skipped"]
    rows = [[f.image_id, f.code, f.detail] for f in tally.failures]
    content = [table([Column("Picture", "wide"), Column("Code"), Column("Detail", "wide")], rows)]
    if total > len(rows):
        content.append(note(f"The first {len(rows):,} of {total:,}; summary.json lists all that failed."))
    return subsection("Pictures without labels", *content)


def _facts(tally: Tally, about: About) -> list[tuple[str, str]]:
    facts = []
    if tally.picture_sizes:
        (common, times), *_ = tally.picture_sizes.most_common(1)
        different = len(tally.picture_sizes)
        facts.append(
            ("Most frequent size", f"{common[0]} x {common[1]} px ({counted(times, '{:,} picture[|s]')})")
        )
        facts.append(("Different sizes", number(different)))
    named = {name: n for name, n in sorted(tally.splits.items()) if name}
    if named:
        facts.append(("Splits", ", ".join(f"{name}: {n:,}" for name, n in named.items())))
    facts += [("Noted", f"{n:,} {NOTES.get(name, name)}") for name, n in tally.notes.most_common(20)]
    if about.ignored:
        facts.append(("Ignored files", ", ".join(f"{what}: {n:,}" for what, n in about.ignored.items())))
    return facts


def _fingerprint(fingerprint: Mapping[str, str]) -> Html:
    rows = [[key, element("code", value)] for key, value in sorted(fingerprint.items())]
    return table([Column("What decides a record"), Column("Value", "wide")], rows, page_rows=200)


def _file(text: str) -> Html:
    if not text:
        return note("Not recorded.")
    shown = text if len(text) <= _LONGEST_FILE else text[:_LONGEST_FILE] + "\n..."
    return element("pre", element("code", escape_lines(shown)))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
