"""A budget as a time limit: the deadline that it pays for, whatever happens. Enforced in the container, not here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from comfymodal.costs.rates import Rate, hourly_text, money_json, money_text
from comfymodal.errors import BudgetError


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget of many runs: what those created from `since` on (Unix seconds), of this tag or of all, may cost."""

    name: str
    """For people: `today`, `this month for tag night`."""
    key: str
    """Of the project file."""
    nanodollars: int
    since: float = 0.0
    tag: str | None = None


SHORTEST_S = 1
"""A deadline below that is none: the job would end before its first prompt."""


def fit(
    rate: Rate,
    wanted_deadline_s: float,
    budget_nanodollars: int | None,
    /,
    *,
    startup_s: float,
    scaledown_window_s: float,
    typical_s: float | None,
) -> float:
    """Return the wanted deadline, or the longest in whole seconds that the budget, if there is one, pays for at worst.

    Start-up (at its limit) and idle tail are paid first. Raises `BudgetError` when what is left is less than such a
    run usually takes (`typical_s`), or nothing; `needed_usd` in its details pays for that.
    """
    if budget_nanodollars is None:
        return wanted_deadline_s
    # Whole numbers, as in Rate.cost: a budget of exactly what a run costs at worst pays for it.
    around_ms = round((startup_s + scaledown_window_s) * 1000)
    left_ms = budget_nanodollars * 1000 // rate.nanodollars_per_s - around_ms
    if left_ms >= round(wanted_deadline_s * 1000):
        return wanted_deadline_s
    deadline_s = left_ms // 1000
    needed_s = min(max(SHORTEST_S, math.ceil(typical_s or 0)), wanted_deadline_s)
    if deadline_s >= needed_s:
        return float(deadline_s)
    around = rate.cost(around_ms / 1000)
    raise BudgetError(
        f"{money_text(budget_nanodollars)} does not pay for this run on {rate.gpu or 'a CPU'} ({hourly_text(rate)}): "
        f"starting it (at most {startup_s:g} s) and the {scaledown_window_s:g} s it stays warm cost up to "
        f"{money_text(around)}, {_rest(deadline_s, typical_s)}",
        budget_usd=money_json(budget_nanodollars),
        around_usd=money_json(around),
        needed_usd=money_json(rate.cost(around_ms / 1000 + needed_s)),
        typical_s=typical_s,
        affordable_s=max(0, deadline_s),
    )


def _rest(deadline_s: int, typical_s: float | None) -> str:
    if deadline_s < SHORTEST_S:
        return "so nothing is left for its work"
    return f"so {deadline_s} s are left; such a run usually takes {math.ceil(typical_s or 0)} s"
