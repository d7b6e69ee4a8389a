from __future__ import annotations

from typing import Any

from comfymodal.costs.measure import Measured, measure
from comfymodal.costs.rates import container_rate, parse_gpu

L40S = container_rate([parse_gpu("L40S")])
PER_S = L40S.nanodollars_per_s
NOTE: dict[str, Any] = {
    "container_id": "ta-1",
    "container_started_at": 1000.0,
    "enter_s": 51.0,
    "is_first": True,
    "gpu": "L40S",
    "started_at": 1060.0,
    "ended_at": 1080.0,
}


def measured(**other: Any) -> Measured:
    return measure({**NOTE, **other}, created_at=1000.0)


def test_the_first_run_pays_the_start_up_of_its_container() -> None:
    seen = measured()
    assert (seen.run_s, seen.start_s, seen.cost(PER_S)) == (20.0, 51.0, 665_440 * 71)


def test_a_later_run_pays_its_own_seconds() -> None:
    seen = measured(is_first=False)
    assert (seen.run_s, seen.start_s, seen.cost(PER_S)) == (20.0, 0.0, 665_440 * 20)


def test_a_container_kept_warm_before_its_first_run_is_no_cost_of_that_run() -> None:
    assert measured(started_at=90_000.0, ended_at=90_020.0).cost(PER_S) == 665_440 * 71


def test_a_container_that_another_one_forestalled_is_paid_while_it_waits_for_its_first_run() -> None:
    # Modal starts one for an input that waits; the input may go to one that becomes free.
    assert measure(NOTE, created_at=1000.0, window_s=60.0).start_s == 60.0
    assert measure(NOTE, created_at=1000.0, window_s=8.9).start_s == 51.0
    assert measure({**NOTE, "is_first": False}, created_at=1000.0, window_s=60.0).start_s == 0.0
    assert measure({**NOTE, "started_at": 1040.0}, created_at=1000.0, window_s=60.0).start_s == 51.0


def test_runs_of_one_container_cost_its_busy_time_together() -> None:
    others = [measured(is_first=False, started_at=1080.0 + n, ended_at=1081.0 + n) for n in range(40)]
    assert sum(seen.cost(PER_S) for seen in [measured(), *others]) == L40S.cost(51 + 20 + 40)


def test_containers_that_were_lost_are_paid_too() -> None:
    assert measured(is_first=False, lost_s=30.0).cost(PER_S) == 665_440 * 50


def test_a_clock_set_back_gives_no_money_back() -> None:
    assert measured(is_first=False, ended_at=500.0).cost(PER_S) == 0
    assert measured(enter_s=-3.0).start_s == 0.0
    assert measured(enter_s=None, lost_s=-3.0).cost(PER_S) == 665_440 * 20
