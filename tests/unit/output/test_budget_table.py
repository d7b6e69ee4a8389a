from __future__ import annotations

from comfymodal.operations.costs_results import BudgetsReport, BudgetView
from comfymodal.output.budget_table import budget_table


def test_budgets_with_what_is_gone_of_each() -> None:
    views = (
        BudgetView("today", "costs.daily_usd", "10", "6.5", "1.5", "2.0"),
        BudgetView("in all for tag night", "costs.tags.night.total_usd", "1", "1.25", "0", "-0.25"),
    )
    _, rows = budget_table(BudgetsReport(views, {"": "2.50", "night": "0.30"}, "block", (80,), 7)) or ((), [])
    assert rows == [
        ("today", "$10.00", "$6.50", "$1.50", "$2.00", "########-- 80%", "costs.daily_usd"),
        ("in all for tag night", "$1.00", "$1.25", "$0.00", "$0.00", "########## over", "costs.tags.night.total_usd"),
        ("each run", "$2.50", "", "", "", "", "costs.per_run_usd"),
        ("each run for tag night", "$0.3000", "", "", "", "", "costs.tags.night.per_run_usd"),
        ("a run beyond them", "is refused", "", "", "", "", "costs.on_exceed"),
    ]


def test_without_budgets_it_says_how_to_set_one() -> None:
    titles, rows = budget_table(BudgetsReport((), {}, "block", (80,), 0)) or ((), [])
    assert titles == ()
    assert "daily_usd: 10.00" in rows[0][1]
