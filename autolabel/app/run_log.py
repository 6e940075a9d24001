"""The messages of a run while it works: everything in its log file, warnings also on the screen."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_NAME = "autolabel.log"


class QuietFile(logging.FileHandler):
    """A full disk must not bury the one line that says so under tracebacks about the log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


@contextmanager
def run_log(directory: Path) -> Iterator[None]:
    """Warnings and what the run did, in `autolabel.log`; warnings also on the screen."""
    to_file = QuietFile(directory / FILE_NAME, encoding="utf-8", errors="backslashreplace")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_screen = logging.StreamHandler(sys.stderr)
    to_screen.setLevel(logging.WARNING)
    to_screen.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    ours = logging.getLogger("autolabel")
    level = ours.level
    ours.setLevel(logging.INFO)
    ours.addHandler(to_file)
    ours.addHandler(to_screen)
    try:
        yield
    finally:
        ours.setLevel(level)
        for handler in (to_file, to_screen):
            ours.removeHandler(handler)
            handler.close()
