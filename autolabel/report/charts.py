"""Charts as inline SVG: one small size, colours from the page's variables, readable on a phone and without colour.

Every chart has a text for screen readers (`label`), and every mark one that shows when it is pointed at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autolabel.core.text import counted
from autolabel.report.markup import Html, element, joined, number

WIDTH = 340
HEIGHT = 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 38
_AXIS_NAME = 16
"""The part of the room below a chart that only the name of its axis needs."""


@dataclass(frozen=True, slots=True)
class Point:
    """A mark of a scatter chart. `series` picks one of eight colours; `label` is written beside it."""

    x: float
    y: float
    label: str = ""
    series: int = 0


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a calibration chart: what was expected and what was found, of `count` objects."""

    expected: float
    found: float
    count: int


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values lie on the canvas: `x` and `y` are (lowest, highest)."""

    x: tuple[float, float]
    y: tuple[float, float]
    height: int = HEIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        right, bottom = WIDTH - _RIGHT, self.height - _BOTTOM
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return round(_LEFT + across * (right - _LEFT), 2), round(bottom - up * (bottom - _TOP), 2)


def histogram_svg(
    counts: Sequence[int],
    edges: Sequence[float],
    *,
    label: str,
    x_label: str = "",
    ticks: Sequence[tuple[float, str]] | None = None,
) -> Html:
    """Bars of equal width between the N + 1 `edges`. `ticks` are (position in bins, text); some edges by default."""
    most = max(counts, default=0)
    step = max(1.0, nice_step(most / 4))
    frame = _Frame((0, len(counts)), (0, max(1, math.ceil(most / step - 1e-9)) * step))
    bars = []
    for i, count in enumerate(counts):
        x0, y0 = frame.at(i, count)
        x1, y1 = frame.at(i + 1, 0)
        hint = f"{edges[i]:g} to {edges[i + 1]:g}: {count:,}"
        # One unit of gap between two bars; the lowest count that is not 0 can still be seen.
        height = max(y1 - y0, 1.0) if count else 0
        bars.append(_rect(x0 + 0.5, y1 - height, x1 - x0 - 1, height, hint, "bar"))
    marks = _edge_ticks(edges) if ticks is None else ticks
    return _chart(frame, joined(bars), label, x_label, "", marks, _ticks(frame.y, whole=True))


def bars_svg(rows: Sequence[tuple[str, float]], *, label: str, digits: int = 0) -> Html:
    """Horizontal bars with their names and numbers; as many as there are rows."""
    top = max((value for _, value in rows), default=0) or 1
    parts = []
    for i, (name, value) in enumerate(rows):
        y = 4 + i * 24
        width = max(round(value / top * (WIDTH - 190), 2), 1.0)
        shown = number(int(value) if digits == 0 else value, digits)
        parts.append(element("text", _short(name, 20), x=112, y=y + 13, class_="end"))
        parts.append(_rect(120, y, width, 17, f"{name}: {shown}", "bar"))
        parts.append(element("text", shown, x=126 + width, y=y + 13, class_="strong"))
    return _svg(joined(parts), label, 8 + 24 * max(len(rows), 1))


def scatter_svg(
    points: Sequence[Point], *, label: str, x_label: str = "", y_label: str = "", front: Sequence[Point] = ()
) -> Html:
    """Points, and a stepless line through `front` (a Pareto front, say) in the order given."""
    frame = _Frame(_span([p.x for p in points]), _span([p.y for p in points]), height=280)
    line = " ".join(f"{x},{y}" for x, y in (frame.at(p.x, p.y) for p in front))
    parts = [element("polyline", points=line, class_="front")] if front else []
    for p in points:
        x, y = frame.at(p.x, p.y)
        hint = f"{p.label}: {p.x:g}, {p.y:g}" if p.label else f"{p.x:g}, {p.y:g}"
        parts.append(
            element("circle", element("title", hint), cx=x, cy=y, r=5, class_=f"dot series-{p.series % 8}")
        )
        if p.label:
            end = x > WIDTH * 0.6
            parts.append(
                element(
                    "text", _short(p.label, 24), x=x - 9 if end else x + 9, y=y + 4, class_="end" if end else None
                )
            )
    return _chart(frame, joined(parts), label, x_label, y_label, _ticks(frame.x), _ticks(frame.y))


def calibration_svg(bins: Sequence[Bin], *, label: str, x_label: str = "score", y_label: str = "IoU") -> Html:
    """Expected against found, both in [0, 1]; on the dashed line a score means what it says. Area is the count."""
    frame = _Frame((0.0, 1.0), (0.0, 1.0), height=280)
    (x0, y0), (x1, y1) = frame.at(0, 0), frame.at(1, 1)
    parts = [element("line", x1=x0, y1=y0, x2=x1, y2=y1, class_="ideal")]
    shown = [b for b in bins if b.count]
    line = " ".join(f"{x},{y}" for x, y in (frame.at(b.expected, b.found) for b in shown))
    parts.append(element("polyline", points=line, class_="front"))
    most = max((b.count for b in shown), default=1)
    for b in shown:
        x, y = frame.at(b.expected, b.found)
        hint = f"expected {b.expected:.3f}, found {b.found:.3f}, {counted(b.count, '{:,} object[|s]')}"
        radius = round(3 + 7 * math.sqrt(b.count / most), 2)
        parts.append(element("circle", element("title", hint), cx=x, cy=y, r=radius, class_="dot series-0"))
    ticks = [(v / 4, f"{v / 4:g}") for v in range(5)]
    return _chart(frame, joined(parts), label, x_label, y_label, ticks, ticks)


def meter_svg(share: float, label: str) -> Html:
    """A bar for a table cell: `share` in [0, 1] of its width."""
    kept = min(max(share, 0.0), 1.0)
    bar = element("rect", width=f"{kept * 100:.1f}%", height="100%", rx=2, class_="bar")
    ground = element("rect", width="100%", height="100%", rx=2, class_="ground")
    return element("svg", ground, bar, class_="meter", role="img", aria_label=label)


def nice_step(least: float) -> float:
    """The next round number (1, 2, 2.5 or 5 times a power of ten) that is not below `least`."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= least * (1 - 1e-9))


