"""`autolabel export RUN export=[...]`: a format from a finished run. Loads no model.

With `--verify` nothing is written: the files are compared with their checksums, and every object is read back
as the format's consumer does and compared with the run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autolabel.app.compose import build_all, compose, parse
from autolabel.app.publish import address_of, exported
from autolabel.app.run_directory import existing_run
from autolabel.core.errors import ConfigError, ExportOutdated, StoreError, told
from autolabel.core.protocols import RoundTrip
from autolabel.core.text import printable
from autolabel.store.lock import exclusive, shared
from autolabel.store.run import RunReader, open_reader

LISTED = 20
"""Deviations spelled out for each format; the rest is counted."""
LOST = ("images_missing", "images_changed")
"""What exporters call pictures that they could not take over."""


def main(arguments: Sequence[str]) -> int:
    """Write, or verify, each chosen format in `export/<name>` of the run directory."""
    request = parse(arguments, "export")
    config = compose("export", request.overrides, request.config_dir)
    if request.show:
        from omegaconf import OmegaConf

        sys.stdout.write(OmegaConf.to_yaml(config))
        return 0
    directory = existing_run(request.path, config.run, "export")
    exporters = build_all("export", config.get("export"))
    if not exporters:
        raise ConfigError("no format is chosen; for example export=[coco,yolo]")
    address = None if request.flag else address_of(config.export_to)
    # To verify is to read: also where nothing can be written, but not while files and records change.
    lock = shared if request.flag else exclusive
    with lock(directory), open_reader(directory) as reader:
        pending = reader.counts().get("pending", 0)
        if pending:
            sys.stderr.write(f"{pending} pictures of {directory} are not labelled yet and are left out\n")
        if request.flag:
            return verify(reader, exporters, directory)
        return write(reader, exporters, directory, address)


def write(reader: RunReader, exporters: Mapping[str, Any], directory: Path, address: str | None = None) -> int:
    """Exit code 2 when pictures are missing (they failed, are not labelled yet, or are not what they were then), or a
    format; 1 when there is no format at all. Raises the error of one that stands alone."""
    written, lost = 0, any(status.startswith(("failed", "pending")) for status in reader.counts())
    for name, outcome in exported(reader, exporters, directory, address):
        if isinstance(outcome, Exception):
            if len(exporters) == 1:
                raise outcome
            sys.stderr.write(f"autolabel: export={name}: {told(outcome)}\n")
            continue
        written += 1
        target = directory / "export" / name
        sys.stdout.write(f"written    {target}: {outcome.instances} instances of {outcome.images} images\n")
        sys.stdout.writelines(f"           {note}\n" for note in outcome.notes)
        lost |= any(outcome.counts.get(key) for key in LOST)
    if not written:
        return 1
    return 2 if lost or written < len(exporters) else 0


def verify(reader: RunReader, exporters: Mapping[str, Any], directory: Path) -> int:
    """Exit code 0 when all files are as they were written, 2 when one is torn, edited, missing or too many, or when
    the export is of other records than the run has now: their objects are not compared."""
    from autolabel.export.manifest import records_digest
    from autolabel.export.verify import check_files

    bad = False
    for name, exporter in exporters.items():
        target = directory / "export" / name
        if not target.is_dir():
            raise StoreError(f"there is no {target}; write it first: autolabel export {directory} export=[{name}]")
        faults = check_files(target)
        sys.stdout.writelines(f"damaged    {printable(fault)}\n" for fault in faults)
        bad |= bool(faults)
        if faults:
            continue
        again = f"export again: autolabel export {directory} export=[{name}]"
        if records_digest(target) not in (None, reader.digest()):
            sys.stdout.write(f"outdated   {target}: the records changed since it was written; {again}\n")
            bad = True
            continue
        try:
            text = round_trip_text(target, exporter.read_back(reader, target))
        except ExportOutdated as error:
            why = f"was written from other records or with other settings ({error})"
            text, bad = f"outdated   {target}: {printable(why)}; {again}\n", True
        sys.stdout.write(text)
    return 2 if bad else 0


def round_trip_text(target: Path, found: RoundTrip) -> str:
    exact = found.objects - len(found.deviations)
    lines = [f"verified   {target}: files as written, {exact} of {found.objects} objects come back pixel by pixel"]
    lines += [
        f"           {d.iou:.3f} {printable(d.image_id)} object {d.index}: {d.reason}"
        for d in found.deviations[:LISTED]
    ]
    if len(found.deviations) > LISTED:
        lines.append(f"           ... and {len(found.deviations) - LISTED} more")
    return "\n".join(lines) + "\n"
