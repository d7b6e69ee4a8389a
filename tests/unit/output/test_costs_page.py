from __future__ import annotations

import re
from datetime import date, timedelta
from decimal import Decimal

import pytest

from comfymodal.operations.costs_results import BudgetView, CostsPage, DayView, ShareView
from comfymodal.output.costs_page import page
from comfymodal.output.page_bars import Bar, bars_of, meter, stacked
from comfymodal.output.page_style import POLICY
from tests.unit.output.costs_samples import costs_page, costs_report, empty_report, group
from tests.unit.output.test_train_page import EVIL, REACHING, Page


def read(costs: CostsPage) -> Page:
    found = Page(page(costs))
    for _, attributes in found.tags:
        assert not REACHING & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    return found


def test_the_page_shows_the_sums_the_budgets_and_the_forecast() -> None:
    found = read(costs_page())

    for said in (
        "Costs of demo",
        "$4.00 spent",
        "$0.5000 per image",
        "what 1 run that ended cost is not known",
        "$0.6000 of $10.00 and $0.4000 set aside (10%)",
        "$17.50 to $23.00",
        "3 others",
        "total 8 7 $1.10",
        "$0.09 per GiB (2026-10-07); see comfymodal models du",
    ):
        assert said in found.text, said
    assert found.scripts == []
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in [own for _, own in found.tags]


def test_a_bar_is_drawn_for_every_kind_of_every_day() -> None:
    source = page(costs_page())

    (drawing,) = re.findall(r'<svg class="bars".*?</svg>', source, re.DOTALL)
    assert drawing.count("<rect") == 3
    assert "<title>2026-11-15: $1.50 (render $1.00, train $0.5000)</title>" in drawing
    assert 'fill="var(--c0)"' in drawing
    assert 'fill="var(--c1)"' in drawing


def test_text_from_anywhere_stays_text() -> None:
    groups, shares = (group(EVIL, 1.0),), (ShareView(EVIL, "1", 1.0),)
    days = (DayView("2026-11-15", {EVIL: "1"}),)
    report = costs_report(
        project=EVIL, groups=groups, notices=(EVIL,), budgets=(BudgetView(EVIL, EVIL, "1", "2", "0", "-1"),)
    )

    found = read(costs_page(report, workflows=shares, gpus=shares, days=days))

    assert not found.all("script")
    assert not found.all("img")
    assert found.text.count("<script>alert(1)</script>") >= 6


def test_a_page_without_runs_says_so() -> None:
    found = read(costs_page(empty_report(), days=(), workflows=(), gpus=()))

    assert "No run is in the ledger of project demo yet" in found.text
    assert found.all("svg") == []
    assert "none before three complete days" in found.text


def test_days_of_a_wrong_clock_are_told() -> None:
    assert "2 days that only a wrong clock can have noted" in read(costs_page(days_outside=2)).text


def test_an_exceeded_budget_is_red() -> None:
    report = costs_report(
        budgets=(
            BudgetView("over", "costs.daily_usd", "1", "0.8", "0.4", "-0.2"),
            BudgetView("none", "costs.total_usd", "0", "0", "0", "0"),
        )
    )

    assert '<i class="aside" style="width:100.00%"></i><i class="over" style="width:80.00%"></i>' in page(
        costs_page(report)
    )


def test_a_share_of_nothing_known_is_a_dash() -> None:
    assert "H100 -" in read(costs_page(gpus=(ShareView("H100", None, None),))).text


@pytest.mark.parametrize(
    ("days", "unit", "first"),
    [
        (1, "day", "2026-01-01"),
        (62, "day", "2026-01-01"),
        (63, "week", "2025-12-29"),
        (434, "week", "2025-12-29"),
        (435, "month", "2026-01"),
        (3661, "month", "2026-01"),
    ],
)
def test_many_days_are_drawn_as_weeks_or_months(days: int, unit: str, first: str) -> None:
    begin = date(2026, 1, 1)
    amounts = [(begin, {"render": Decimal(1)}), (begin + timedelta(days=days - 1), {"render": Decimal(2)})]
    found, bars = bars_of(amounts if days > 1 else amounts[:1])

    assert (found, bars[0].label) == (unit, first)
    assert len(bars) <= 122
    assert sum(bar.total for bar in bars) == (3 if days > 1 else 1)
    assert [bar.label for bar in bars] == sorted({bar.label for bar in bars})


def test_bars_end_where_their_amount_is_on_the_axis() -> None:
    source = stacked([Bar("2026-11-01", {"a": Decimal(4), "b": Decimal(4)})], ["a", "b"], title="t")

    heights = [float(found) for found in re.findall(r'height="([0-9.]+)" fill', source)]
    assert heights == [pytest.approx(129, abs=0.01)] * 2
    assert "$8</text>" in source


@pytest.mark.parametrize("amount", ["0.000000001", "0.00005", "0.3", "999999", "123456789"])
def test_any_amount_has_an_axis(amount: str) -> None:
    source = stacked([Bar("2026-11-01", {"a": Decimal(amount)})], ["a"], title="t")

    assert 2 <= source.count('class="grid-line"') <= 7
    assert "nan" not in source


def test_nothing_spent_is_no_drawing() -> None:
    assert stacked([Bar("2026-11-01", {})], [], title="t") == ""
    assert stacked([], [], title="t") == ""
    assert bars_of([]) == ("day", [])


def test_a_meter_never_leaves_its_track() -> None:
    assert "width:100.00%" in meter([("spent", 1e9)], "w")
    assert "width:0.00%" in meter([("spent", -1.0)], "w")
