"""Since when: `7d`, `24h`, a day, or `all`. Standard library only."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta


def parse_since(text: str, *, now: float) -> float | None:
    """Unix seconds; None for `all`. Whole days begin at midnight, UTC: `7d` is today and the six days before it.

    Raises ValueError with words.
    """
    wanted = text.strip().lower()
    if wanted == "all":
        return None
    if match := re.fullmatch(r"([0-9]{1,6})(d|h|m)", wanted):
        return _back(int(match[1]), match[2], now)
    try:
        since = datetime.combine(date.fromisoformat(wanted), datetime.min.time(), UTC).timestamp()
    except ValueError as exc:
        raise ValueError(f"{text!r} is no period: write 7d, 24h, a day (2026-11-01) or all") from exc
    if since > now:
        raise ValueError(f"{text} is a day to come")
    return since


def _back(count: int, unit: str, now: float) -> float:
    if count == 0:
        raise ValueError("a period has at least 1d, 1h or 1m")
    if unit != "d":
        return now - count * (3600 if unit == "h" else 60)
    try:
        first = datetime.fromtimestamp(now, UTC).date() - timedelta(days=count - 1)
    except OverflowError as exc:
        raise ValueError(f"{count} days are more than a calendar has: write all") from exc
    return datetime.combine(first, datetime.min.time(), UTC).timestamp()
