"""Which of several choices nobody beats on both scales. Knows no runs."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float] | None]) -> list[bool]:
    """For each point, whether no other is at least as good on both scales and better on one; more is better.

    None is a choice that was not measured: never on the front, and in nobody's way. Equal points stand together.
    """
    measured = [point for point in points if point is not None]
    return [point is not None and not any(_beats(other, point) for other in measured) for point in points]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one != other
