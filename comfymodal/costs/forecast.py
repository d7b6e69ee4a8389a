"""What a month will have cost at its end, from the days that are over; pure. Days are those of UTC, as in bills.

How: a day to come is thought to cost what such days did lately, newer ones counting more (half as much a week earlier);
how far days were off that says how far the month may be off. What is paid whether or not anything runs is added by the
clock, not averaged.
"""

from __future__ import annotations

import calendar
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

LEAST_DAYS = 3
"""Of complete days; of fewer nothing can be said."""

LOOK_BACK_DAYS = 56
WEEKDAY_DAYS = 21
"""From so many days on a day is compared with the same days of the week only: there are three of each."""

_HALF_LIFE_DAYS = 7.0
_DRAWS = 400
_LOW, _HIGH = 0.10, 0.90


@dataclass(frozen=True, slots=True)
class Forecast:
    """Nanodollars at the end of the month: one time in ten it will be less than `low`, one in ten more than `high`.

    `so_far` is known already; `fixed` of each bound is what is paid by the clock from now on.
    """

    month: str
    complete_days: int
    so_far: int
    fixed: int
    low: int
    typical: int
    high: int


def forecast(
    spent: Mapping[date, int], *, first_at: float | None, now: float, fixed_per_day: int = 0
) -> Forecast | None:
    """Look ahead from what was spent on each day; a day that is missing cost nothing.

    `first_at` is when the ledger begins (Unix seconds): that day is known in part only. None with fewer than three
    complete days since, or where the clock says nothing that a calendar has.
    """
    try:
        moment = datetime.fromtimestamp(now, UTC)
        began = datetime.fromtimestamp(now if first_at is None else first_at, UTC).date()
    except (ValueError, OverflowError, OSError):
        return None
    today = moment.date()
    history = _history(spent, began, today)
    if len(history) < LEAST_DAYS:
        return None
    last = date(today.year, today.month, calendar.monthrange(today.year, today.month)[1])
    ahead = [today + timedelta(days=number) for number in range((last - today).days + 1)]
    expected = [_expected(history, day) for day in ahead]
    before_today = sum(
        cost for day, cost in spent.items() if day < today and (day.year, day.month) == (today.year, today.month)
    )
    spent_today = spent.get(today, 0)
    ends = sorted(_draws(history, expected, spent_today))
    midnight = datetime(today.year, today.month, today.day, tzinfo=UTC)
    fixed = round(fixed_per_day * (len(ahead) - (moment - midnight) / timedelta(days=1)))
    typical = max(spent_today, expected[0]) + sum(expected[1:])
    low, high = (ends[math.floor(share * (len(ends) - 1))] for share in (_LOW, _HIGH))
    known = before_today + fixed
    return Forecast(
        month=f"{today:%Y-%m}",
        complete_days=len(history),
        so_far=before_today + spent_today,
        fixed=fixed,
        low=known + round(min(low, typical)),
        typical=known + round(typical),
        high=known + round(max(high, typical)),
    )


def _history(spent: Mapping[date, int], began: date, today: date) -> list[tuple[date, int]]:
    """Complete days, the oldest first."""
    first = max(began + timedelta(days=1), today - timedelta(days=LOOK_BACK_DAYS))
    days = [first + timedelta(days=number) for number in range(max(0, (today - first).days))]
    return [(day, spent.get(day, 0)) for day in days]


def _expected(history: Sequence[tuple[date, int]], day: date) -> float:
    alike = [each for each in history if each[0].weekday() == day.weekday()]
    return _weighted(alike if len(history) >= WEEKDAY_DAYS else history, day)


def _weighted(days: Sequence[tuple[date, int]], seen_from: date) -> float:
    weights = [math.pow(0.5, (seen_from - day).days / _HALF_LIFE_DAYS) for day, _ in days]
    return sum(weight * cost for weight, (_, cost) in zip(weights, days, strict=True)) / sum(weights)


def _draws(history: Sequence[tuple[date, int]], expected: Sequence[float], spent_today: int) -> list[float]:
    """The rest of the month, many times, each day off by as much as some day was; the same each time it is asked."""
    off = [cost - _expected(history, day) for day, cost in history]
    chance = random.Random(0)
    return [
        max(spent_today, expected[0] + chance.choice(off))
        + sum(max(0.0, day + chance.choice(off)) for day in expected[1:])
        for _ in range(_DRAWS)
    ]
