"""How much the project's budgets still hold, and whether a run fits into them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from comfymodal.costs.budget import Limit
from comfymodal.costs.rates import money_json, money_text, nanodollars_of
from comfymodal.errors import BudgetError, ComfymodalError
from comfymodal.operations.books import Books
from comfymodal.operations.context import Context
from comfymodal.operations.costs_results import BudgetsReport, BudgetView
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.refresh import refresh
from comfymodal.operations.terms import Terms
from comfymodal.runs.ledger import Ledger, Run

if TYPE_CHECKING:
    from comfymodal.project.schema import Project


@dataclass(frozen=True, slots=True)
class Allowed:
    """A run's time limit, and the budgets that must still hold its worst case when it is entered."""

    deadline_s: float
    limits: tuple[Limit, ...]


def limits_of(project: Project, *, now: float | None = None, is_every_tag: bool = False) -> tuple[Limit, ...]:
    """The budgets of day, month and total: the project's, and those of the tag that its next run has, or of all."""
    costs = project.costs
    moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    found = list(_limits(costs, moment, key="costs", whose="", tag=None))
    for tag, own in costs.tags.items():
        if is_every_tag or tag == costs.tag:
            found += _limits(own, moment, key=f"costs.tags.{tag}", whose=f" for tag {tag}", tag=tag)
    return tuple(found)


def show_budgets(books: Books, *, now: float | None = None) -> BudgetsReport:
    """Every budget of the project and what of it is gone; with exit code 7 when one is used up. Asks nobody."""
    project = books.project
    limits = limits_of(project, now=now, is_every_tag=True)
    views = tuple(_view(limit, books.ledger) for limit in limits)
    costs = project.costs
    per_run = {"": costs.per_run_usd, **{tag: own.per_run_usd for tag, own in costs.tags.items()}}
    is_used_up = any(Decimal(view.left) <= 0 for view in views)
    return BudgetsReport(
        budgets=views,
        per_run={tag: f"{amount:f}" for tag, amount in per_run.items() if amount is not None},
        on_exceed=costs.on_exceed,
        warn_at=costs.warn_at,
        exit_code=BudgetError.exit_code if is_used_up else 0,
    )


def _view(limit: Limit, ledger: Ledger) -> BudgetView:
    spent, reserved = ledger.committed(limit)
    left = limit.nanodollars - spent - reserved
    amounts = {"limit": limit.nanodollars, "spent": spent, "reserved": reserved, "left": left}
    return BudgetView(limit.name, limit.key, **{name: money_json(amount) for name, amount in amounts.items()})


def allow(
    context: Context, desk: Desk | None, terms: Terms, *, typical_s: float | None, max_cost: int | None, of: int = 1
) -> Allowed:
    """Find the time limit that `max_cost` and the project's budgets pay for; `of` runs share what is left.

    Raises `BudgetError` for a run that they do not pay for, unless the project says otherwise (`costs.on_exceed`);
    without a desk nobody is asked.
    """
    fit = partial(terms.fit, typical_s=typical_s)
    try:
        wanted_s = fit(max_cost)
    except BudgetError as exc:
        raise _with_hint(exc, _Tight(max_cost or 0, "(--max-cost)"), terms) from None
    limits = limits_of(context.project)
    tight = _tightest(limits, context, of)
    if tight is None:
        return Allowed(wanted_s, ())
    if context.ledger.reserved() and not _pays_for(wanted_s, fit, tight):
        # Runs that ended while nobody looked give back what was set aside for them.
        for run in context.ledger.with_reservation():
            _settle_if_ended(run, context)
        tight = _tightest(limits, context, of) or tight
    try:
        return Allowed(min(wanted_s, fit(tight.nanodollars)), limits)
    except BudgetError as exc:
        refused = _with_what_is_left(_with_hint(exc, tight, terms), limits, context)
    if not _may_exceed(refused, context, desk):
        raise refused
    return Allowed(wanted_s, ())


def watch_budgets(context: Context, desk: Desk) -> None:
    """Warn, once each, of budgets of which a part is gone that the project names (`costs.warn_at`)."""
    for limit in limits_of(context.project):
        gone = limit.nanodollars - context.ledger.left(limit)
        reached = [percent for percent in context.project.costs.warn_at if gone * 100 >= percent * limit.nanodollars]
        for percent in sorted(reached):
            _warn_once(limit, gone, percent, context, desk, is_told=percent == max(reached))


