"""`autolabel export RUN export=[...]`: a format from a finished run. Loads no model.

With `--verify` nothing is written: the files are compared with their checksums, and every object is read back
as the format's consumer does and compared with the run.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autolabel.app.build import build_all
from autolabel.app.command_line import parse
from autolabel.app.compose import compose, plain, show
from autolabel.app.overrides import quoted
from autolabel.app.publish import address_of, exported, format_settings
from autolabel.app.run_directory import existing_run
from autolabel.app.summary import what_is_in
from autolabel.core.errors import ConfigError, ExportOutdated, StoreError, told
from autolabel.core.protocols import RoundTrip
from autolabel.core.text import counted, one_line, printable
from autolabel.store.lock import exclusive, shared
from autolabel.store.run import RunReader, open_reader

Settings = Mapping[str, Mapping[str, object]]
"""The settings of each format, by its name."""
LISTED = 20
"""Deviations spelled out for each format; the rest is counted."""


def main(arguments: Sequence[str]) -> int:
    """Write, or verify, each chosen format in `export/<name>` of the run directory."""
    request = parse(arguments, "export")
    config = compose("export", request.overrides, request.config_dir)
    if request.show:
        return show(config)
    directory = existing_run(request.path, config.run, "export")
    exporters, settings = build_all("export", config.get("export")), format_settings(plain(config))
    if not exporters:
        raise ConfigError("no format is chosen; for example export=[coco,yolo]")
    address = None if request.flag else address_of(config.export_to)
    # To verify is to read: also where nothing can be written, but not while files and records change.
    lock = shared if request.flag else exclusive
    with lock(directory), open_reader(directory) as reader:
        pending = reader.counts().get("pending", 0)
        if pending:
            sys.stderr.write(
                counted(pending, "{} picture[|s] of {} [is|are] not labelled yet and left out\n", directory)
            )
        if request.flag:
            return verify(reader, exporters, settings, directory)
        return write(reader, exporters, settings, directory, address)


def write(
    reader: RunReader, exporters: Mapping[str, Any], settings: Settings, directory: Path, address: str | None
) -> int:
    """Exit code 2 when pictures are missing (they failed, are not labelled yet, or are not what they were then), or a
    format; 1 when there is no format at all. Raises the error of one that stands alone."""
    written, lost = 0, any(status.startswith(("failed", "pending")) for status in reader.counts())
    for name, outcome in exported(reader, exporters, settings, directory, address):
        if isinstance(outcome, Exception):
            if len(exporters) == 1:
                raise outcome
            sys.stderr.write(f"autolabel: export={name}: {told(outcome)}\n")
            continue
        written += 1
        target = directory / "export" / name
        sys.stdout.write(f"written    {target}: {what_is_in(outcome)}\n")
        sys.stdout.writelines(f"           {note}\n" for note in outcome.notes)
        lost |= outcome.lost > 0
    if not written:
        return 1
    return 2 if lost or written < len(exporters) else 0


def verify(reader: RunReader, exporters: Mapping[str, Any], settings: Settings, directory: Path) -> int:
    """Exit code 0 when all files are as they were written and every object comes back, but for what the settings or the
    format's limits account for. 2 when a file is torn, edited, missing or too many, when an object is lost or changed
    beyond that, or when nothing was compared: the export is of other records than the run has now, or was written with
    other settings."""
    good = True
    for name, exporter in exporters.items():
        text, is_good = verified(reader, name, exporter, settings[name], directory)
        sys.stdout.write(text)
        good &= is_good
    return 0 if good else 2


def verified(
    reader: RunReader, name: str, exporter: Any, settings: Mapping[str, object], directory: Path
) -> tuple[str, bool]:
    """The lines about one format, and whether all of it is well."""
    from autolabel.export.manifest import SETTINGS, origin_of
    from autolabel.export.verify import check_files
    from autolabel.ops.drawn import BadShape
    from autolabel.ops.export_mark import RECORDS

    target, command = (
        directory / "export" / name,
        f"autolabel export {shlex.quote(str(directory))} export=[{name}]",
    )
    if not target.is_dir():
        raise StoreError(f"there is no {target}; write it first: {command}")
    if faults := check_files(target):
        return "".join(f"damaged    {printable(fault)}\n" for fault in faults), False
    origin = origin_of(target)
    if origin.get(RECORDS) not in (None, reader.digest()):
        why = "the records changed since it was written"
        return f"outdated   {target}: {why}; export again: {command}\n", False
    if others := other_settings(name, origin.get(SETTINGS, {}), settings):
        why = f"it was written with {', '.join(others)}"
        do = f"to compare its objects, name that: {command} {' '.join(map(shlex.quote, others))} --verify"
        return printable(f"settings   {target}: {why}; {do}") + "\n", False
    try:
        found = exporter.read_back(reader, target)
    except (ExportOutdated, BadShape, LookupError, FileNotFoundError) as error:
        said = str(error) if isinstance(error, ExportOutdated) else one_line(error)
        why = f"was written from other records or with other settings ({said})"
        return f"outdated   {target}: {printable(why)}; export again: {command}\n", False
    return round_trip_text(target, found), all(deviation.expected for deviation in found.deviations)


def other_settings(name: str, then: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """What an export was written with and is not set now, as settings of the command line. One that only this version
    knows, or only an earlier one did, says nothing."""
    return [
        f"export.{name}.{key}={quoted(value) if isinstance(value, str) else json.dumps(value)}"
        for key, value in then.items()
        if key in now and now[key] != value
    ]


def round_trip_text(target: Path, found: RoundTrip) -> str:
    """The objects that no setting accounts for come first."""
    exact = found.objects - len(found.deviations)
    lines = [
        counted(
            exact,
            "verified   {1}: files as written, {0} of {2} objects come[s|] back pixel by pixel",
            target,
            found.objects,
        )
    ]
    ordered = sorted(found.deviations, key=lambda deviation: deviation.expected)
    if lost := sum(not deviation.expected for deviation in ordered):
        lines.append(
            counted(
                lost,
                "lost       {} object[ is not as it was|s are not as they were], and neither settings nor the format's limits "
                "say why",
            )
        )
    lines += [
        f"           {d.iou:.3f} {printable(d.image_id)} object {d.index}: {d.reason}" for d in ordered[:LISTED]
    ]
    if len(ordered) > LISTED:
        lines.append(f"           ... and {len(ordered) - LISTED} more")
    return "\n".join(lines) + "\n"
