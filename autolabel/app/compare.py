"""`autolabel compare RUNS...`: several runs in one table and on one page; two of them object by object.

Writes `index.html`, `comparison.json` and, of two runs, `differences.jsonl` into a folder that is replaced whole.
Loads no model and changes no run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolabel.app.command_line import parse
from autolabel.app.compose import compose, plain, show
from autolabel.app.run_directory import NOTHING_LABELLED, is_labelled, runs_below
from autolabel.app.sweep import short_name
from autolabel.core.errors import ConfigError, ExportError, StoreError, is_disk_full
from autolabel.core.text import counted, printable
from autolabel.ops.settings import count
from autolabel.store.run import FILE_NAME, open_reader

if TYPE_CHECKING:
    from autolabel.report.compare import Changes, Comparison

VERSION = 1
"""Format version of `comparison.json`."""
SETTINGS_SHOWN = 20
"""Settings that differ on the screen; the page has them all."""
LONGEST_VALUE = 60
LEFT_OUT_SHOWN = 3
"""Paths that are not runs, listed in the error where fewer than two are."""
RENAMED = (
    "{} picture[ has|s have] different image ids in the two runs; [it is|they are] matched by the bytes of [its file|their "
    "files] or by name."
)
NO_SHARED_CLASS = "The runs have no class name in common: classes are not compared."


@dataclass(frozen=True, slots=True)
class Settings:
    """`configs/compare.yaml`, checked."""

    out: Path | None
    match_iou: float
    moved_iou: float
    examples: int


def main(arguments: Sequence[str]) -> int:
    """Compare; exit code 0, whatever differs."""
    request = parse(arguments, "compare", several=True)
    for override in request.overrides:
        if "/" in override.partition("=")[0]:  # a run of a sweep is called like a setting
            raise StoreError(f"there is no run directory {printable(override)}")
    config = compose("compare", request.overrides, request.config_dir)
    if request.show:
        return show(config)
    settings = read_settings(plain(config))
    command = shlex.join(["autolabel", "compare", *request.paths, *request.overrides])
    directories = run_directories(request.paths)
    out = settings.out or default_out(directories)
    found = compare(directories, settings, out, command)
    sys.stdout.write("\n".join([*text(found), *written(found, out)]) + "\n")
    return 0


def compare(directories: Sequence[Path], settings: Settings, out: Path, command: str) -> Comparison:
    """Read every run and write the folder `out`; `command` is what the page says to repeat it."""
    from autolabel.app.measured import different, run_figures
    from autolabel.app.object_changes import Counting
    from autolabel.app.side_by_side import notes_on, ranking, rows
    from autolabel.evaluate.differences import rules
    from autolabel.export.atomic import replaced
    from autolabel.report.compare import Comparison, comparison_html

    names = run_names(directories)
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(directory)) for directory in directories]
        categories = [reader.categories for reader in readers]
        by = rules(*categories[:2], match_iou=settings.match_iou, moved_iou=settings.moved_iou)
        try:  # before the runs are read, which may take minutes
            draft = stack.enter_context(replaced(out))
        except OSError as error:
            if is_disk_full(error):
                raise
            raise ExportError(f"{out} cannot be written: {error.strerror}; choose another with out=...") from error
        figures = [run_figures(reader) for reader in readers]
        measure, why = ranking(figures)
        changes, notes = None, notes_on(figures, names)
        if len(readers) == 2:
            counting = Counting(readers[0], readers[1], by, examples=settings.examples)
            draft.write("differences.jsonl", counting.lines())
            changes = counting.changes(names)
            notes += [counted(counting.renamed, RENAMED)] if counting.renamed else []
        notes += why if by.classes else [*why, NO_SHARED_CLASS]
        found = Comparison(rows(figures, names, measure), measure, notes, different(figures), changes)
        data = document(found)
        draft.write("comparison.json", [json.dumps(data, indent=1, allow_nan=False).encode() + b"\n"])
        draft.write("index.html", [comparison_html(found, command=command, data=data).encode()])
    return found


def read_settings(values: dict[str, Any]) -> Settings:
    """Raises ConfigError; the thresholds are checked where they are used."""
    out = values["out"]
    if out is not None and (not isinstance(out, str) or not out):
        raise ConfigError(f"out must be a path, got {out!r} (a folder called 5 is out=./5)")
    return Settings(
        None if out is None else Path(out).expanduser(),
        values["match_iou"],
        values["moved_iou"],
        count("examples", values["examples"], 0, 200),
    )


def run_directories(paths: Sequence[str]) -> list[Path]:
    """Each path is a run, or a folder of runs. What a shell's `runs/*` names beside them is left out with a line: other
    files and folders, earlier comparisons, runs where labelling never began. Raises StoreError where nothing is at a
    path, or a run cannot be read, and ConfigError, with what was left out, when fewer than two are there."""
    found: list[Path] = []
    left_out: list[str] = []
    for path in paths:
        folder = Path(path).expanduser()
        if not os.path.lexists(folder):
            raise StoreError(f"there is no run directory {printable(path)}")
        runs = [folder] if (folder / FILE_NAME).is_file() else runs_below(folder)
        if not runs:
            kind = "a comparison" if compared_in(folder) else f"not a run directory (no {FILE_NAME})"
            left_out.append(f"{printable(path)} is {kind}")
        for run in runs:
            if is_labelled(run):
                found.append(run)
            else:
                left_out.append(NOTHING_LABELLED.format(printable(str(run))))
    if len(found) < 2:
        more = f"; and {len(left_out) - LEFT_OUT_SHOWN} more" if len(left_out) > LEFT_OUT_SHOWN else ""
        why = f"; left out: {'; '.join(left_out[:LEFT_OUT_SHOWN])}{more}" if left_out else ""
        raise ConfigError(f"compare takes two runs or more, or a folder that holds them, got {len(found)}{why}")
    sys.stderr.writelines(f"left out: {why}\n" for why in left_out)
    return found


def run_names(directories: Sequence[Path]) -> list[str]:
    """What is left of each path without what all have in common; a run that is named again gets a number."""
    places = [directory.resolve() for directory in directories]
    common = os.path.commonpath([place.parent for place in places])
    names = [printable(str(place.relative_to(common))) for place in places]
    times = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name} ({n + 1})" if n else name for name, n in zip(names, times, strict=True)]


def default_out(directories: Sequence[Path]) -> Path:
    """`runs/compare-<names of the runs>`; where other runs of the same names are compared there, with a digest of
    where these are, so that the same comparison has the same folder again."""
    names = run_names(directories)
    words = [*names[:2], *([f"{len(names) - 2}-more"] if len(names) > 2 else [])]
    name = "compare-" + "-".join(word.replace("/", "_").replace(" ", "_") for word in words)
    short = Path("runs") / short_name(name, name)
    places = [str(directory.resolve()) for directory in directories]
    exact = short.with_name(f"{short.name}-{_digest(places)}")
    return exact if exact.exists() or compared_in(short) not in (None, places) else short


def compared_in(folder: Path) -> list[str] | None:
    """Where the runs lie whose comparison is in a folder; None where there is none that can be read."""
    try:
        found = json.loads((folder / "comparison.json").read_bytes())
        return [str(Path(run["directory"]).resolve()) for run in found["runs"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest(places: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(places).encode(errors="surrogateescape")).hexdigest()[:8]


def document(found: Comparison) -> dict[str, Any]:
    """`comparison.json`: everything on the page but the pictures."""
    names = [run.name for run in found.runs]
    changes = found.changes
    return {
        "version": VERSION,
        "runs": [{**asdict(run), "pictures": run.pictures} for run in found.runs],
        "pareto": {"measure": found.measure, "front": [run.name for run in found.runs if run.on_front]},
        "notes": list(found.notes),
        "settings": {key: dict(zip(names, values, strict=True)) for key, values in found.settings},
        "differences": None if changes is None else _changes_document(changes),
    }


def _changes_document(changes: Changes) -> dict[str, Any]:
    return {
        "before": changes.before,
        "after": changes.after,
        "match_iou": changes.match_iou,
        "moved_iou": changes.moved_iou,
        "pictures": {"compared": changes.compared, **{what: number for what, number, _ in changes.elsewhere}},
        "objects": {"identical": changes.identical, "close": changes.close, **changes.counts},
        "classes": changes.classes,
        "class_changes": [
            {"before": one, "after": other, "objects": number} for one, other, number in changes.renamed
        ],
    }


# -- the screen -------------------------------------------------------------------------------------------------


def text(found: Comparison) -> Iterator[str]:
    """The table, what must not be concluded from it, what is set differently, and what differs."""
    yield from aligned(_table(found))
    for note in found.notes:
        yield f"note       {note}"
    names = ", ".join(run.name for run in found.runs)
    for key, values in found.settings[:SETTINGS_SHOWN]:
        yield f"setting    {printable(key)}: {' | '.join(_short(value) for value in values)}"
    if len(found.settings) > SETTINGS_SHOWN:
        yield f"setting    ... {len(found.settings) - SETTINGS_SHOWN} more on the page"
    if found.settings:
        yield f"           (in the order {names}; all other settings are the same, or parts of what is named)"
    if found.changes is not None:
        yield from _changes_text(found.changes)


def _table(found: Comparison) -> Iterator[list[str]]:
    measures = [key for key in found.runs[0].quality if any(run.quality[key] is not None for run in found.runs)]
    yield ["run", *measures, "pictures/s", "pictures", "objects", "dropped", "Pareto front"]
    for run in found.runs:
        figures = [_number(run.quality[key], 3) for key in measures]
        counts = [run.pictures, sum(run.instances.values()), sum(run.dropped.values())]
        place = {True: "on it", False: "", None: "-"}[run.on_front]
        yield [run.name, *figures, _number(run.pictures_per_second, 2), *map(str, counts), place]


def _changes_text(changes: Changes) -> Iterator[str]:
    words = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in changes.counts.items() if number)
    close = f"{changes.close} alike (IoU of {changes.moved_iou:g} or more)"
    same = f"{changes.identical} identical, {close}, {words or 'no other difference'}"
    yield f"objects    {same if changes.compared else 'nothing was compared'}"
    yield f"           ({changes.before} -> {changes.after}, {counted(changes.compared, '{} picture[|s]')} compared)"
    for what, number, _ in changes.elsewhere:
        yield f"pictures   {number} {what}"


def written(found: Comparison, out: Path) -> list[str]:
    files = ["index.html", "comparison.json", *(["differences.jsonl"] if found.changes is not None else [])]
    lines = [f"written    {printable(str(out))}: {', '.join(files)}"]
    if found.changes is None:
        two = [printable(shlex.quote(run.directory)) for run in found.runs[:2]]
        lines.append(f"next       autolabel compare {' '.join(two)}    (two runs object by object)")
    return lines


def aligned(lines: Iterator[list[str]]) -> Iterator[str]:
    """Cells in columns: the first to the left, the others to the right."""
    rows = list(lines)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _short(value: str) -> str:
    shown = printable(value)
    return shown if len(shown) <= LONGEST_VALUE else f"{shown[: LONGEST_VALUE - 1]}…"
