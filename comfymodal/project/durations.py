"""Lengths of time as operators write them: `90s`, `15m`, `1h30m`. Standard library only, so that flags can use it."""

from __future__ import annotations

import math
import re

PATTERN = r"(?=[0-9])(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,3})?)s)?"
SHORTEST_S = 0.001
LONGEST_S = 365 * 86400.0

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_FORMS = "90s, 15m, 2h, 1d, 1h30m or a number of seconds"


def parse_duration(value: object) -> float:
    """Turn `1h30m` or a number of seconds into seconds. Raises ValueError below a millisecond and above 365 days."""
    seconds = _seconds(value)
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise ValueError("must be at least 0.001s and at most 365d")
    return seconds


def format_duration(seconds: float) -> str:
    """Write seconds the shortest way `parse_duration` reads back, to the millisecond: 5400.0 becomes `1h30m`."""
    left_ms = round(seconds * 1000)
    parts = []
    for unit, length_s in _UNITS[:-1]:
        count, left_ms = divmod(left_ms, length_s * 1000)
        parts += [f"{count}{unit}"] if count else []
    if left_ms or not parts:
        parts.append(f"{left_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)


def _seconds(value: object) -> float:
    # bool is an int in Python, and `true` is no length of time.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # An int beyond 1e308 would overflow float(); anything that large is out of range anyway.
        return float(value) if abs(value) <= LONGEST_S else math.inf
    match = re.fullmatch(PATTERN, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be a duration: {_FORMS}")
    return sum(float(count) * length_s for count, (_, length_s) in zip(match.groups(), _UNITS, strict=True) if count)
