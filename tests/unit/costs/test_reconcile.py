from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfymodal.costs.reconcile import HOUR_S, Reconciled, Stretch, reconcile, tolerance

HOUR = 1_763_676_000
LATER = HOUR + 10 * HOUR_S
RATE = 1_000_000
APP = "comfymodal-shop-render"


def stretch(run_id: str, begin_s: float, seconds: float, *, app: str = APP) -> Stretch:
    return Stretch(run_id, app, HOUR + begin_s, HOUR + begin_s + seconds, RATE)


def matched(stretches: list[Stretch], *bills: int | None, now: float = LATER, until: float | None = None) -> Reconciled:
    """`bills` are those of the hours from HOUR on."""
    rows = {(APP, HOUR + number * HOUR_S): bill for number, bill in enumerate(bills)}
    return reconcile(stretches, rows, now=now, known_until=now if until is None else until)


def test_an_hour_is_shared_by_what_was_measured() -> None:
    found = matched([stretch("a", 0, 300), stretch("b", 400, 100)], 404_000_000)
    assert {run: (bill.billed, bill.status) for run, bill in found.runs.items()} == {
        "a": (303_000_000, "matched"),
        "b": (101_000_000, "matched"),
    }
    (hour,) = found.hours
    assert (hour.runs, hour.measured, hour.difference, hour.status) == (2, 400_000_000, 4_000_000, "matched")


def test_an_idle_tail_that_crosses_the_hour_is_in_both() -> None:
    found = matched([stretch("a", 3500, 160)], 100_000_000, 60_000_000)
    assert [hour.measured for hour in found.hours] == [100_000_000, 60_000_000]
    assert (found.runs["a"].billed, found.runs["a"].status) == (160_000_000, "matched")


@pytest.mark.parametrize(
    ("billed", "status"),
    [(1_020_000_000, "matched"), (1_030_000_000, "drift"), (970_000_000, "drift"), (0, "drift"), (None, "no_rows")],
)
def test_two_percent_are_no_drift(billed: int | None, status: str) -> None:
    assert matched([stretch("a", 0, 1000)], billed).runs["a"].status == status


def test_of_little_money_a_cent_is_no_drift() -> None:
    assert tolerance(100) == 10_000_000
    assert matched([stretch("a", 0, 5)], 14_000_000).runs["a"].status == "matched"


def test_a_bill_that_is_late_is_not_a_bill_of_nothing() -> None:
    found = matched([stretch("a", 0, 100)], now=HOUR + HOUR_S + 60)
    assert (found.runs["a"].billed, found.runs["a"].status) == (None, "not_available_yet")
    assert matched([stretch("a", 0, 100)]).runs["a"].status == "no_rows"
    still = matched([stretch("a", 0, 100)], 50_000_000, now=HOUR + 1800)
    assert still.runs["a"].status == "not_available_yet"


def test_what_has_just_been_billed_may_change() -> None:
    found = matched([stretch("a", 0, 100)], 50_000_000, now=HOUR + HOUR_S + 60)
    assert (found.runs["a"].billed, found.runs["a"].status) == (50_000_000, "provisional")


def test_a_run_is_known_when_all_its_hours_are() -> None:
    found = matched([stretch("a", 3000, 1200)], 600_000_000, now=HOUR + 2 * HOUR_S + 60)
    assert (found.runs["a"].billed, found.runs["a"].status) == (None, "not_available_yet")


def test_what_was_billed_without_a_run_belongs_to_none() -> None:
    rows = {(APP, HOUR): 7, ("another-app", HOUR): 9}
    found = reconcile([stretch("a", HOUR_S, 100)], rows, now=LATER, known_until=LATER)
    assert found.unattributed == 16
    assert {hour.app for hour in found.hours if hour.status == "unattributed"} == {APP, "another-app"}


RUNS = st.lists(
    st.tuples(st.integers(0, 5), st.floats(0, 4 * HOUR_S), st.floats(0, 3 * HOUR_S), st.sampled_from("xy")), max_size=12
)


@given(runs=RUNS, bills=st.lists(st.none() | st.integers(0, 10**11), max_size=8))
def test_no_nanodollar_is_lost_or_made(runs: list[tuple[int, float, float, str]], bills: list[int | None]) -> None:
    stretches = [stretch(f"r{run}", begin, seconds, app=app) for run, begin, seconds, app in runs]
    rows = {("x", HOUR + number * HOUR_S): bill for number, bill in enumerate(bills)}
    found = reconcile(stretches, rows, now=LATER, known_until=LATER)
    of_hours = sum(hour.billed or 0 for hour in found.hours)
    assert of_hours == sum(bill or 0 for bill in bills)
    if all(bill.billed is not None for bill in found.runs.values()):
        assert sum(bill.billed or 0 for bill in found.runs.values()) + found.unattributed == of_hours
    measured = sum(round(each.nanodollars_per_s * (each.end - each.begin)) for each in stretches)
    assert abs(sum(hour.measured for hour in found.hours) - measured) <= 10 * len(stretches)
