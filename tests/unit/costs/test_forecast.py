from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import pytest

from comfymodal.costs.forecast import forecast

DOLLAR = 10**9
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
"""A Tuesday; 20 days of the month are to come after it."""


YESTERDAY = NOON.date() - timedelta(days=1)


def days(*dollars: float, last: date = YESTERDAY) -> dict[date, int]:
    """What the days up to yesterday cost."""
    return {last - timedelta(days=len(dollars) - 1 - place): round(each * DOLLAR) for place, each in enumerate(dollars)}


def at(moment: datetime) -> float:
    return moment.timestamp()


def test_days_that_are_all_alike_go_on_so() -> None:
    found = forecast(days(2, 2, 2, 2), first_at=at(NOON - timedelta(days=5)), now=at(NOON))

    assert found is not None
    assert (found.month, found.complete_days) == ("2026-11", 4)
    # 4 days of November are known, today and 20 more to come.
    assert found.so_far == 8 * DOLLAR
    assert found.low == found.typical == found.high == (8 + 2 + 40) * DOLLAR


@pytest.mark.parametrize("complete", [0, 1, 2, 3])
def test_nothing_is_said_of_fewer_than_three_complete_days(complete: int) -> None:
    # The day of the first run is known in part only, as is today.
    first = NOON - timedelta(days=complete + 1)
    found = forecast({first.date(): DOLLAR, NOON.date(): DOLLAR}, first_at=at(first), now=at(NOON))

    assert (found is None) == (complete < 3)


def test_a_day_without_runs_is_a_day() -> None:
    spent = days(3, 0, 0)
    del spent[NOON.date() - timedelta(days=1)]

    found = forecast(spent, first_at=at(NOON - timedelta(days=4)), now=at(NOON))

    assert found is not None
    assert found.complete_days == 3
    assert 3 * DOLLAR < found.typical < (3 + 21) * DOLLAR


def test_what_is_spent_today_already_is_never_forecast_away() -> None:
    spent = {**days(1, 1, 1), NOON.date(): 9 * DOLLAR}

    found = forecast(spent, first_at=at(NOON - timedelta(days=4)), now=at(NOON))

    assert found is not None
    assert found.so_far == 12 * DOLLAR
    assert found.low >= found.so_far
    assert found.typical == (12 + 20) * DOLLAR


def test_the_bounds_hold_the_typical_and_widen_with_the_days() -> None:
    first = at(NOON - timedelta(days=9))
    steady = forecast(days(2, 2.1, 1.9, 2, 2.1, 1.9, 2, 2), first_at=first, now=at(NOON))
    wild = forecast(days(0, 8, 0, 0, 6, 0, 0, 2), first_at=first, now=at(NOON))

    assert steady is not None
    assert wild is not None
    for found in (steady, wild):
        assert found.so_far <= found.low <= found.typical <= found.high
    assert wild.high - wild.low > 5 * (steady.high - steady.low)


def test_newer_days_count_more() -> None:
    first = at(NOON - timedelta(days=12))
    rising = forecast(days(1, 1, 1, 1, 5, 5, 5, 5), first_at=first, now=at(NOON))
    falling = forecast(days(5, 5, 5, 5, 1, 1, 1, 1), first_at=first, now=at(NOON))

    assert rising is not None
    assert falling is not None
    assert rising.so_far == falling.so_far
    assert rising.typical > falling.typical


def test_after_three_weeks_a_sunday_is_compared_with_sundays() -> None:
    spent = {}
    for number in range(1, 29):
        day = NOON.date() - timedelta(days=number)
        spent[day] = 0 if day.weekday() >= 5 else 10 * DOLLAR
    found = forecast(spent, first_at=at(NOON - timedelta(days=40)), now=at(NOON))

    assert found is not None
    # Of the 21 days from the 10th to the 30th of November 2026 fifteen are working days.
    before = sum(cost for day, cost in spent.items() if day.month == 11)
    # Days that are not in the table, before the last four weeks, cost nothing: they count little.
    assert abs(found.typical - before - 15 * 10 * DOLLAR) < 20 * DOLLAR
    assert found.typical - before > 130 * DOLLAR


def test_what_is_paid_by_the_clock_is_added_by_the_clock() -> None:
    spent, first = days(2, 2, 2), at(NOON - timedelta(days=4))
    plain = forecast(spent, first_at=first, now=at(NOON))
    warm = forecast(spent, first_at=first, now=at(NOON), fixed_per_day=DOLLAR)

    assert plain is not None
    assert warm is not None
    assert warm.fixed == 20.5 * DOLLAR
    assert [warm.low - plain.low, warm.typical - plain.typical, warm.high - plain.high] == [warm.fixed] * 3


def test_the_month_before_shapes_the_rate_and_is_not_in_the_sum() -> None:
    second = datetime(2026, 11, 2, 1, tzinfo=UTC)
    found = forecast(days(4, 4, 4, 4, last=date(2026, 11, 1)), first_at=at(second - timedelta(days=6)), now=at(second))

    assert found is not None
    assert found.so_far == 4 * DOLLAR
    assert found.typical > 100 * DOLLAR


def test_the_last_day_of_a_year_has_an_end() -> None:
    last = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    found = forecast(days(1, 1, 1, last=date(2026, 12, 30)), first_at=at(last - timedelta(days=4)), now=at(last))

    assert found is not None
    assert found.typical == 4 * DOLLAR


def test_the_same_days_give_the_same_answer() -> None:
    answers = {forecast(days(1, 5, 0, 2), first_at=at(NOON - timedelta(days=5)), now=at(NOON)) for _ in range(3)}

    assert len(answers) == 1


def test_runs_from_the_future_do_not_count() -> None:
    spent = {**days(1, 1, 1), NOON.date() + timedelta(days=3): 1000 * DOLLAR}
    found = forecast(spent, first_at=at(NOON - timedelta(days=4)), now=at(NOON))

    assert found is not None
    assert found.typical == (3 + 21) * DOLLAR


@pytest.mark.parametrize("first_at", [math.inf, 1e18, at(NOON + timedelta(days=2)), None])
def test_a_clock_that_says_anything_gives_no_forecast(first_at: float | None) -> None:
    assert forecast(days(1, 1, 1), first_at=first_at, now=at(NOON)) is None
