"""The page of several runs side by side. Shows what it is given; measures nothing and reads no run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autolabel.core.errors import ImageError
from autolabel.core.text import counted
from autolabel.core.types import ImageRecord, Instance
from autolabel.report.page import (
    Card,
    Child,
    Column,
    Html,
    Point,
    Section,
    Thumbnail,
    columns_of,
    details,
    element,
    escape,
    figure,
    figures,
    gallery,
    joined,
    note,
    page,
    paragraph,
    scatter_svg,
    subsection,
    table,
    tiles,
)

BEFORE, AFTER = 0, 1
"""Numbers of the two colours."""
CLASSES_SHOWN = 200

KIND_TITLES = {
    "added": ("Added", "only in {after}"),
    "removed": ("Removed", "only in {before}"),
    "class_changed": ("Class changed", "the same object, another class"),
    "moved": ("Mask moved", "the same object, another mask"),
    "now_kept": ("Kept now", "dropped by {before}"),
    "now_dropped": ("Dropped now", "dropped by {after}"),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. `quality` has the same keys, in the same order, for every run of a page; None is not measured.
    `on_front` is None where no front was drawn."""

    name: str
    directory: str
    status: Mapping[str, int]
    pending: int
    instances: Mapping[str, int]
    dropped: Mapping[str, int]
    quality: Mapping[str, float | None]
    truth: str | None
    pictures_per_second: float | None
    stages: Mapping[str, float]
    on_front: bool | None

    @property
    def pictures(self) -> int:
        return sum(self.status.values())


@dataclass(frozen=True, slots=True)
class Changed:
    """One object that differs, and the picture it is in. `share` is the part of the picture that differs."""

    record: ImageRecord
    before: Instance | None
    after: Instance | None
    class_before: str
    class_after: str
    iou: float | None
    share: float
    reason: str


