from __future__ import annotations

import csv
from decimal import Decimal
from typing import Any

import pytest

from comfymodal.operations.costs_results import ForecastView, OthersView, RunFactsView, UnitView
from comfymodal.output.costs_report import CSV_TITLES, costs_bars, costs_csv, costs_end, costs_head, costs_table
from tests.unit.output.costs_samples import costs_report, empty_report, group, sums


def ends(**changed: Any) -> dict[str, str]:
    return dict(row for row in costs_end(costs_report(**changed)) if len(row) == 2)


def test_the_head_says_what_was_summed_up_and_by_which_prices() -> None:
    assert costs_head(costs_report()) == [
        "project demo, 8 runs from 2026-11-15 00:00 to 2026-11-21 13:30 UTC",
        "prices: Modal's list of 2026-10-07; Modal's bill not known here; credits, taxes and plan left out",
    ]
    billed = costs_head(costs_report(since=None, total=sums(runs=8, billed="1", billed_runs=3, drift="0")))
    assert billed[0].startswith("project demo, 8 runs from the first run to")
    assert "Modal's bill known of 3 of them" in billed[1]


def test_rows_end_with_the_total_and_empty_columns_go() -> None:
    titles, rows = costs_table(costs_report())

    assert titles == ("workflow", "runs", "outputs", "estimate", "measured", "idle", "total", "")
    assert rows == [
        ("cat.json", "6", "7", "$1.10", "$0.8000", "$0.2000", "$3.00", "75%"),
        ("dog.json", "2", "7", "$1.10", "$0.8000", "$0.2000", "$1.00", "25%"),
        ("total", "8", "7", "$1.10", "$0.8000", "$0.2000", "$4.00", ""),
    ]


def test_what_is_not_known_is_a_dash_and_nothing_is_nothing() -> None:
    groups = (group("here", 0.0, total="0", measured="0", idle="0"), group("new", 0.0, total=None, measured=None))

    titles, rows = costs_table(costs_report(groups=groups))

    assert [row[titles.index("total")] for row in rows] == ["$0.00", "-", "$4.00"]
    assert rows[0][titles.index("measured")] == "$0.00"


def test_folded_rows_are_one() -> None:
    _, rows = costs_table(costs_report(others=OthersView(3, 0.001, sums(total="0.004"))))
    _, single = costs_table(costs_report(others=OthersView(1, 0.5, sums())))

    assert rows[-2][0] == "3 others"
    assert rows[-2][-1] == "<1%"
    assert single[-2][0] == "1 other"


def test_a_run_is_told_with_what_it_was() -> None:
    run = RunFactsView("render", "modal", "failed", "cat.json", "L40S", "no tag", "2026-11-15T00:00:00.000Z")
    titles, rows = costs_table(costs_report(by="run", groups=(group("r-1", 1.0, run),)))

    assert titles[-1] == "what"
    assert rows[0][-1] == "render cat.json on L40S, failed"


def test_bars_are_as_long_as_a_row_is_dear() -> None:
    report = costs_report(groups=(group("a", 0.8), group("b", 0.2), group("c", 0.0001), group("d", 0.0)))

    assert costs_bars(report, 8, is_ascii=True) == ["########", "##", "#", ""]
    assert costs_bars(report, 8, is_ascii=False) == ["████████", "██", "▏", ""]
    assert costs_bars(costs_report(groups=(group("a", None),)), 8, is_ascii=False) == []


def test_what_follows_from_the_sums_is_said_in_lines() -> None:
    told = ends(total=sums(runs=8, active_runs=2, reserved="0.6", billed="2", billed_runs=3, drift="-0.03"))

    assert told == {
        "per image": "$0.5000: $3.50 for 7 images, failures included",
        "of it": "20% idle after a run, 6% in 1 run that failed or were stopped",
        "estimated": "10% too high: $1.10 for $1.00, of 3 of 8 runs",
        "billed": "1.5% less than was measured: $2.00 for 3 of 8 runs",
        "running": "2 runs, with $0.6000 set aside, in no sum yet",
        "today": "$0.6000 in 2 runs",
        "budget today": "$0.6000 and $0.4000 set aside of $10.00, 10% (costs.daily_usd)",
        "forecast": "$19.00 at the end of 2026-11, $17.50 to $23.00 eight times in ten; $12.00 so far, "
        "from 6 complete days",
        "Modal volumes": "$0.09 per GiB (2026-10-07); see comfymodal models du",
        "note": "what 1 run that ended cost is not known: no sum has it",
    }


def test_local_runs_loras_and_the_page_are_told() -> None:
    told = ends(local_runs=5, per_lora=UnitView(2, "5", "2.5"), page="/elsewhere/page.html", forecast=None)

    assert told["this machine"] == "5 runs cost nothing"
    assert told["per LoRA"] == "$2.50: $5.00 for 2 LoRAs, failures included"
    assert told["page"].endswith("page.html")
    assert told["forecast"] == "none before three complete days (UTC)"


def test_kept_up_containers_are_part_of_the_forecast() -> None:
    ahead = ForecastView("2026-11", 6, "12", "5", "17.5", "19", "23")

    assert "$5.00 of it kept-up containers" in ends(forecast=ahead)["forecast"]


def test_an_empty_ledger_says_so() -> None:
    assert costs_table(empty_report()) == ((), [])
    assert costs_end(empty_report()) == [
        ("", "no run is in the ledger of project demo yet; the first: comfymodal render WORKFLOW")
    ]
    assert costs_end(empty_report(runs_ever=3))[0] == (
        "",
        "no run since then; the ledger has 3 runs: comfymodal costs --since all",
    )


def test_csv_has_the_same_columns_always_and_its_rows_sum_up() -> None:
    report = costs_report(
        groups=(
            group('a, "b"\nc', 0.5, total="2", billed="1.25", billed_runs=1, drift="0"),
            group("=1+1", 0.25, total="1"),
        ),
        others=OthersView(2, 0.25, sums(total="1")),
    )
    rows = list(csv.DictReader(costs_csv(report).splitlines(keepends=True)))

    assert tuple(rows[0]) == CSV_TITLES
    assert [(row["row"], row["key"]) for row in rows] == [
        ("workflow", 'a, "b"\nc'),
        ("workflow", "=1+1"),
        ("others", "2"),
    ]
    assert sum(Decimal(row["total_usd"]) for row in rows) == 4
    assert [row["billed_usd"] for row in rows] == ["1.25", "", ""]
    assert costs_csv(empty_report()).splitlines() == [",".join(CSV_TITLES)]


@pytest.mark.parametrize("by", ["day", "run", "workflow", "gpu", "kind", "tag"])
def test_csv_of_any_grouping_is_rectangular(by: Any) -> None:
    run = RunFactsView("render", "modal", "failed", "cat.json", "L40S", "night", "2026-11-15T00:00:00.000Z")
    rows = list(csv.reader(costs_csv(costs_report(by=by, groups=(group("k", 1.0, run), group("l", 0.0)))).splitlines()))

    assert {len(row) for row in rows} == {len(CSV_TITLES)}
