from __future__ import annotations

from decimal import Decimal

from comfymodal.costs.estimate import TYPICAL_STARTUP_S, estimate
from comfymodal.costs.rates import container_rate, money_text, parse_gpu

L40S = container_rate([parse_gpu("L40S")])


def test_one_cold_image_costs_eight_times_its_seconds() -> None:
    # The worked example of the facts: boot 6 s, load 45 s, render 20 s, tail 60 s.
    told = estimate(L40S, typical_s=20, startup_s=600, deadline_s=3570, scaledown_window_s=60, typical_startup_s=51)
    assert told.typical is not None
    assert money_text(told.typical) == "$0.0872"
    assert told.typical == 87_172_640
    assert (told.startup, told.idle) == (L40S.cost(51), L40S.cost(60))
    assert told.typical == told.startup + L40S.cost(20) + told.idle
    assert round(told.typical / (542_000 * 20), 2) == 8.04


def test_forty_images_in_one_container() -> None:
    told = estimate(L40S, typical_s=800, startup_s=600, deadline_s=3570, scaledown_window_s=60, typical_startup_s=51)
    assert told.typical is not None
    assert money_text(told.typical) == "$0.6062"
    assert money_text(told.typical // 40) == "$0.0152"


def test_the_worst_is_every_limit_reached_and_the_idle_tail() -> None:
    told = estimate(L40S, typical_s=None, startup_s=600, deadline_s=3600, scaledown_window_s=60)
    assert told.worst == 665_440 * 4260
    assert told.typical is None
    assert told.per_hour == Decimal("2.395584")


def test_without_a_measured_start_up_the_usual_one_counts() -> None:
    told = estimate(L40S, typical_s=20, startup_s=600, deadline_s=3600, scaledown_window_s=60)
    assert told.startup == L40S.cost(TYPICAL_STARTUP_S)


def test_the_typical_is_never_above_the_worst() -> None:
    told = estimate(L40S, typical_s=900, startup_s=10, deadline_s=300, scaledown_window_s=2)
    assert told.typical == told.worst
    assert told.startup == L40S.cost(10)


def test_a_warm_container_saves_the_start_up() -> None:
    warm = estimate(L40S, typical_s=20, startup_s=600, deadline_s=3600, scaledown_window_s=60, typical_startup_s=0)
    assert (warm.startup, warm.typical) == (0, L40S.cost(80))
