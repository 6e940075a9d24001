"""The classes of a run as formats number and name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from autolabel.core.errors import ExportError
from autolabel.core.types import Category, ImageRecord, Instance
from autolabel.ops.xml_json import xml_text

T = TypeVar("T")

LABEL_NOTES: dict[str, str] = {
    "names_changed": "{} class [name holds characters that the tool cannot, or is there twice; it is|names hold characters that the tool cannot, or are there twice; they are] changed",
}
"""What `label_names` counts, as lines for the reports of exporters to annotation tools."""


def class_number(numbers: Mapping[int, T], instance: Instance, record: ImageRecord) -> T:
    """What a table says of an object's class. Raises ExportError for a class that the run does not name."""
    check_classes(numbers, [instance.category_id], record)
    return numbers[instance.category_id]


def check_classes(named: Collection[int], category_ids: Iterable[int], record: ImageRecord) -> None:
    """Raises ExportError for a class that the run does not name."""
    for category_id in category_ids:
        if category_id not in named:
            raise ExportError(
                f"{record.image_id!r} holds an object of class {category_id}, which the run does not name"
            )


def utf8(name: str) -> str:
    """A class name without the lone surrogates that JSON can carry and UTF-8 cannot."""
    return name.encode(errors="replace").decode()


def label_names(categories: Iterable[Category], counts: Counter[str]) -> dict[int, str]:
    """One line of text for each category id, no two the same: a name that is there twice gets its id."""
    given = list(categories)
    plain = {c.id: " ".join(xml_text(c.name).split()) or f"class_{c.id}" for c in given}
    often = Counter(plain.values())
    names = {id_: name if often[name] == 1 else f"{name} ({id_})" for id_, name in plain.items()}
    if len(set(names.values())) < len(names):
        raise ExportError(f"the classes cannot be told apart by their names: {sorted(names.values())[:5]}")
    counts["names_changed"] += sum(names[c.id] != c.name for c in given)
    return names
