"""Text from file names and labels, made fit to be shown. Knows no screen and no page."""

from __future__ import annotations


def printable(text: str) -> str:
    """A name as a terminal or a page may show it: control characters, direction marks and stray bytes escaped."""
    escaped = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in escaped)
