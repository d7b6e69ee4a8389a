"""What is drawn of a training: smoothed losses, and a few of many steps. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

Curve = tuple[tuple[int, float], ...]
"""Step and value, in the order of steps."""

SHORTEST_SPAN = 10
SPANS = 20
"""How many spans of the smoothing a whole run has: what is drawn shows as much of a short run as of a long one."""

T = TypeVar("T")


def finite(points: Iterable[tuple[int, float]]) -> Curve:
    return tuple(point for point in points if math.isfinite(point[1]))


def smoothed(points: Curve) -> Curve:
    """The exponential moving average, as right at its beginning as at its end: it does not start from nought."""
    share = 2.0 / (max(SHORTEST_SPAN, len(points) / SPANS) + 1.0)
    total = weight = 0.0
    found = []
    for step, value in points:
        total += share * (value - total)
        weight += share * (1.0 - weight)
        found.append((step, total / weight))
    return tuple(found)


def evenly(items: Sequence[T], most: int) -> tuple[T, ...]:
    """At most so many of them, the first and the last among them; of one, the last."""
    if len(items) <= most:
        return tuple(items)
    if most < 2:
        return tuple(items[-most:]) if most else ()
    places = [round(index * (len(items) - 1) / (most - 1)) for index in range(most)]
    return tuple(items[place] for place in places)
