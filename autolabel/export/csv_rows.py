"""Lines of CSV that every reader takes for one row, and no spreadsheet for a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def csv_line(values: Iterable[object]) -> str:
    """The values, None as nothing, and a line feed. Spreadsheets run what starts like a formula, so such a text gets an
    apostrophe; `csv_text` takes it off."""
    text = io.StringIO(newline="")
    cells = [f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value for value in values]
    # A carriage return, at which readers end a row, is quoted only where it is in the line's own end.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def csv_text(cell: str) -> str:
    """The text that `csv_line` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
