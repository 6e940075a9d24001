"""HTML that cannot be injected into: text is escaped unless it is `Html`, and only `element` makes `Html`.

There is no way to write an inline style, an event handler or an address outside the page: the page's own
content policy would refuse them, and so does `element`.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from autolabel.core.text import printable

LONGEST_TEXT = 400
"""Characters of one name or message that a page shows; a class name may be a book."""

_VOID = frozenset({"br", "col", "hr", "img", "input", "meta"})
_SAFE_ADDRESSES = ("#", "data:image/webp;base64,", "data:image/jpeg;base64,", "data:image/png;base64,")


class Html(str):
    """Markup that is safe as it stands."""

    __slots__ = ()


Child = str | int | float | None
"""What an element may hold: text is escaped, numbers are written as `number` does, None is a dash."""


def escape(text: object) -> Html:
    """Any text as inert markup on one line: control characters, direction marks and stray bytes are spelled
    out, and what is longer than LONGEST_TEXT is cut."""
    shown = str(text)
    if len(shown) > LONGEST_TEXT:
        shown = shown[: LONGEST_TEXT - 1] + "…"
    return Html(html.escape(printable(shown), quote=True))


def escape_lines(text: str) -> Html:
    """Like `escape`, with line ends kept and no limit: for a whole file in a `pre`."""
    return Html("\n".join(html.escape(printable(line), quote=True) for line in text.split("\n")))


def element(kind: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """`element("td", "a & b", class_="wide")`. A `_` ends a keyword (`class_`) and stands for `-` inside a name.

    None and False leave an attribute out, True writes it bare.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if kind in _VOID:
        return Html(f"<{kind}{written}>")
    return Html(f"<{kind}{written}>{joined(children)}</{kind}>")


def joined(children: Iterable[Child]) -> Html:
    """Several pieces one after the other."""
    return Html("".join(child if isinstance(child, Html) else _text(child) for child in children))


def number(value: float | int | None, digits: int = 3) -> str:
    """`12,345`, `0.813`, or a dash for what is not known."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def json_block(key: str, value: Any) -> Html:
    """Data for programs (and for the page's own script) as an element that no browser runs or renders."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))
    for char in "<>&":  # in JSON these stand in strings alone, so no `</script>` can end the block
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Html(f'<script type="application/json" id="{escape(key)}">{text}</script>')


def _text(child: Child) -> str:
    return escape(child) if isinstance(child, str) else number(child)


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if name == "style" or name.startswith("on"):
        raise ValueError(f"a page has no {name} attributes; its content policy refuses them")
    if name in ("href", "src") and not str(value).startswith(_SAFE_ADDRESSES):
        raise ValueError(
            f"a page holds its own pictures and links to itself alone, got {name}={str(value)[:60]!r}"
        )
    if value is True:
        return f" {name}"
    if name in ("href", "src"):
        shown = html.escape(str(value), quote=True)
    else:
        shown = (
            escape(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
        )
    return f' {name}="{shown}"'
