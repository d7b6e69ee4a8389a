"""What a person reads of `costs budget`, as lines of columns; pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from comfymodal.operations.costs_results import BudgetsReport, BudgetView
from comfymodal.output.words import money_in_words

Rows = list[tuple[str, ...]]

TITLES = ("budget", "of", "spent", "set aside", "left", "", "key")
_NONE = "none; the project file sets them: costs: {daily_usd: 10.00, monthly_usd: 100.00}"
_BAR = 10


def budget_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows; None for any other result."""
    if not isinstance(result, BudgetsReport):
        return None
    rows = [_row(view) for view in result.budgets]
    for tag, usd in result.per_run.items():
        of_tag = f" for tag {tag}" if tag else ""
        key = f"costs.tags.{tag}.per_run_usd" if tag else "costs.per_run_usd"
        rows.append((f"each run{of_tag}", money_in_words(usd), "", "", "", "", key))
    if not rows:
        return (), [("budgets", _NONE)]
    does = {"block": "is refused", "confirm": "is asked about", "warn": "is started with a warning"}
    rows.append(("a run beyond them", does[result.on_exceed], "", "", "", "", "costs.on_exceed"))
    return TITLES, rows


def _row(view: BudgetView) -> tuple[str, ...]:
    left = Decimal(view.left)
    amounts = (view.limit, view.spent, view.reserved, f"{max(left, Decimal(0)):f}")
    gone = 1 - left / Decimal(view.limit)
    # ASCII: a pipe may take no other.
    bar = "#" * min(_BAR, max(0, round(gone * _BAR)))
    words = "over" if left < 0 else f"{gone:.0%}"
    return view.name, *(money_in_words(usd) for usd in amounts), f"{bar:-<{_BAR}} {words}", view.key
