"""XML elements as JSON values and back: how fields that nobody here understands survive. Parses no files.

A leaf is its text. An element with children is an object, a repeated tag in it a list; attributes are `@name`,
text beside them `#text`. Comments, the order of different tags and white space around text are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

Json = Any

_DEEPEST = 16
_TAG = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_IMPOSSIBLE = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def json_of(element: Element, depth: int = 0) -> Json:
    """Raises ValueError for a tree deeper than any label file's."""
    if depth > _DEEPEST:
        raise ValueError(f"elements are nested more than {_DEEPEST} deep")
    text = (element.text or "").strip()
    if not len(element) and not element.attrib:
        return text
    return {
        **{f"@{name}": value for name, value in element.attrib.items()},
        **({"#text": text} if text else {}),
        **children_json(element, depth=depth + 1),
    }


def children_json(element: Element, without: Iterable[str] = (), depth: int = 0) -> dict[str, Json]:
    """The children by tag, but for those in `without`."""
    found: dict[str, list[Json]] = {}
    for child in element:
        if isinstance(child.tag, str) and child.tag not in without:
            found.setdefault(child.tag, []).append(json_of(child, depth))
    return {tag: values[0] if len(values) == 1 else values for tag, values in found.items()}


def add_json(parent: Element, tag: str, value: Json) -> bool:
    """Append what `json_of` made, or any JSON value: one element, or one for each entry of a list. False, and
    nothing is appended, where `tag` is not a possible name of an element."""
    if not _TAG.fullmatch(tag) or value is None:
        return False
    for one in value if isinstance(value, list) else [value]:
        element = SubElement(parent, tag)
        if isinstance(one, Mapping):
            _fill(element, one)
        else:
            element.text = xml_text(_word(one))
    return True


def xml_text(text: str) -> str:
    """The text as XML can hold it: control characters and stray bytes become %XX, everything else stays."""
    return _IMPOSSIBLE.sub(lambda found: _escaped(found[0]), text)


def _fill(element: Element, fields: Mapping[str, Json]) -> None:
    for name, value in fields.items():
        if name == "#text":
            element.text = xml_text(_word(value))
        elif name.startswith("@") and _TAG.fullmatch(name[1:]):
            element.set(name[1:], xml_text(_word(value)))
        else:
            add_json(element, name, value)


def _word(value: Json) -> str:
    return str(int(value)) if isinstance(value, bool) else "" if value is None else str(value)


def _escaped(char: str) -> str:
    stray = "\udc80" <= char <= "\udcff"  # a byte of a file name that was not UTF-8
    data = char.encode(errors="surrogateescape" if stray else "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)
