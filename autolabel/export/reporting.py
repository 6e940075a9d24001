"""What an exporter says of its work: counts, and lines for those that are not 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autolabel.core.protocols import ExportReport
from autolabel.core.text import counted


def noted(counts: Mapping[str, int], *tables: Mapping[str, str]) -> list[str]:
    """The line of every count that is not 0, in the order of the tables."""
    return [counted(counts[key], text) for table in tables for key, text in table.items() if counts.get(key)]


def reported(files: tuple[str, ...], counts: Mapping[str, int], notes: Iterable[str]) -> ExportReport:
    """What an exporter says of its work; `counts` holds `images` and `instances`, and what is 0 is not told."""
    found = {key: value for key, value in sorted(counts.items()) if value}
    return ExportReport(files, counts.get("images", 0), counts.get("instances", 0), found, tuple(notes))
