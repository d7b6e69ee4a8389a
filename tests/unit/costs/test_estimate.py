"""The formulas of a container session, on worked examples: boot 6 s, load 45 s, 20 s an image, 60 s idle tail."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfymodal.costs.estimate import TYPICAL_STARTUP_S, Batch, Estimate, Span, estimate
from comfymodal.costs.rates import container_rate, dollars, money_text, parse_gpu, parse_money

L40S = container_rate([parse_gpu("L40S")])
COLD = Span.exactly(51.0)


def told(run: Span | float | None, **others: Any) -> Estimate:
    limits = {"startup_s": 600.0, "deadline_s": 3570.0, "scaledown_window_s": 60.0, "startup": COLD, **others}
    return estimate(L40S, run=Span.exactly(run) if isinstance(run, int | float) else run, **limits)


def test_one_cold_image_costs_eight_times_its_seconds() -> None:
    one = told(20)
    assert one.typical == 87_172_640
    assert money_text(one.typical) == "$0.0872"
    assert (one.startup, one.run, one.idle) == (L40S.cost(51), L40S.cost(20), L40S.cost(60))
    assert one.typical == one.startup + L40S.cost(20) + one.idle
    assert round(one.typical / (542_000 * 20), 2) == 8.04
    assert Batch(1, 20.0, 111.0).paid_s == 131.0


def test_forty_images_in_one_container() -> None:
    batch = Batch(40, 20.0, 111.0)
    assert batch.paid_s == 911.0
    assert batch.overhead == pytest.approx(1.139, abs=0.0005)
    forty = told(800)
    assert forty.typical == L40S.cost(batch.paid_s) == 606_215_840
    assert (money_text(forty.typical), money_text(forty.typical // 40)) == ("$0.6062", "$0.0152")


@pytest.mark.parametrize(("items", "phi"), [(1, 6.55), (5, 2.11), (20, 1.278), (100, 1.056), (500, 1.011)])
def test_what_is_paid_for_a_second_of_use(items: int, phi: float) -> None:
    assert Batch(items, 20.0, 111.0).overhead == pytest.approx(phi, abs=0.006 if items < 20 else 0.0006)


def test_more_containers_and_repeated_items_are_paid_too() -> None:
    assert Batch(40, 20.0, 111.0, containers=4, extra=0.1).paid_s == 4 * 111 + 40 * 20 * 1.1
    assert Batch(40, 20.0, 111.0, containers=4, extra=0.1).overhead == pytest.approx(1 + 0.1 + 4 * 111 / 800)
    assert Batch(0, 20.0, 111.0).overhead is None


def test_how_long_thirty_dollars_last() -> None:
    assert parse_money("30") / L40S.nanodollars_per_s / 3600 == pytest.approx(12.52, abs=0.005)


@pytest.mark.parametrize(("gpu", "hourly"), [("L40S", "2.3956"), ("A100-80GB", "2.9428"), ("H100", "4.3936")])
def test_a_container_has_four_cores_and_32_gib_beside_its_gpu(gpu: str, hourly: str) -> None:
    rate = container_rate([parse_gpu(gpu)])
    assert dollars(rate.nanodollars_per_h).quantize(Decimal("0.0001")) == Decimal(hourly)
    assert Decimal(rate.other_nanodollars_per_s * 3600) / 10**9 == Decimal("0.444384")


def test_the_worst_is_every_limit_reached_and_the_idle_tail() -> None:
    unknown = told(None, deadline_s=3600.0)
    assert unknown.worst == 665_440 * 4260
    assert (unknown.low, unknown.typical, unknown.high, unknown.run) == (None, None, None, None)


def test_a_warm_container_saves_the_start_up() -> None:
    warm = told(20, startup=Span.exactly(0.0))
    assert (warm.startup, warm.typical) == (0, L40S.cost(80))


def test_low_and_high_are_those_of_both_parts() -> None:
    spread = told(Span(10, 20, 40), startup=Span(5, 10, 30))
    assert (spread.low, spread.typical, spread.high) == (L40S.cost(75), L40S.cost(90), L40S.cost(130))


@pytest.mark.parametrize(
    ("samples", "span"),
    [
        pytest.param([], None, id="none"),
        pytest.param([7.0], Span(7, 7, 7), id="one"),
        pytest.param([9.0, 7.0, 8.0, 30.0], Span(7, 8.5, 30), id="few: least, median, most"),
        pytest.param([1.0, 2.0, 3.0, 4.0, 5.0], Span(1.4, 3, 4.6), id="five: quantiles"),
        pytest.param([float(number) for number in range(101)], Span(10, 50, 90), id="many"),
    ],
)
def test_a_span_is_of_its_samples(samples: list[float], span: Span | None) -> None:
    found = Span.of(samples)
    if span is None:
        assert found is None
    else:
        assert found is not None
        assert (found.low, found.typical, found.high) == pytest.approx((span.low, span.typical, span.high))


SECONDS = st.floats(0, 100_000)


@given(st.lists(SECONDS, max_size=30), st.lists(SECONDS, max_size=30), st.floats(1, 86_400), st.floats(1, 3600))
def test_nothing_is_ever_above_the_worst(
    runs: list[float], starts: list[float], deadline_s: float, limit_s: float
) -> None:
    startup = Span.of(starts) or Span.exactly(TYPICAL_STARTUP_S)
    found = told(Span.of(runs), startup=startup, deadline_s=deadline_s, startup_s=limit_s)
    if not runs:
        assert found.typical is None
        return
    assert found.low is not None
    assert found.typical is not None
    assert found.high is not None
    assert found.low <= found.typical <= found.high <= found.worst
