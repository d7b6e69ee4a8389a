"""What a person reads of `costs`, as lines of columns, and the same as CSV; pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from decimal import Decimal

from comfymodal.operations.costs_results import (
    BudgetView,
    CostsReport,
    ForecastView,
    GroupView,
    StorageView,
    SumsView,
    UnitView,
)
from comfymodal.output.words import count, money_in_words, shown_path

Rows = list[tuple[str, ...]]

CSV_TITLES = (
    *("row", "key", "runs", "active_runs", "outputs", "estimate_usd", "estimated_runs", "measured_usd", "idle_usd"),
    *("billed_usd", "billed_runs", "total_usd", "failed_usd", "failed_runs", "unknown_runs", "reserved_usd"),
    *("start_s", "run_s", "idle_s", "lost_s", "kind", "target", "status", "workflow", "gpu", "tag", "created_at"),
)
"""New columns come at the end."""

BAR_LEAST, BAR_MOST = 8, 30
_EIGHTHS = "▏▎▍▌▋▊▉█"


def costs_head(report: CostsReport) -> list[str]:
    """What was summed up, and by which prices."""
    since = "the first run" if report.since is None else _time(report.since)
    billed, runs = report.total.billed_runs, report.total.runs
    billing = f"Modal's bill known of {billed} of them" if billed else "Modal's bill not known here"
    prices = "Modal's list" if report.prices.source == "list" else "this workspace's"
    return [
        f"project {report.project}, {count(runs, 'run')} from {since} to {_time(report.until)} UTC",
        f"prices: {prices} of {report.prices.as_of}; {billing}; credits, taxes and plan left out",
    ]


def costs_table(report: CostsReport) -> tuple[tuple[str, ...], Rows]:
    """Titles and rows, the total last; a column that says nothing anywhere is left out."""
    if not report.total.runs:
        return (), []
    titles: tuple[str, ...] = (report.by, "runs", "outputs", "estimate", "measured", "idle", "billed", "total", "")
    rows: Rows = [(group.key, *_cells(group.sums), share_in_words(group.share)) for group in report.groups]
    if report.by == "run":
        titles = (*titles, "what")
        rows = [(*row, _what(group)) for row, group in zip(rows, report.groups, strict=True)]
    if report.others:
        others = f"{report.others.groups} others" if report.others.groups > 1 else "1 other"
        rows.append((others, *_cells(report.others.sums), share_in_words(report.others.share)))
    rows.append(("total", *_cells(report.total), ""))
    kept = [place for place in range(len(titles)) if place < 2 or any(_says(row, place) for row in rows)]
    return _picked(titles, kept), [_picked(row, kept) for row in rows]


def costs_bars(report: CostsReport, width: int, *, is_ascii: bool) -> list[str]:
    """A bar for each group, as long as it is dear; none where nothing was spent."""
    shares = [group.share or 0.0 for group in report.groups]
    most = max(shares, default=0.0)
    return [_bar(share / most, width, is_ascii=is_ascii) for share in shares] if most else []


def costs_end(report: CostsReport) -> Rows:
    """What follows from the sums, a line each: what for, and what there is to say."""
    if not report.runs_ever:
        return [("", f"no run is in the ledger of project {report.project} yet; the first: comfymodal render WORKFLOW")]
    rows: Rows = []
    if not report.total.runs:
        runs = count(report.runs_ever, "run")
        rows.append(("", f"no run since then; the ledger has {runs}: comfymodal costs --since all"))
    rows += [("per image", _unit(report.per_image, "image")), ("per LoRA", _unit(report.per_lora, "LoRA"))]
    rows += [("of it", _waste(report)), ("estimated", _estimates(report.total)), ("billed", _billing(report.total))]
    rows += [("this machine", f"{count(report.local_runs, 'run')} cost nothing" if report.local_runs else "")]
    rows += [("running", _running(report.total)), ("today", _today(report))]
    rows += [(f"budget {budget.name}", _budget(budget)) for budget in report.budgets]
    rows += [("forecast", forecast_in_words(report.forecast))]
    rows += [(store.name, storage_in_words(store)) for store in report.storage]
    rows += [("note", notice) for notice in report.notices]
    rows += [("page", shown_path(report.page) if report.page else "")]
    return [row for row in rows if row[1]]


def storage_in_words(store: StorageView) -> str:
    price = (store.price or "price not known") + (f" ({store.as_of})" if store.as_of else "")
    return f"{store.seen}; {price}" if store.seen else f"{price}; see {store.ask}"


def forecast_in_words(ahead: ForecastView | None) -> str:
    if ahead is None:
        return "none before three complete days (UTC)"
    words = (
        f"{money_in_words(ahead.typical)} at the end of {ahead.month}, "
        f"{money_in_words(ahead.low)} to {money_in_words(ahead.high)} eight times in ten"
    )
    fixed = f", {money_in_words(ahead.fixed)} of it kept-up containers" if Decimal(ahead.fixed) else ""
    return f"{words}{fixed}; {money_in_words(ahead.so_far)} so far, from {ahead.complete_days} complete days"


def costs_csv(report: CostsReport) -> str:
    """The rows, and the folded ones as `others`, in dollars; empty is not known. The sum of the rows is the total."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(CSV_TITLES)
    for group in report.groups:
        run = group.run
        facts = (run.kind, run.target, run.status, run.workflow, run.gpu, run.tag, run.created_at) if run else ("",) * 7
        out.writerow((report.by, group.key, *_csv_cells(group.sums), *facts))
    if report.others:
        out.writerow(("others", report.others.groups, *_csv_cells(report.others.sums), *("",) * 7))
    return text.getvalue()


