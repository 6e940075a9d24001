"""Names that a person may have mistyped. Knows no kind of name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST = 10


def nearest(name: str, known: Iterable[str]) -> str:
    """Up to three known names that look like `name`; where none does, the first ten there are. For an error."""
    names = sorted(set(known))
    lower = {one.lower(): one for one in names}
    close = [lower[one] for one in get_close_matches(name.lower(), lower, n=3)]
    rest = "" if len(names) <= _MOST else f" and {len(names) - _MOST} more"
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names[:_MOST])}{rest}"
