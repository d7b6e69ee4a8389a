"""`comfymodal costs`: what runs came to, from the ledger alone; nobody is asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from comfymodal.costs.forecast import LOOK_BACK_DAYS, Forecast, forecast
from comfymodal.costs.rates import container_rate, money_json, money_text, parse_gpu
from comfymodal.costs.storage_rates import kind_of_remote
from comfymodal.errors import OutputFolderError
from comfymodal.files import write_text
from comfymodal.operations.books import Books
from comfymodal.operations.costs_results import (
    BudgetView,
    CostsPage,
    CostsReport,
    DayView,
    ForecastView,
    PricesView,
    ShareView,
    StorageView,
    TodayView,
    UnitView,
)
from comfymodal.operations.costs_views import group_views, others_view, storage_views, sums_view
from comfymodal.operations.stored import last_stored
from comfymodal.operations.views import iso_time
from comfymodal.runs.sums import Sums
from comfymodal.runs.totals import Extent, Grouping, Totals, by_day_and_kind, extent, spent_by, totals

TOP = 20
"""How many rows there are when nobody says; days are not folded then."""

PAGE_TOP = 8
"""Shares in a drawing that are told apart."""

CHART_DAYS = 3660
"""How far back a page draws: earlier than that only a wrong clock can have been."""

_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class CostsWish:
    """`since` in Unix seconds, None for all; `top` None for as many rows as usual."""

    since: float | None
    by: Grouping = "day"
    top: int | None = None

    @property
    def most(self) -> int | None:
        return self.top or (None if self.by == "day" else TOP)


def costs_report(wish: CostsWish, books: Books, *, now: float, budgets: Sequence[BudgetView] = ()) -> CostsReport:
    """Sum up the ledger; an empty one gives an empty report. Raises `NotReadyError` for one that cannot be read."""
    midnight = now - now % _DAY_S
    with books.ledger.reading() as connection:
        whole = extent(connection, since=wish.since, now=now)
        found = totals(connection, wish.by, since=wish.since, top=wish.most)
        today = totals(connection, "kind", since=midnight).total
        lately = by_day_and_kind(connection, since=midnight - LOOK_BACK_DAYS * _DAY_S)
    spent_by_day: dict[date, int] = defaultdict(int)
    for day, _, spent in lately:
        spent_by_day[day] += spent
    kept_warm = _kept_warm_per_day(books)
    ahead = forecast(spent_by_day, first_at=whole.first_at, now=now, fixed_per_day=kept_warm)
    total = found.total
    ours = total.measured + total.idle
    return CostsReport(
        project=books.project.project,
        by=wish.by,
        since=iso_time(wish.since),
        until=iso_time(now),
        runs_ever=whole.runs,
        prices=PricesView(books.rates.source, books.rates.as_of),
        groups=group_views(found),
        others=others_view(found),
        total=sums_view(total),
        local_runs=total.runs - sum(sums.runs for sums in found.paid.values()),
        idle_share=total.idle / ours if ours else None,
        failed_share=total.failed / total.spent if total.spent else None,
        per_image=_unit(found.paid.get("render"), lambda sums: sums.spent_outputs),
        per_lora=_unit(found.paid.get("train"), lambda sums: sums.succeeded_runs),
        today=TodayView(money_json(today.spent), today.runs, money_json(today.reserved)),
        budgets=tuple(budgets),
        forecast=None if ahead is None else _forecast_view(ahead),
        storage=_storage(books),
        notices=tuple(_notices(found, whole, kept_warm)),
    )


def costs_page(report: CostsReport, books: Books, *, since: float | None, now: float) -> CostsPage:
    """What the page shows beside the report."""
    with books.ledger.reading() as connection:
        by_day = by_day_and_kind(connection, since=since)
        workflows = spent_by(connection, "workflow", since=since)
        gpus = spent_by(connection, "gpu", since=since)
    today = datetime.fromtimestamp(now, UTC).date()
    days: dict[date, dict[str, str]] = defaultdict(dict)
    for day, kind, spent in by_day:
        days[day][kind] = money_json(spent)
    shown = {day: kinds for day, kinds in days.items() if today - timedelta(days=CHART_DAYS) <= day <= today}
    return CostsPage(
        report,
        tuple(DayView(day.isoformat(), kinds) for day, kinds in sorted(shown.items())),
        len(days) - len(shown),
        _shares(workflows),
        _shares(gpus),
    )


def write_page(report: CostsReport, page: str, path: Path) -> CostsReport:
    """Write the page that was made of it, whole or not at all. Raises `OutputFolderError`."""
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as exc:
        raise OutputFolderError(f"cannot write {path}: {exc.strerror or exc}", hint="choose another: --html") from exc
    return replace(report, page=str(path))


def _storage(books: Books) -> tuple[StorageView, ...]:
    remotes = [(name, kind_of_remote(it.type, it.endpoint)) for name, it in books.project.remotes.items()]
    stored = last_stored(books.state, books.project.project)
    return tuple(storage_views(has_volumes=books.project.target == "modal", stored=stored, remotes=remotes))


def _kept_warm_per_day(books: Books) -> int:
    """Nanodollars of the containers that are up whether anything is rendered or not, while the project is deployed."""
    if books.project.target != "modal" or not books.project.comfyui.min_containers:
        return 0
    from comfymodal.operations.modal_spec import modal_spec

    containers = modal_spec(books.project, books.state).containers
    rate = container_rate([parse_gpu(name) for name in containers.gpus], books.rates)
    return rate.cost(_DAY_S) * containers.min_containers


def _unit(sums: Sums | None, counted: Callable[[Sums], int]) -> UnitView | None:
    if sums is None or not sums.spent or not counted(sums):
        return None
    count = counted(sums)
    return UnitView(count, money_json(sums.spent), money_json(round(sums.spent / count)))


def _shares(spent: Sequence[tuple[str, int | None]]) -> tuple[ShareView, ...]:
    """The dearest of them, and the others as one."""
    rows, others = list(spent[:PAGE_TOP]), spent[PAGE_TOP:]
    if others:
        known = [each for _, each in others if each is not None]
        rows.append(("1 other" if len(others) == 1 else f"{len(others)} others", sum(known) if known else None))
    whole = sum(each or 0 for _, each in rows)
    return tuple(ShareView(key, money_json(each), (each or 0) / whole if whole else None) for key, each in rows)


def _forecast_view(ahead: Forecast) -> ForecastView:
    return ForecastView(
        month=ahead.month,
        complete_days=ahead.complete_days,
        so_far=money_json(ahead.so_far),
        fixed=money_json(ahead.fixed),
        low=money_json(ahead.low),
        typical=money_json(ahead.typical),
        high=money_json(ahead.high),
    )


def _notices(found: Totals, whole: Extent, kept_warm: int) -> Iterator[str]:
    total = found.total
    if total.unknown_runs:
        yield f"what {_runs(total.unknown_runs)} that ended cost is not known: no sum has it"
    if total.gapless_runs:
        yield f"how long the container idled after {_runs(total.gapless_runs)} is not known: no sum has it"
    if whole.future_runs:
        yield f"of {_runs(whole.future_runs)} a clock that was wrong noted that they begin in the future"
    if whole.backward_runs:
        yield f"of {_runs(whole.backward_runs)} a clock that was set back noted an end before the beginning"
    if kept_warm:
        yield (
            f"comfyui.min_containers costs {money_text(kept_warm)} a day beside this while the project is deployed: "
            "it is in the forecast and in no run"
        )


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"