def _warn_once(limit: Limit, gone: int, percent: int, context: Context, desk: Desk, *, is_told: bool) -> None:
    # Those below the highest are over as well, and nobody needs to hear of them.
    if not context.ledger.tell_once(f"{limit.key} {limit.since:.0f}", f"{percent}%") or not is_told:
        return
    desk.warn(
        f"{money_text(gone)} of {money_text(limit.nanodollars)} are spent or set aside {limit.name} ({limit.key}); "
        "see: comfymodal costs budget"
    )
    if context.project.notify:
        from comfymodal.operations.notify import notify_budget

        notify_budget(context, desk, limit, gone, percent)


def _limits(budgets: Any, moment: datetime, *, key: str, whose: str, tag: str | None) -> Sequence[Limit]:
    today = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    periods: Mapping[str, tuple[str, float]] = {
        "daily_usd": (f"today{whose}", today.timestamp()),
        "monthly_usd": (f"this month{whose}", today.replace(day=1).timestamp()),
        "total_usd": (f"in all{whose}", 0.0),
    }
    found = []
    for name, (words, since) in periods.items():
        amount: Decimal | None = getattr(budgets, name)
        if amount is not None:
            found.append(Limit(words, f"{key}.{name}", nanodollars_of(amount), since, tag))
    return found


def _per_run(context: Context) -> list[tuple[int, str]]:
    """Amounts, and the keys that give them."""
    costs = context.project.costs
    own = costs.tags.get(costs.tag) if costs.tag else None
    amounts = {
        "costs.per_run_usd": costs.per_run_usd,
        f"costs.tags.{costs.tag}.per_run_usd": own.per_run_usd if own else None,
    }
    return [(nanodollars_of(amount), key) for key, amount in amounts.items() if amount is not None]


@dataclass(frozen=True, slots=True)
class _Tight:
    """What one run may cost, what to raise if that is too little, and for how many runs that has to pay."""

    nanodollars: int
    raised_by: str
    of: int = 1


def _tightest(limits: Sequence[Limit], context: Context, of: int) -> _Tight | None:
    """The budget that allows least; None where there is none."""
    found = [_Tight(amount, f"({key})") for amount, key in _per_run(context)]
    found += [_Tight(max(0, context.ledger.left(limit)) // of, f"to be left of {limit.key}", of) for limit in limits]
    return min(found, key=lambda each: each.nanodollars, default=None)


def _pays_for(wanted_s: float, fit: Callable[[int], float], tight: _Tight) -> bool:
    """Whether it shortens nothing."""
    try:
        return fit(tight.nanodollars) >= wanted_s
    except BudgetError:
        return False


def _settle_if_ended(run: Run, context: Context) -> None:
    try:
        refresh(run, context)
    except ComfymodalError:
        # It cannot be asked now: what was set aside for it stays so.
        return


def _may_exceed(exc: BudgetError, context: Context, desk: Desk | None) -> bool:
    wish = context.project.costs.on_exceed
    if wish == "warn":
        if desk is not None:
            desk.warn(f"over budget: {exc.message}; started all the same (costs.on_exceed: warn)")
        return True
    if wish == "block" or desk is None:
        return False
    return desk.confirm(Question(exc.message, (exc.hint or "",), "Start it all the same?", is_over_budget=True))


def _with_hint(exc: BudgetError, tight: _Tight, terms: Terms) -> BudgetError:
    """Says how much to allow, by what, and what else helps."""
    needed = Decimal(str(exc.details["needed_usd"])) * tight.of
    cents = f"${needed.quantize(Decimal('0.01'), ROUND_CEILING)}"
    ways = (f"allow at least {cents} {tight.raised_by}", terms.cheaper)
    return BudgetError(exc.message, hint=", ".join(way for way in ways if way), **exc.details)


def _with_what_is_left(exc: BudgetError, limits: Sequence[Limit], context: Context) -> BudgetError:
    tight = [
        f"{money_text(max(0, left))} of {money_text(limit.nanodollars)} are left {limit.name} ({limit.key})"
        for limit in limits
        if (left := context.ledger.left(limit)) < limit.nanodollars
    ]
    message = "; ".join(part for part in (exc.message, ", ".join(tight)) if part)
    return BudgetError(message, hint=f"{exc.hint}; see: comfymodal costs budget", **exc.details)


def taken(limit: Limit) -> BudgetError:
    """Another command reserved what was left between this one's look and its entry."""
    return BudgetError(
        f"other runs have just been given what was left {limit.name} of {money_text(limit.nanodollars)} ({limit.key})",
        hint="see: comfymodal costs budget; it comes back as far as they do not use it",
    )
