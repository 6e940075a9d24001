"""`autolabel export RUN export=[...]`: a format from a finished run. Loads no model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from autolabel.app.compose import build_all, compose, parse
from autolabel.core.errors import ConfigError, StoreError
from autolabel.store.lock import exclusive
from autolabel.store.run import open_reader


def main(arguments: Sequence[str]) -> int:
    """Write each chosen format into `export/<name>` of the run directory."""
    request = parse(arguments)
    config = compose("export", request.overrides, request.config_dir)
    chosen = request.path or config.run
    if chosen is None:
        raise ConfigError("which run? autolabel export RUN export=[coco,yolo]")
    directory = Path(chosen).expanduser()
    if not directory.is_dir():
        raise StoreError(f"there is no run directory {directory}")
    exporters = build_all(config.export)
    with exclusive(directory), open_reader(directory) as reader:
        pending = reader.counts().get("pending", 0)
        if pending:
            sys.stderr.write(f"{pending} pictures of {directory} are not labelled yet and are left out\n")
        for name, exporter in exporters.items():
            target = directory / "export" / name
            report = exporter.export(reader, target)
            sys.stdout.write(f"written    {target}: {report.instances} instances of {report.images} images\n")
            sys.stdout.writelines(f"           {note}\n" for note in report.notes)
    return 0
