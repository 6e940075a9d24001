from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import autolabel.export
from autolabel.core.text import counted


@pytest.mark.parametrize(
    ("n", "text", "values", "said"),
    [
        (1, "{} picture[|s]", (), "1 picture"),
        (0, "{} picture[|s]", (), "0 pictures"),
        (1200, "{:,} cop[y|ies]", (), "1,200 copies"),
        (1, "{} [mask is|masks are] left out", (), "1 mask is left out"),
        (2, "{} of {} [is|are] in {}", (5, "a[b|c]{d}"), "2 of 5 are in a[b|c]{d}"),  # values stay as they are
        (2, "{}: export=[coco,yolo]", (), "2: export=[coco,yolo]"),  # no bar, no alternatives
    ],
)
def test_what_is_counted_agrees_with_its_number(n: int, text: str, values: tuple[object, ...], said: str) -> None:
    assert counted(n, text, *values) == said


def note_tables() -> Iterator[tuple[str, str]]:
    for path in sorted(Path(autolabel.export.__path__[0]).glob("*.py")):
        module = vars(import_module(f"autolabel.export.{path.stem}"))
        for name, table in module.items():
            if name.endswith("NOTES") and isinstance(table, dict):
                yield from ((f"{path.stem}.{name}.{key}", text) for key, text in table.items())


@pytest.mark.parametrize(("where", "text"), list(note_tables()))
def test_every_note_of_an_exporter_reads_right_for_one(where: str, text: str) -> None:
    if "{}" in text:
        assert counted(1, text) != counted(2, text).replace("2", "1", 1), f"{where} has the words of many alone"
        assert not re.match(r"1 (\w+ )?\w+s (are|have|were) ", counted(1, text)), where
