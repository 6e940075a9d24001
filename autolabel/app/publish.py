"""Exports of a run, each format by itself, and put at an address: `export_to=s3://bucket/labels`."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autolabel.core.errors import AutolabelError, ExportError, is_disk_full
from autolabel.core.protocols import Exporter, ExportReport
from autolabel.core.text import counted, one_line
from autolabel.core.types import Category, Columns, ImageRecord
from autolabel.ops.export_mark import RECORDS, is_export
from autolabel.store.run import RunReader

logger = logging.getLogger(__name__)

Outcome = ExportReport | AutolabelError | OSError
"""What was written of a format, or why it could not be."""


def address_of(value: object) -> str | None:
    """Where exports go beside the run directory; None for nowhere. Raises ConfigError, before any work is done."""
    from autolabel.export.publish import check_address

    return None if value is None else check_address(value)


@dataclass(frozen=True, slots=True)
class RunWithSettings:
    """A run in the hands of an exporter: it tells the manifest the settings, too."""

    run: RunReader
    settings: Mapping[str, object]

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.run.categories

    @property
    def document(self) -> str:
        return self.run.document

    def records(self) -> Iterator[ImageRecord]:
        return self.run.records()

    def columns(self) -> Iterator[tuple[ImageRecord, Columns | None]]:
        return self.run.columns()

    def digest(self) -> str:
        return self.run.digest()


def format_settings(values: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    """The settings of each format in a configuration, as JSON holds them."""
    chosen = {name: one for name, one in (values.get("export") or {}).items() if one is not None}
    found: dict[str, dict[str, object]] = json.loads(json.dumps(chosen, sort_keys=True, default=str))
    return found


def exported(
    run: RunReader,
    exporters: Mapping[str, Exporter],
    settings: Mapping[str, Mapping[str, object]],
    directory: Path,
    address: str | None,
) -> Iterator[tuple[str, Outcome]]:
    """Each format, written into `export/<name>` of the run directory and put at `<address>/<name>`; or why that cannot
    be, whatever it raised, which is no reason for another format not to be there. A full disk is: that is raised."""
    for name, exporter in exporters.items():
        target = directory / "export" / name
        outcome: Outcome
        try:
            report = exporter.export(RunWithSettings(run, settings[name]), target)
            if not isinstance(report, ExportReport):
                raise ExportError(f"its export() must return an ExportReport, got a {type(report).__name__}")
            outcome = report if address is None else _published(report, target, f"{address}/{name}")
        except Exception as error:
            if is_disk_full(error):
                raise
            logger.info("export=%s could not be written", name, exc_info=error)
            outcome = error if isinstance(error, AutolabelError | OSError) else _fault(name, error)
        yield name, outcome


def _fault(name: str, error: Exception) -> ExportError:
    """For what no exporter should raise, somebody's own or ours."""
    found = ExportError(f"{one_line(error)} (export={name} alone with --debug shows where)")
    found.__cause__ = error
    return found


def outdated(run: RunReader, written: Collection[str]) -> tuple[str, ...]:
    """The names of exports in the run directory, but for those `written` now, that are of other records than the run
    has. An export of an earlier version does not tell; old ones that were put aside for their edits are meant to be
    so."""
    from autolabel.export.manifest import origin_of

    found = []
    for path in sorted((run.directory / "export").glob("[!.]*")):
        if path.name not in written and "." not in path.name and is_export(path):
            with suppress(OSError, ValueError):  # damaged: that is for --verify to say
                if origin_of(path).get(RECORDS) not in (None, run.digest()):
                    found.append(path.name)
    return tuple(found)


def _published(report: ExportReport, directory: Path, url: str) -> ExportReport:
    """The report, with a line that says where the format went."""
    from autolabel.export.publish import publish

    found = publish(directory, url)
    note = counted(found.files, "published at {1}: {0} file[|s], {2} uploaded now", found.url, found.uploaded)
    return replace(report, notes=(*report.notes, note))
