from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfymodal.costs.budget import fit
from comfymodal.costs.estimate import Span, estimate
from comfymodal.costs.rates import Rate, container_rate, cpu_rate, parse_gpu, parse_money
from comfymodal.errors import BudgetError, error_from_dict

L40S = container_rate([parse_gpu("L40S")])


def fitted(budget: str, *, typical_s: float | None = None, rate: Rate = L40S, **others: Any) -> float:
    wanted_s = others.pop("wanted_deadline_s", 3600.0)
    around = {"startup_s": 600.0, "scaledown_window_s": 60.0, **others}
    return fit(rate, wanted_s, parse_money(budget), typical_s=typical_s, **around)


def test_a_budget_that_pays_for_all_changes_nothing() -> None:
    assert fitted("3") == 3600.0


def test_a_budget_shortens_the_deadline_to_what_it_pays_for() -> None:
    # 1 / 0.00066544 = 1502.7 s, less 660 s.
    assert fitted("1") == 842.0


def test_exactly_the_worst_case_pays_for_it() -> None:
    assert fitted("2.8347744") == 3600.0
    assert fitted("2.834774399") == 3599.0


def test_a_budget_below_what_such_a_run_takes_is_refused_with_numbers() -> None:
    assert fitted("1", typical_s=842.0) == 842.0
    with pytest.raises(BudgetError) as caught:
        fitted("1", typical_s=842.4)
    assert caught.value.message == (
        "$1.00 does not pay for this run on L40S ($2.40/h): starting it (at most 600 s) and the 60 s it stays warm "
        "cost up to $0.4392, so 842 s are left; such a run usually takes 843 s"
    )
    assert (caught.value.code, caught.value.exit_code) == ("budget_refused", 7)
    assert caught.value.details == {
        "budget_usd": "1",
        "around_usd": "0.4391904",
        "needed_usd": "1.00015632",
        "typical_s": 842.4,
        "affordable_s": 842,
    }


@pytest.mark.parametrize("budget", ["0", "0.01", "0.4391904", "0.4398"])
def test_a_budget_below_the_start_up_is_refused(budget: str) -> None:
    with pytest.raises(BudgetError, match=r"cost up to \$0\.4392, so nothing is left for its work") as caught:
        fitted(budget)
    assert caught.value.details["affordable_s"] == 0
    assert caught.value.details["needed_usd"] == "0.43985584"


def test_one_second_is_a_deadline() -> None:
    assert fitted("0.43985584") == 1.0


def test_a_deadline_below_the_typical_is_the_operators_own() -> None:
    assert fitted("3", typical_s=5000.0) == 3600.0
    with pytest.raises(BudgetError) as caught:
        fitted("2", typical_s=5000.0)
    # More than the whole deadline is never needed.
    assert caught.value.details["needed_usd"] == "2.8347744"


def test_what_is_said_to_be_needed_is_taken() -> None:
    with pytest.raises(BudgetError) as caught:
        fitted("0.50", typical_s=300.0)
    assert fitted(str(caught.value.details["needed_usd"]), typical_s=300.0) >= 300.0


def test_a_container_without_a_gpu_has_a_budget_too() -> None:
    with pytest.raises(BudgetError, match=r"on a CPU \(\$0\.0552/h\)"):
        fitted("0.001", rate=cpu_rate())


def test_the_error_survives_the_trip_as_json() -> None:
    with pytest.raises(BudgetError) as caught:
        fitted("0")
    assert isinstance(error_from_dict(caught.value.to_dict()), BudgetError)


SECONDS = st.floats(min_value=0.001, max_value=90_000).map(lambda value: round(value, 3))


@given(
    gpu=st.sampled_from(["T4", "L40S", "H100:8", "RTX-PRO-6000:3"]),
    budget=st.integers(min_value=0, max_value=500 * 10**9),
    wanted_s=SECONDS,
    startup_s=SECONDS,
    window_s=SECONDS,
    typical_s=st.none() | SECONDS,
)
def test_no_budget_is_ever_exceeded(
    gpu: str, budget: int, wanted_s: float, startup_s: float, window_s: float, typical_s: float | None
) -> None:
    rate = container_rate([parse_gpu(gpu)])
    around: Any = {"startup_s": startup_s, "scaledown_window_s": window_s}
    likely: Any = {"run": None if typical_s is None else Span.exactly(typical_s), "startup": Span.exactly(51)}
    worst = estimate(rate, deadline_s=wanted_s, **around, **likely).worst
    try:
        deadline_s = fit(rate, wanted_s, budget, typical_s=typical_s, **around)
    except BudgetError:
        assert worst > budget
        return
    assert 0 < deadline_s <= wanted_s
    assert (deadline_s == wanted_s) == (worst <= budget)
    assert estimate(rate, deadline_s=deadline_s, **around, **likely).worst <= budget