def _csv_cells(sums: SumsView) -> Iterator[str | int | float]:
    yield from (sums.runs, sums.active_runs, sums.outputs, sums.estimate or "", sums.estimated_runs)
    yield from (sums.measured or "", sums.idle or "", sums.billed or "", sums.billed_runs, sums.total or "")
    yield from (sums.failed or "", sums.failed_runs, sums.unknown_runs, sums.reserved)
    yield from (sums.seconds[name] for name in ("start", "run", "idle", "lost"))


def _cells(sums: SumsView) -> tuple[str, ...]:
    money = (sums.estimate, sums.measured, sums.idle, sums.billed, sums.total)
    return (str(sums.runs), str(sums.outputs), *(money_in_words(usd) for usd in money))


def _says(row: Sequence[str], place: int) -> bool:
    return place < len(row) and row[place] not in ("", "-")


def _picked(row: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    return tuple(row[place] for place in places if place < len(row))


def share_in_words(share: float | None) -> str:
    return "" if share is None else "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _what(group: GroupView) -> str:
    run = group.run
    return f"{run.kind} {run.workflow} on {run.gpu}, {run.status}" if run else ""


def _unit(unit: UnitView | None, noun: str) -> str:
    if unit is None:
        return ""
    number = count(unit.count, noun)
    return f"{money_in_words(unit.each)}: {money_in_words(unit.total)} for {number}, failures included"


def _waste(report: CostsReport) -> str:
    idle = "" if report.idle_share is None else f"{report.idle_share:.0%} idle after a run"
    failed = "" if report.failed_share is None else f"{report.failed_share:.0%} in {_failed(report.total)}"
    return ", ".join(part for part in (idle, failed) if part)


def _failed(sums: SumsView) -> str:
    return f"{count(sums.failed_runs, 'run')} that failed or were stopped"


def _estimates(sums: SumsView) -> str:
    """How good they were: the operator is to know how much to trust the next one."""
    if not sums.estimate or not sums.estimated_total:
        return ""
    came_to, off = Decimal(sums.estimated_total), Decimal(sums.estimate) - Decimal(sums.estimated_total)
    how = f"{abs(off) / came_to:.0%} too {'high' if off > 0 else 'low'}" if came_to and off else "right"
    runs = f"{sums.estimated_runs} of {count(sums.runs, 'run')}"
    return f"{how}: {money_in_words(sums.estimate)} for {money_in_words(sums.estimated_total)}, of {runs}"


def _billing(sums: SumsView) -> str:
    if not sums.billed or sums.drift is None:
        return ""
    billed, drift = Decimal(sums.billed), Decimal(sums.drift)
    how = f"{abs(drift) / billed:.1%} {'more' if drift > 0 else 'less'} than" if billed and drift else "just what"
    return f"{how} was measured: {money_in_words(sums.billed)} for {sums.billed_runs} of {count(sums.runs, 'run')}"


def _running(sums: SumsView) -> str:
    if not sums.active_runs:
        return ""
    return f"{count(sums.active_runs, 'run')}, with {money_in_words(sums.reserved)} set aside, in no sum yet"


def _today(report: CostsReport) -> str:
    day = report.today
    aside = f", {money_in_words(day.reserved)} set aside" if Decimal(day.reserved) else ""
    return f"{money_in_words(day.spent)} in {count(day.runs, 'run')}{aside}"


def _budget(budget: BudgetView) -> str:
    aside = f" and {money_in_words(budget.reserved)} set aside" if Decimal(budget.reserved) else ""
    limit = Decimal(budget.limit)
    share = f", {(Decimal(budget.spent) + Decimal(budget.reserved)) / limit:.0%}" if limit else ""
    return f"{money_in_words(budget.spent)}{aside} of {money_in_words(budget.limit)}{share} ({budget.key})"


def _bar(share: float, width: int, *, is_ascii: bool) -> str:
    if is_ascii:
        return "#" * round(share * width) or ("#" if share else "")
    eighths = round(share * width * 8) or (1 if share else 0)
    whole, rest = divmod(eighths, 8)
    return _EIGHTHS[-1] * whole + (_EIGHTHS[rest - 1] if rest else "")


def _time(iso: str) -> str:
    return iso[:16].replace("T", " ")
