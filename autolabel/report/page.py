"""One self-contained HTML page: sections, tables, tiles, galleries, and a content policy that lets nothing else in.

The page loads nothing: style and script stand in it and are allowed by their sha256, pictures are data addresses.
It is readable without its script, which only adds pages to long tables, a large view, and the key for the masks.
Everything a page is made of can be had from here.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from autolabel.report.charts import (
    Bin,
    Point,
    bars_svg,
    calibration_svg,
    histogram_svg,
    meter_svg,
    scatter_svg,
)
from autolabel.report.markup import (
    Child,
    Html,
    element,
    escape,
    escape_lines,
    joined,
    json_block,
    number,
)
from autolabel.report.thumbnail import Thumbnail, thumbnail

__all__ = [
    "Bin", "Card", "Child", "Column", "Html", "Point", "Section", "Thumbnail", "bars_svg", "calibration_svg", "card",
    "columns_of", "details", "element", "escape", "escape_lines", "figure", "figures", "gallery", "histogram_svg",
    "joined", "json_block", "meter_svg", "note", "number", "page", "paragraph", "scatter_svg", "subsection", "table",
    "thumbnail", "tiles",
]  # fmt: skip

PAGE_ROWS = 20
"""Rows of a table that are shown at once; the others are a click away."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a place in its contents. `key` is its anchor: lower-case letters and `-`."""

    key: str
    title: str
    body: Html
    lead: str | Html = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `number` columns stand right-aligned, `wide` ones take the space that is left."""

    title: str
    kind: Literal["text", "number", "wide"] = "text"
    digits: int = 3


@dataclass(frozen=True, slots=True)
class Card:
    """A picture of a gallery: a title and short lines below it."""

    picture: Thumbnail
    title: str
    lines: Sequence[Child] = ()


def page(
    title: str,
    sections: Sequence[Section],
    *,
    eyebrow: str = "autolabel",
    lead: str | Html = "",
    top: Html | None = None,
    masks: bool = True,
    data: Mapping[str, Any] | None = None,
) -> str:
    """The whole file. `top` stands above the sections (tiles), `masks` offers the switch for the overlays, `data`
    are numbers for programs, as JSON in the element with the id `numbers`."""
    style, script = _asset("page.css"), _asset("page.js")
    head = joined(
        [
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", title),
            Html(f"<style>{style}</style>"),
        ]
    )
    body = joined(
        [
            element("a", "Skip to the contents", href="#main", class_="skip"),
            _bar(title, masks),
            _contents(sections),
            element(
                "main",
                element("p", eyebrow, class_="eyebrow"),
                element("h1", title),
                element("p", lead, class_="lead") if lead else Html(""),
                top or Html(""),
                *[_section(section) for section in sections],
                id="main",
            ),
            Html("") if data is None else json_block("numbers", data),
            Html(f"<script>{script}</script>"),
        ]
    )
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{body}</body>\n</html>\n'


def tiles(pairs: Iterable[tuple[str, Child, str]]) -> Html:
    """Key figures: what it is, the figure, and a word of explanation."""
    cells = [
        element(
            "div",
            element("dt", name),
            element("dd", figure_, class_="figure"),
            element("dd", hint) if hint else Html(""),
        )
        for name, figure_, hint in pairs
    ]
    return element("dl", *cells, class_="tiles")


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[Child]], *, caption: str = "", page_rows: int = PAGE_ROWS
) -> Html:
    """Rows of cells. Longer tables than `page_rows` are paged where the page's script runs, whole where it does not."""
    head = element("tr", *[element("th", c.title, scope="col", class_=_kind(c)) for c in columns])
    body = [
        element("tr", *[_cell(column, cell) for column, cell in zip(columns, row, strict=True)]) for row in rows
    ]
    parts = [element("caption", caption)] if caption else []
    content = element("table", *parts, element("thead", head), element("tbody", *body))
    paged = page_rows if len(rows) > page_rows else None
    return element(
        "div", content, class_="table", data_rows=paged, tabindex=0, role="region", aria_label=caption or None
    )


def columns_of(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names and values, as a list of definitions."""
    rows = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *rows, class_="facts")


def figure(chart: Html, title: str, text: Child = "") -> Html:
    """A chart with its title and a line below."""
    caption = element("figcaption", text) if text else Html("")
    return element("figure", element("h4", title), chart, caption)


def figures(charts: Iterable[Html]) -> Html:
    """Charts side by side, as many as fit."""
    return element("div", *charts, class_="figures")


def card(one: Card) -> Html:
    lines = [element("p", line) for line in one.lines]
    text = element("figcaption", element("strong", one.title), *lines)
    return element("figure", one.picture.html(f"{one.title}, with its masks"), text, class_="card")


def gallery(cards: Iterable[Card], *, empty: str = "There is nothing to show here.") -> Html:
    """Pictures side by side; a click opens a large view."""
    shown = [card(one) for one in cards]
    return element("div", *shown, class_="gallery") if shown else note(empty)


def subsection(title: str, *children: Child) -> Html:
    return element("section", element("h3", title), *children, class_="part")


def details(summary: str, *children: Child) -> Html:
    """Folded away until it is asked for."""
    return element("details", element("summary", summary), *children)


def paragraph(*children: Child) -> Html:
    return element("p", *children)


def note(*children: Child) -> Html:
    """A line in a softer tone: how something was counted, or why there is nothing."""
    return element("p", *children, class_="note")


def _bar(title: str, masks: bool) -> Html:
    switch = element(
        "label",
        element("input", type="checkbox", id="masks", checked=True),
        element("span", "Masks"),
        element("kbd", "m"),
        class_="switch",
        title="Show or hide the masks on all pictures (key m)",
    )
    return element("header", element("strong", title), switch if masks else Html(""), class_="bar-top")


def _contents(sections: Sequence[Section]) -> Html:
    links = [element("li", element("a", s.title, href=f"#{s.key}")) for s in sections]
    return element("nav", element("ul", *links), aria_label="Contents", class_="contents")


def _section(section: Section) -> Html:
    lead = element("p", section.lead, class_="section-lead") if section.lead else Html("")
    return element("section", element("h2", section.title), lead, section.body, id=section.key, class_="top")


def _cell(column: Column, cell: Child) -> Html:
    if isinstance(cell, float):
        cell = number(cell, column.digits)
    return element("td", cell, class_=_kind(column))


def _kind(column: Column) -> str | None:
    return None if column.kind == "text" else column.kind


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _asset(name: str) -> str:
    return files("autolabel.report").joinpath(name).read_text(encoding="utf-8")
