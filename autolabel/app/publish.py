"""Exports of a run, each format by itself, and put at an address: `export_to=s3://bucket/labels`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from autolabel.core.errors import AutolabelError, is_disk_full
from autolabel.core.protocols import Exporter, ExportReport, RecordReader

logger = logging.getLogger(__name__)

Outcome = ExportReport | AutolabelError | OSError
"""What was written of a format, or why it could not be."""


def address_of(value: object) -> str | None:
    """Where exports go beside the run directory; None for nowhere. Raises ConfigError, before any work is done."""
    from autolabel.export.publish import check_address

    return None if value is None else check_address(value)


def exported(
    run: RecordReader, exporters: Mapping[str, Exporter], directory: Path, address: str | None
) -> Iterator[tuple[str, Outcome]]:
    """Each format, written into `export/<name>` of the run directory and put at `<address>/<name>`; or why that cannot
    be, which is no reason for another format not to be there. A full disk is: that is raised."""
    for name, exporter in exporters.items():
        target = directory / "export" / name
        try:
            report = exporter.export(run, target)
            outcome: Outcome = report if address is None else _published(report, target, f"{address}/{name}")
        except (AutolabelError, OSError) as error:
            if is_disk_full(error):
                raise
            logger.info("export=%s could not be written", name, exc_info=error)
            outcome = error
        yield name, outcome


def _published(report: ExportReport, directory: Path, url: str) -> ExportReport:
    """The report, with a line that says where the format went."""
    from autolabel.export.publish import publish

    found = publish(directory, url)
    note = f"published at {found.url}: {found.files} files, {found.uploaded} of them uploaded now"
    return replace(report, notes=(*report.notes, note))
