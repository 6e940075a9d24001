"""Lines of CSV that every reader takes for one row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable


def csv_line(values: Iterable[object]) -> str:
    """The values, None as nothing, and a line feed."""
    text = io.StringIO(newline="")
    # A carriage return, at which readers end a row, is quoted only where it is in the line's own end.
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n") + "\n"
