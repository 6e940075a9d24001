"""Exports of a run, put at an address: `export_to=s3://bucket/labels`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from autolabel.core.protocols import ExportReport


def address_of(value: object) -> str | None:
    """Where exports go beside the run directory; None for nowhere. Raises ConfigError, before any work is done."""
    from autolabel.export.publish import check_address

    return None if value is None else check_address(value)


def published(
    reports: Mapping[str, ExportReport], directory: Path, address: str | None
) -> dict[str, ExportReport]:
    """The reports, each with a line that says where its format went: `<address>/<format>`."""
    if address is None:
        return dict(reports)
    return {
        name: _published(report, directory / "export" / name, f"{address}/{name}")
        for name, report in reports.items()
    }


def _published(report: ExportReport, directory: Path, url: str) -> ExportReport:
    from autolabel.export.publish import publish

    found = publish(directory, url)
    note = f"published at {found.url}: {found.files} files, {found.uploaded} of them uploaded now"
    return replace(report, notes=(*report.notes, note))
