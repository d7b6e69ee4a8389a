from __future__ import annotations

from typing import Any

from comfymodal.costs.bill import RunCost, run_cost
from comfymodal.costs.rates import container_rate, parse_gpu

L40S = container_rate([parse_gpu("L40S")])
NOTE: dict[str, Any] = {
    "container_id": "ta-1",
    "container_started_at": 1000.0,
    "enter_s": 51.0,
    "is_first": True,
    "gpu": "L40S",
    "started_at": 1060.0,
    "ended_at": 1080.0,
}


def test_the_first_run_pays_the_start_up_of_its_container() -> None:
    assert run_cost(L40S, NOTE, 0.0, 0.0) == RunCost(20.0, 51.0, 665_440 * 71)


def test_a_later_run_pays_its_own_seconds() -> None:
    assert run_cost(L40S, {**NOTE, "is_first": False}, 0.0, 0.0) == RunCost(20.0, 0.0, 665_440 * 20)


def test_a_container_kept_warm_before_its_first_run_is_no_cost_of_that_run() -> None:
    late = {**NOTE, "started_at": 90_000.0, "ended_at": 90_020.0}
    assert run_cost(L40S, late, 0.0, 0.0).nanodollars == 665_440 * 71


def test_runs_of_one_container_cost_its_busy_time_together() -> None:
    others = [{**NOTE, "is_first": False, "started_at": 1080.0 + n, "ended_at": 1081.0 + n} for n in range(40)]
    total = sum(run_cost(L40S, note, 0.0, 0.0).nanodollars for note in [NOTE, *others])
    assert total == L40S.cost(51 + 20 + 40)


def test_what_a_killed_container_did_not_note_comes_from_the_run() -> None:
    unended = {key: value for key, value in NOTE.items() if key != "ended_at"}
    assert run_cost(L40S, unended, 1061.0, 1070.0) == RunCost(10.0, 51.0, 665_440 * 61)
    assert run_cost(L40S, {}, 1061.0, 1070.0) == RunCost(9.0, 0.0, 665_440 * 9)
    assert run_cost(L40S, {**NOTE, "ended_at": None, "enter_s": None}, 0.0, 1070.0).own_s == 10.0


def test_a_clock_set_back_gives_no_money_back() -> None:
    assert run_cost(L40S, {**NOTE, "is_first": False, "ended_at": 500.0}, 0.0, 0.0).nanodollars == 0
    assert run_cost(L40S, {**NOTE, "enter_s": -3.0}, 0.0, 0.0).startup_s == 0.0
