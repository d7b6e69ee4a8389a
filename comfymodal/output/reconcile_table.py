"""What a person reads of `costs reconcile`, as lines of columns; pure."""

from __future__ import annotations

from typing import Any

from comfymodal.operations.reconcile_results import HourView, MonthView, Reconciliation
from comfymodal.output.words import count, money_in_words

Rows = list[tuple[str, ...]]

TITLES = ("hour (UTC)", "app", "runs", "measured", "billed", "difference", "")
_WORDS = {
    "matched": "matched",
    "drift": "drift: more than 2 % and a cent apart",
    "provisional": "may still grow",
    "not_available_yet": "not billed yet",
    "no_rows": "no bill",
    "unattributed": "no run that is known here",
    "unavailable": "Modal shows no bill",
}


def reconcile_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows; None for any other result."""
    if not isinstance(result, Reconciliation):
        return None
    rows = [_row(hour, is_billed=result.source == "bill") for hour in result.hours]
    rows += [("", said) for said in _sums(result)]
    return TITLES, rows


def _row(hour: HourView, *, is_billed: bool) -> tuple[str, ...]:
    amounts = (hour.measured, hour.billed, hour.difference)
    words = _WORDS[hour.status] if is_billed else "measured only"
    told = (money_in_words(usd) for usd in amounts)
    return hour.hour[:13].replace("T", " ") + "h", hour.app, str(hour.runs), *told, words


def _sums(result: Reconciliation) -> list[str]:
    told = []
    if result.statuses:
        told.append(", ".join(f"{count(runs, 'run')}: {_WORDS[name]}" for name, runs in result.statuses.items()))
    else:
        told.append("no run of this project on Modal since then")
    if result.billed is not None:
        told.append(f"{money_in_words(result.measured)} measured, {money_in_words(result.billed)} billed")
    if result.source == "bill" and result.unattributed != "0":
        told.append(f"{money_in_words(result.unattributed)} billed without a run that is known here")
    if result.month is not None:
        told.append(_month(result.month))
    return told


def _month(month: MonthView) -> str:
    def words(usd: str | None) -> str:
        return "not known" if usd is None else money_in_words(usd)

    return (
        f"{month.month}, whole workspace: {words(month.metered)} before credits, {words(month.billed)} to pay; "
        f"apps {words(month.of_apps)}, this ledger {words(month.of_ledger)}"
    )
