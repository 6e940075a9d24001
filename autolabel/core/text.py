"""Text from file names, labels and errors, made fit to be shown. Knows no screen and no page."""

from __future__ import annotations

import re

_ONE_OR_SEVERAL = re.compile(r"\[([^][|]*)\|([^][|]*)\]")


def printable(text: str) -> str:
    """A name as a terminal or a page may show it: control characters, direction marks and stray bytes escaped."""
    escaped = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in escaped)


def one_line(error: BaseException) -> str:
    """What kind of error, and the last line of what it says, which is where those of libraries say what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else ''}"


def counted(n: int, text: str, *values: object) -> str:
    """`text` with `n` and the `values` in place of its `{}`, and of every `[one|several]` what agrees with `n`:
    `{} [mask is|masks are] left out`, `{:,} picture[|s]`. Where one is in such a bracket, all are numbered."""
    return _ONE_OR_SEVERAL.sub(lambda m: m[1 if n == 1 else 2], text).format(n, *values)