@dataclass(frozen=True, slots=True)
class Changes:
    """Two runs, object by object. `counts` are objects by kind, `classes` the same for each class, `renamed` how
    often a class became another one, `examples` the strongest of each kind; `elsewhere` are pictures that were not
    compared: what about them, how many, and some of their ids."""

    before: str
    after: str
    match_iou: float
    moved_iou: float
    compared: int
    identical: int
    close: int
    counts: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    renamed: Sequence[tuple[str, str, int]]
    examples: Mapping[str, Sequence[Changed]]
    elsewhere: Sequence[tuple[str, int, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`measure` is the key of `Measured.quality` that ranks the runs, None when nothing ranks them all; `notes` say
    what must not be concluded; `settings` are keys whose values differ, one value a run."""

    runs: Sequence[Measured]
    measure: str | None
    notes: Sequence[str]
    settings: Sequence[tuple[str, Sequence[str]]]
    changes: Changes | None


def comparison_html(found: Comparison, *, command: str, data: Mapping[str, Any]) -> str:
    """The whole file. `command` repeats it, `data` are its numbers for programs."""
    title = " · ".join(run.name for run in found.runs[:3]) + (" · …" if len(found.runs) > 3 else "")
    sections: list[Section | None] = [_runs(found), _configuration(found)]
    if found.changes is not None:
        sections += [_objects(found.changes), _pictures(found.changes)]
    sections += [_counts(found.runs), Section("repeat", "Repeat it", element("pre", command))]
    return page(
        title,
        [section for section in sections if section is not None],
        eyebrow="autolabel compare",
        lead=f"{len(found.runs)} runs side by side.",
        masks=found.changes is not None,
        data=data,
    )


def _runs(found: Comparison) -> Section:
    measures = [key for key in found.runs[0].quality if any(run.quality[key] is not None for run in found.runs)]
    columns = [
        Column("Run", "wide"),
        Column("Pareto front"),
        *[Column(key, "number") for key in measures],
        Column("Pictures a second", "number", 2),
        *[Column(name, "number") for name in ("Pictures", "Objects", "Dropped")],
    ]
    body = [table(columns, [_run_row(run, measures) for run in found.runs])]
    body += [paragraph(text) for text in found.notes]
    chart = _scatter(found)
    return Section("runs", "Runs", joined([*body, chart] if chart else body))


def _run_row(run: Measured, measures: Sequence[str]) -> list[Child]:
    place = {True: element("strong", "on it"), False: "", None: None}[run.on_front]
    counts: list[Child] = [run.pictures, sum(run.instances.values()), sum(run.dropped.values())]
    return [run.name, place, *[run.quality[key] for key in measures], run.pictures_per_second, *counts]


def _scatter(found: Comparison) -> Html | None:
    if found.measure is None:
        return None
    points = [
        (run.on_front, Point(run.pictures_per_second, value, run.name, 0 if run.on_front else 1))
        for run in found.runs
        if run.pictures_per_second is not None and (value := run.quality[found.measure]) is not None
    ]
    if not points:
        return None
    front = sorted((point for on_front, point in points if on_front), key=lambda point: point.x)
    chart = scatter_svg(
        [point for _, point in points],
        label=f"{found.measure} over pictures a second, one point a run",
        x_label="pictures a second",
        y_label=found.measure,
        front=front,
    )
    text = (
        "Up and to the right is better. The line joins the Pareto front: no other run is both better and faster."
    )
    return figures([figure(chart, f"{found.measure} against speed", text)])


def _configuration(found: Comparison) -> Section:
    columns = [Column("Setting", "wide"), *[Column(run.name, "wide") for run in found.runs]]
    rows: list[list[Child]] = [[element("code", key), *values] for key, values in found.settings]
    body = table(columns, rows) if rows else note("Every setting is the same.")
    return Section("configuration", "Configuration", body, "Settings that differ; equal ones are left out.")


def _counts(runs: Sequence[Measured]) -> Section:
    parts = [
        _count_table("Pictures by status", "Status", [run.status for run in runs], runs),
        _count_table("Objects by class", "Class", [run.instances for run in runs], runs),
        _count_table("Drops by reason", "Reason", [run.dropped for run in runs], runs),
        _count_table("Seconds by stage", "Stage", [run.stages for run in runs], runs),
    ]
    return Section("counts", "Counts", joined([part for part in parts if part is not None]))


def _count_table(
    title: str, what: str, counts: Sequence[Mapping[str, int | float]], runs: Sequence[Measured]
) -> Html | None:
    """One row a name that any run has, the most frequent first; None when there is none."""
    total = {name: sum(c.get(name, 0) for c in counts) for one in counts for name in one}
    names = sorted(total, key=lambda name: (-total[name], name))
    if not names:
        return None
    rows: list[list[Child]] = [[name, *[c.get(name, 0) for c in counts]] for name in names[:CLASSES_SHOWN]]
    more = (
        note(counted(len(names) - CLASSES_SHOWN, "{} more [is|are] in comparison.json."))
        if len(names) > CLASSES_SHOWN
        else ""
    )
    columns = [Column(what, "wide"), *[Column(run.name, "number", 1) for run in runs]]
    return subsection(title, table(columns, rows), more)


def _objects(found: Changes) -> Section:
    kinds = {
        kind: (title, hint.format(before=found.before, after=found.after))
        for kind, (title, hint) in KIND_TITLES.items()
    }
    lead = (
        f"From {found.before} to {found.after}: {counted(found.compared, '{:,} picture[|s]')} with labels of both. Objects are matched "
        f"class-agnostically, by equal boxes or a mask IoU of at least {found.match_iou:g}; below {found.moved_iou:g} the mask has moved."
    )
    same = [
        ("Identical", found.identical, "to the pixel"),
        ("Alike", found.close, f"IoU of {found.moved_iou:g} or more"),
    ]
    counts = [(title, found.counts.get(kind, 0), hint) for kind, (title, hint) in kinds.items()]
    parts = [tiles([*same, *counts]), *_class_tables(found, kinds)]
    if any(found.examples.values()):
        parts.append(_key(found))
    parts += [
        subsection(title, note(_order_text(found.counts[kind], len(found.examples[kind]))), _gallery(found, kind))
        for kind, (title, _) in kinds.items()
        if found.examples.get(kind)
    ]
    return Section("objects", "Object by object", joined(parts), lead)


def _class_tables(found: Changes, kinds: Mapping[str, tuple[str, str]]) -> list[Html]:
    if not found.classes:
        return []
    kinds = {kind: words for kind, words in kinds.items() if found.counts.get(kind)}
    columns = [Column("Class", "wide"), *[Column(title, "number") for title, _ in kinds.values()]]
    names = sorted(found.classes, key=lambda name: (-sum(found.classes[name].values()), name))[:CLASSES_SHOWN]
    rows: list[list[Child]] = [[name, *[found.classes[name].get(kind, 0) for kind in kinds]] for name in names]
    parts = [subsection("Differences by class", table(columns, rows))]
    if found.renamed:
        columns = [Column(found.before), Column(found.after), Column("Objects", "number")]
        parts.append(subsection("Classes that changed", table(columns, [list(row) for row in found.renamed])))
    return parts


def _order_text(count: int, shown: int) -> str:
    what = "All of them" if shown == count else f"The largest {shown} of {count:,}"
    return f"{what}, sorted by the share of the picture that changes."


def _gallery(found: Changes, kind: str) -> Html:
    return gallery(_card(found, one) for one in found.examples[kind])


def _card(found: Changes, one: Changed) -> Card:
    lines: list[Child] = [_class_text(one)]
    if one.iou is not None and one.before is not None and one.after is not None:
        lines.append(f"IoU {one.iou:.3f}")
    lines.append(f"{one.share:.2%} of the picture")
    if one.reason:
        lines.append(one.reason)
    return Card(_picture(one), one.record.image_id, lines)


def _class_text(one: Changed) -> str:
    names = [name for name in (one.class_before, one.class_after) if name]
    return " → ".join(dict.fromkeys(names))


def _picture(one: Changed) -> Thumbnail:
    """The part of the picture around the object, both masks in their colours."""
    from autolabel.report.thumbnail import draw, missing, picture_of, window_around

    # The number of an object chooses its colour.
    sides = ((one.before, BEFORE), (one.after, AFTER))
    shown = [replace(instance, index=number) for instance, number in sides if instance is not None]
    size = (1, 1) if one.record.info is None else one.record.info.size_hw
    window = window_around(_around(shown), size)
    try:
        return draw(picture_of(one.record), shown, window=window)
    except ImageError as error:
        return missing(one.record, f"{error.code}: {error.detail}", window)


def _around(shown: Sequence[Instance]) -> tuple[float, float, float, float]:
    """The smallest box around all masks, around the prompt boxes where there is no mask."""
    from autolabel.ops.masks import bounds_xyxy

    boxes = [None if one.mask is None else bounds_xyxy(one.mask) for one in shown]
    known = [one.box_xyxy if box is None else box for one, box in zip(shown, boxes, strict=True)]
    x0, y0, x1, y1 = zip(*known, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _key(found: Changes) -> Html:
    """Which colour is whose."""
    from autolabel.ops.drawing import colour_of

    parts: list[Child] = []
    for name, number in ((found.before, BEFORE), (found.after, AFTER)):
        square = element("rect", width=12, height=12, rx=2, fill="#{:02x}{:02x}{:02x}".format(*colour_of(number)))
        parts += [
            element("svg", square, width=12, height=12, aria_hidden="true"),
            Html(" "),
            escape(name),
            Html(" &nbsp; "),
        ]
    return subsection("Colours", paragraph(*parts))


def _pictures(found: Changes) -> Section | None:
    if not found.elsewhere:
        return None
    rows = [columns_of([(what, count) for what, count, _ in found.elsewhere])]
    rows += [
        details(f"{what}: {len(ids)} of {count:,}", element("ul", *[element("li", image_id) for image_id in ids]))
        for what, count, ids in found.elsewhere
    ]
    return Section("pictures", "Pictures not compared", joined(rows), "All of them are in differences.jsonl.")