def _chart(
    frame: _Frame,
    marks: Html,
    label: str,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
) -> Html:
    (left, bottom), (right, top) = frame.at(frame.x[0], frame.y[0]), frame.at(frame.x[1], frame.y[1])
    parts = []
    for value, text in y_ticks:
        _, y = frame.at(frame.x[0], value)
        parts.append(element("line", x1=left, y1=y, x2=right, y2=y, class_="grid"))
        parts.append(element("text", text, x=left - 6, y=y + 4, class_="end"))
    for value, text in x_ticks:
        x, _ = frame.at(value, frame.y[0])
        parts.append(element("text", text, x=x, y=bottom + 15, class_="middle"))
    parts += [marks, element("line", x1=left, y1=bottom, x2=right, y2=bottom, class_="axis")]
    if x_label:
        parts.append(element("text", x_label, x=(left + right) / 2, y=bottom + 32, class_="middle"))
    if y_label:
        parts.append(element("text", y_label, x=left + 6, y=top + 14))
    return _svg(joined(parts), label, frame.height - (0 if x_label else _AXIS_NAME))


def _svg(body: Html, label: str, height: int) -> Html:
    return element("svg", body, class_="chart", viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label)


def _rect(x: float, y: float, width: float, height: float, hint: str, class_: str) -> Html:
    corners = {"x": round(x, 2), "y": round(y, 2), "width": round(max(width, 0.2), 2), "height": round(height, 2)}
    return element("rect", element("title", hint), **corners, class_=class_)


def _ticks(span: tuple[float, float], *, whole: bool = False) -> list[tuple[float, str]]:
    step = nice_step((span[1] - span[0]) / 4 if whole else (span[1] - span[0]) / 5)
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(span[0] / step - 1e-9), math.floor(span[1] / step + 1e-9)
    return [(i * step, _tick_text(i * step)) for i in range(first, last + 1)]


def _tick_text(value: float) -> str:
    """Short: 12k, 3.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"


def _edge_ticks(edges: Sequence[float]) -> list[tuple[float, str]]:
    bins = len(edges) - 1
    every = max(1, math.ceil(bins / 5))
    return [(float(i), f"{edges[i]:g}") for i in range(0, bins + 1, every)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest, with some air; 0 is in when it is not far."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        return low - 0.5, high + 0.5
    air = (high - low) * 0.08
    return (0.0 if 0 <= low < (high - low) * 0.5 else low - air), high + air


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
