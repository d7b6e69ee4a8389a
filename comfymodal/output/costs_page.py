"""The page of `costs --html`: one file that needs nothing else; pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal

from comfymodal import __version__
from comfymodal.operations.costs_results import (
    BudgetView,
    CostsPage,
    CostsReport,
    ForecastView,
    ShareView,
    SumsView,
    UnitView,
)
from comfymodal.output.costs_report import costs_head, costs_table, forecast_in_words, share_in_words, storage_in_words
from comfymodal.output.page_bars import bars_of, legend, meter, meters, stacked
from comfymodal.output.page_parts import code, document, facts, note, section, table, text, tiles
from comfymodal.output.words import count, money_in_words, seconds_in_words

_BY = {"day": "day", "run": "run", "workflow": "workflow", "gpu": "GPU", "kind": "kind", "tag": "tag"}
_SECONDS = {"start": "starting containers", "run": "running", "idle": "idle after a run", "lost": "in lost containers"}


def page(costs: CostsPage) -> str:
    """The whole page as text."""
    return document(f"Costs of {costs.report.project}", [*_parts(costs), _foot(costs.report)], has_shots=False)


def _parts(costs: CostsPage) -> Iterator[str]:
    report = costs.report
    head = "".join(f'<p class="soft">{text(line)}</p>' for line in costs_head(report))
    yield f"<header><h1>Costs of {text(report.project)}</h1>{head}</header>"
    yield _tiles(report)
    yield note([text(notice) for notice in _notices(costs)])
    yield _days(costs)
    yield section("Budgets", meters([_budget(budget) for budget in report.budgets]))
    yield section("Forecast", _forecast(report.forecast))
    yield section("By workflow", meters([_share(row) for row in costs.workflows]))
    yield section("By GPU", meters([_share(row) for row in costs.gpus]))
    yield section(f"Every {_BY[report.by]}" if report.by != "day" else "Day by day", _table(report))
    yield section("What the time went into", _seconds(report.total))
    yield section("Storage", _storage(report))


def _notices(costs: CostsPage) -> Iterator[str]:
    report = costs.report
    if not report.runs_ever:
        yield f"No run is in the ledger of project {report.project} yet"
    elif not report.total.runs:
        yield f"No run since then; the ledger has {count(report.runs_ever, 'run')}"
    yield from report.notices
    if report.local_runs:
        yield f"{count(report.local_runs, 'run')} on this machine cost nothing"
    if costs.days_outside:
        yield f"{count(costs.days_outside, 'day')} that only a wrong clock can have noted: not in the drawing"


def _tiles(report: CostsReport) -> str:
    total, share = report.total, "{:.0%}".format
    return tiles(
        [
            ("spent", _money(total.total)),
            ("estimated", _money(total.estimate)),
            ("measured", _money(total.measured)),
            ("billed by Modal", _money(total.billed)),
            ("per image", _each(report.per_image)),
            ("per LoRA", _each(report.per_lora)),
            ("idle after a run", "" if report.idle_share is None else share(report.idle_share)),
            ("failed or stopped", "" if report.failed_share is None else share(report.failed_share)),
            ("today", _money(report.today.spent)),
            ("set aside for runs that go on", _money(total.reserved) if Decimal(total.reserved) else ""),
            ("runs", str(total.runs)),
        ]
    )


def _days(costs: CostsPage) -> str:
    amounts = [
        (date.fromisoformat(day.day), {kind: Decimal(usd) for kind, usd in day.spent.items()}) for day in costs.days
    ]
    unit, bars = bars_of(amounts)
    kinds: dict[str, Decimal] = {}
    for _, parts in amounts:
        for kind, usd in parts.items():
            kinds[kind] = kinds.get(kind, Decimal(0)) + usd
    names = sorted((kind for kind, usd in kinds.items() if usd), key=lambda kind: (-kinds[kind], kind))
    drawn = stacked(bars, names, title=f"Dollars spent by {unit}, by kind of run")
    return section(f"Spent by {unit}", legend(names), drawn) if drawn else ""


def _budget(budget: BudgetView) -> tuple[str, str, str]:
    limit, spent, aside = (float(usd) for usd in (budget.limit, budget.spent, budget.reserved))
    used = (spent + aside) / limit if limit else 1.0
    drawn = [("aside", used), ("over" if used > 1 else "spent", spent / limit if limit else 1.0)]
    words = f"{_money(budget.spent)} of {_money(budget.limit)}"
    more = f" and {_money(budget.reserved)} set aside" if aside else ""
    name = f'{text(budget.name)} <span class="soft small">{code(budget.key)}</span>'
    return name, meter(drawn, f"{words}{more}"), f"{words}{more} ({used:.0%})"


def _forecast(ahead: ForecastView | None) -> str:
    told = f"<p>{text(forecast_in_words(ahead))}</p>"
    if ahead is None:
        return told
    high = float(ahead.high) or 1.0
    ends = [("maybe", 1.0), ("aside", float(ahead.typical) / high), ("spent", float(ahead.so_far) / high)]
    said = f"{_money(ahead.low)} to {_money(ahead.high)}"
    return told + meters([(f"end of {text(ahead.month)}", meter(ends, said), said)])


def _share(row: ShareView) -> tuple[str, str, str]:
    said = ", ".join(part for part in (_money(row.total) or "-", text(share_in_words(row.share))) if part)
    return text(row.key), meter([("spent", row.share or 0.0)], said), said


def _table(report: CostsReport) -> str:
    titles, rows = costs_table(report)
    if not rows:
        return ""
    titles = tuple(title or "share" for title in titles)
    numbers = [place for place, title in enumerate(titles) if place and title != "what"]
    full = [(*row, *[""] * (len(titles) - len(row))) for row in rows]
    cells = [tuple(text(cell) for cell in row) for row in full]
    cells[-1] = tuple(f"<b>{cell}</b>" if cell else "" for cell in cells[-1])
    return table(titles, cells, numbers)


def _seconds(sums: SumsView) -> str:
    total = sum(sums.seconds.values())
    if not total:
        return ""
    rows = [
        (text(_SECONDS[name]), meter([("spent", seconds / total)], name), text(seconds_in_words(seconds)))
        for name, seconds in sums.seconds.items()
        if seconds
    ]
    return meters(rows)


def _storage(report: CostsReport) -> str:
    pairs = [(store.name, text(storage_in_words(store))) for store in report.storage]
    told = '<p class="soft small">How much is stored only the store knows: it is told as it was last seen.</p>'
    return facts(pairs) + told if pairs else ""


def _each(unit: UnitView | None) -> str:
    return "" if unit is None else _money(unit.each)


def _money(usd: str | None) -> str:
    return "" if usd is None else text(money_in_words(usd))


def _foot(report: CostsReport) -> str:
    when = report.until[:16].replace("T", " ")
    return (
        f"<footer>Made by comfymodal {text(__version__)}, {text(when)} UTC, from the ledger of this machine.</footer>"
    )
