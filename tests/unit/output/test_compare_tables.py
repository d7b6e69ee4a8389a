from __future__ import annotations

from typing import Any

from comfymodal.costs.compare import Rental, Session
from comfymodal.costs.rates import container_rate, parse_gpu, parse_money
from comfymodal.operations.compare_results import CardView, CostsCompared, PlansView
from comfymodal.operations.compare_views import card_view
from comfymodal.output.compare_tables import TITLES, compare_end, compare_lines, compare_table
from comfymodal.runs.usage import GpuUsage
from tests.unit.output.result_samples import run_report

MONTH_H = 720.0
VAST = Rental("vast", parse_money("0.75"), "2026-11-20")
PLANS = PlansView("49.10", "19.10", "250", "2026-10-07")


def used(**more: Any) -> GpuUsage:
    """41 minutes a day at $2.395584 an hour, in ten sessions of three hours; nothing is paid but useful seconds."""
    given: dict[str, Any] = {
        "runs": 90,
        "useful_s": 20.5 * 3600,
        "paid_s": 20.5 * 3600,
        "nanodollars": 49_109_472_000,
        "sessions": [Session(3.0, 2.05)] * 10,
    }
    return GpuUsage("L40S", **{**given, **more})


def unused(*rentals: Rental, gpu: str = "L40S") -> CardView:
    return card_view(GpuUsage(gpu), container_rate([parse_gpu(gpu)]), rentals, MONTH_H)


def result(*cards: CardView, **more: Any) -> CostsCompared:
    return CostsCompared(**{"hours": MONTH_H, "cards": cards, "plans": None, "left_out": (), **more})


def test_use_beside_a_rental() -> None:
    shown = result(card_view(used(), None, [VAST], MONTH_H))
    assert compare_lines(shown) == [
        "You used 41 min a day of L40S (2.8 %) in 30 days: 20.5 h of work in 20.5 h paid (1.00 times), $49.11 at "
        "$2.40/h.",
        "Break-even with vast ($0.75/h of 2026-11-20) is 31 % = 7.5 h a day.",
        "Modal is cheaper by $490.89 than vast kept, and dearer by $26.61 than vast returned, in 30 days.",
        "Returned means before gaps of 4 h and more, 10 times here; a night on which nobody does costs $6.00.",
    ]
    assert compare_table(shown) == (
        TITLES,
        [
            ("", "Modal L40S", "$2.40/h", "$49.11", "", "", ""),
            ("", "vast, kept", "$0.75/h", "$540.00", "7.5 h of 24 h", "$270.00 (3.8 h)", "$810.00 (11.3 h)"),
            ("✓", "vast, returned", "$0.75/h", "$22.50", "56 min of 3 h", "$11.25 (28 min)", "$33.75 (1.4 h)"),
        ],
    )


def test_the_tick_is_modals_where_it_is_cheaper_and_what_turns_it_is_told() -> None:
    dear = Rental("pod", parse_money("1.79"), "2026-11-09", setup_h=1.0)
    shown = result(card_view(used(), None, [dear], MONTH_H))
    assert compare_lines(shown)[2:4] == [
        "Modal is cheaper by $1241.48 than pod kept, and cheaper by $22.49 than pod returned, in 30 days.",
        "At $0.8950/h it is the other way round: Modal is dearer by $13.31 than pod returned.",
    ]
    table = compare_table(shown)
    assert table is not None
    assert [row[0] for row in table[1]] == ["✓", "", ""]


def test_more_work_than_one_rental_does() -> None:
    shown = result(card_view(used(useful_s=1.5 * MONTH_H * 3600), None, [VAST], MONTH_H))
    assert "than 2 of vast kept" in compare_lines(shown)[2]


def test_without_use_only_the_border_is_told() -> None:
    shown = result(unused(VAST))
    assert compare_lines(shown) == [
        "No use of L40S yet: its break-even is told as if all paid time were useful, at $2.40/h (price of 2026-10-07).",
        "Break-even with vast ($0.75/h of 2026-11-20) is 31 % = 7.5 h a day.",
    ]
    table = compare_table(shown)
    assert table is not None
    assert table[1][1] == ("", "vast, kept", "$0.75/h", "-", "7.5 h of 24 h", "3.8 h", "11.3 h")


def test_where_no_use_makes_renting_cheaper() -> None:
    h200 = Rental("vast", parse_money("5.58"), "2026-10-24")
    shown = result(unused(h200, gpu="H200"))
    assert compare_lines(shown)[1] == (
        "Break-even with vast ($5.58/h of 2026-10-24) is beyond all it can do: Modal is cheaper at any use."
    )
    table = compare_table(shown)
    assert table is not None
    assert table[1][1][4:] == ("none", "13.4 h", "none")


def test_without_a_price_the_one_that_would_be_as_cheap_is_told() -> None:
    shown = result(card_view(used(), None, [], MONTH_H))
    assert compare_lines(shown)[1] == (
        "A rental as fast that is kept the whole time would be cheaper below $0.0682/h; no price of one is known "
        "(costs.rentals in comfymodal.yaml, or --usd-per-hour)."
    )
    assert compare_table(shown) == (TITLES, [])


def test_what_is_not_known_is_no_zero() -> None:
    lost = card_view(GpuUsage("X900", unknown=2), None, [VAST], MONTH_H)
    assert compare_lines(result(lost)) == [
        "No use of X900 yet but 2 runs of unknown cost, and what it costs is not known."
    ]
    failed = card_view(used(useful_s=0.0), None, [VAST], MONTH_H)
    assert compare_lines(result(failed))[1] == "Nothing useful came of L40S: there is nothing to compare."


def test_what_stands_below() -> None:
    shown = result(unused(VAST), plans=PLANS, left_out=("of Modal: volumes", "3 runs whose cost is not known"))
    assert compare_end(shown) == [
        "All GPUs of this project: $49.10 in 30 days; to pay on Starter, after its credit, $19.10; on Team, with its "
        "fee, $250.00 (plans of 2026-10-07; other projects use the same credit)",
        "left out: of Modal: volumes",
        "left out: 3 runs whose cost is not known",
    ]


def test_other_results_are_left_to_others() -> None:
    assert (compare_lines(run_report()), compare_table(run_report()), compare_end(run_report())) == ([], None, [])
