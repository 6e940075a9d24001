"""`autolabel report RUN`: one self-contained HTML page of a run, `report/index.html`. Loads no model, changes no
record."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autolabel.app.build import build
from autolabel.app.command_line import parse
from autolabel.app.compose import compose, show
from autolabel.app.repeat import repeat_command
from autolabel.app.run_directory import existing_run, write_text
from autolabel.app.stored_settings import plain_settings
from autolabel.app.summary import read_cost
from autolabel.core.errors import ConfigError, StoreError
from autolabel.core.text import counted, printable
from autolabel.report.about import About
from autolabel.report.evaluation import read_evaluation
from autolabel.report.run_report import Built, RunReport
from autolabel.store.lock import exclusive
from autolabel.store.run import RunReader, mapping_of, open_reader

PAGE = Path("report") / "index.html"


def main(arguments: Sequence[str]) -> int:
    """Write the page; exit code 0, also for a run whose pictures are gone."""
    request = parse(arguments, "report")
    config = compose("report", request.overrides, request.config_dir)
    if request.show:
        return show(config)
    directory = existing_run(request.path, config.run, "report")
    report = build(config.report)
    if not isinstance(report, RunReport):
        raise ConfigError(f"report._target_ must be a RunReport, got {type(report).__name__}")
    with exclusive(directory):
        built = write_report(directory, report)
    path = directory / PAGE
    size = path.stat().st_size / 1e6
    shown = f"{built.pictures} shown"
    if built.beyond_budget:
        shown += f", {built.beyond_budget} left out by report.max_megabytes"
    if built.unread:
        shown += counted(built.unread, ", {} picture[|s] could not be read")
    sys.stdout.write(
        f"written    {printable(str(path))}: {counted(built.images, '{} picture[|s]')}, {shown}, {size:.1f} MB\n"
        "next       open it in any browser; it needs no network\n"
    )
    return 0


def write_report(directory: Path, report: RunReport) -> Built:
    """The page of the run in `directory`, in place of the one before."""
    with open_reader(directory) as reader, Bars() as progress:
        evaluated = read_evaluation(directory, reader.digest(), report.examples, report.seed)
        built = report.build(reader, about_run(reader, directory), evaluated, progress.told)
    (directory / PAGE).parent.mkdir(exist_ok=True)
    write_text(directory / PAGE, built.html)
    return built


def about_run(reader: RunReader, directory: Path) -> About:
    """Configuration, versions, fingerprint and cost, as far as the run has them."""
    command, exact = repeat_command(there(plain_settings, reader))
    cost = read_cost(directory)
    return About(
        name=directory.resolve().name or str(directory),
        directory=str(directory),
        command=command,
        exact=exact,
        config=reader.meta("config") or "",
        versions=texts(there(mapping_of, reader, "versions")),
        fingerprint=texts(there(mapping_of, reader, "fingerprint")),
        pending=reader.counts().get("pending", 0),
        ignored=ignored_of(directory),
        timed=0 if cost is None else cost.pictures,
        seconds=0.0 if cost is None else cost.seconds,
        stages={} if cost is None else cost.stages,
    )


def there(read: Callable[..., dict[str, Any]], reader: RunReader, *key: str) -> dict[str, Any]:
    """What `read` finds in a run; {} where that is nothing or damaged: a page shows what there is."""
    try:
        return read(reader, *key)
    except StoreError:
        return {}


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def ignored_of(directory: Path) -> Mapping[str, int]:
    """Files that the source left alone, from `summary.json`; {} where it does not say."""
    try:
        found = json.loads((directory / "summary.json").read_bytes())["ignored"]
        return {str(what): int(n) for what, n in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


class Bars:
    """One bar for each part of the work; silent where nobody looks."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def told(self, what: str, done: int, of: int) -> None:
        if what != self._what:
            from tqdm import tqdm

            self.__exit__()
            self._what = what
            self._bar = tqdm(
                total=of or None, unit="img", desc=what, disable=None, dynamic_ncols=True, leave=False
            )
        self._bar.update(done)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
