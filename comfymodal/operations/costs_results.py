"""The frozen values of `costs`. Field names are keys of `--json`: adding one is free, renaming is not.

Money is US dollars as text, every digit of it; None is not known, which is never nothing. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from comfymodal.runs.totals import Grouping


@dataclass(frozen=True, slots=True)
class PricesView:
    """Where what is measured gets its prices: `list` is our dated copy of Modal's page."""

    source: str
    as_of: str


@dataclass(frozen=True, slots=True)
class SumsView:
    """Of a group of runs. `total` is what Modal billed where that is known, else `measured` and `idle`.

    `estimate` is the typical one of the `estimated_runs` that ended, which came to `estimated_total`. `billed` is of
    `billed_runs`, `drift` how much more that is than what was measured of the same. `unknown_runs` ended, and what they
    cost nobody knows: they are in no sum. `failed` is the part of `total` that went into runs that
    failed or were stopped; `reserved` is set aside for those that go on. `seconds` are paid ones.
    """

    runs: int
    active_runs: int
    outputs: int
    estimate: str | None
    estimated_runs: int
    estimated_total: str | None
    measured: str | None
    idle: str | None
    billed: str | None
    billed_runs: int
    drift: str | None
    total: str | None
    unknown_runs: int
    failed: str | None
    failed_runs: int
    reserved: str
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunFactsView:
    """What tells a run from another, where each is a row."""

    kind: str
    target: str
    status: str
    workflow: str
    gpu: str
    tag: str
    created_at: str | None


@dataclass(frozen=True, slots=True)
class GroupView:
    """A row. `share` is its part of the total, from 0 to 1."""

    key: str
    share: float | None
    sums: SumsView
    run: RunFactsView | None = None


@dataclass(frozen=True, slots=True)
class OthersView:
    """All other rows in one."""

    groups: int
    share: float | None
    sums: SumsView


@dataclass(frozen=True, slots=True)
class UnitView:
    """What one of them cost, failed attempts included; of paid runs whose cost is known."""

    count: int
    total: str
    each: str


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget of the project file, in dollars: `reserved` is set aside for runs that go on, `left` may be below 0."""

    name: str
    key: str
    limit: str
    spent: str
    reserved: str
    left: str


@dataclass(frozen=True, slots=True)
class BudgetsReport:
    """All budgets; `per_run` is by tag, `` for the project's, in dollars."""

    budgets: tuple[BudgetView, ...]
    per_run: Mapping[str, str]
    on_exceed: str
    warn_at: tuple[int, ...]
    """Percents."""
    exit_code: int


@dataclass(frozen=True, slots=True)
class TodayView:
    """The day so far, in UTC as bills are."""

    spent: str
    runs: int
    reserved: str


@dataclass(frozen=True, slots=True)
class ForecastView:
    """At the end of `month`: between `low` and `high` eight times in ten.

    `so_far` is spent already. `fixed` is in each of the three: containers that are kept up, from now on.
    """

    month: str
    complete_days: int
    so_far: str
    fixed: str
    low: str
    typical: str
    high: str


@dataclass(frozen=True, slots=True)
class StorageView:
    """What storing costs. How much is stored only the store knows: there is a price, and what it held when last seen.

    `price` and its date are None where they are not known; `ask` is where to look.
    """

    name: str
    price: str | None
    as_of: str | None
    ask: str
    seen: str | None = None


@dataclass(frozen=True, slots=True)
class CostsReport:
    """What runs from `since` (None: from the first one) to `until` cost. The sum of all rows is `total`."""

    project: str
    by: Grouping
    since: str | None
    until: str
    runs_ever: int
    prices: PricesView
    groups: tuple[GroupView, ...]
    others: OthersView | None
    total: SumsView
    local_runs: int
    """On this machine, where nothing is paid."""
    idle_share: float | None
    failed_share: float | None
    per_image: UnitView | None
    per_lora: UnitView | None
    today: TodayView
    budgets: tuple[BudgetView, ...]
    forecast: ForecastView | None
    storage: tuple[StorageView, ...]
    notices: tuple[str, ...]
    """What the sums do not hold, or hold doubtfully."""
    page: str | None = None
    """Where the HTML page was written."""


@dataclass(frozen=True, slots=True)
class DayView:
    """What was spent on a day, by kind of run."""

    day: str
    spent: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ShareView:
    """What is known to be spent on one of a kind; `share` is its part of all, from 0 to 1."""

    key: str
    total: str | None
    share: float | None


@dataclass(frozen=True, slots=True)
class CostsPage:
    """What the HTML page is made of, beside the report: every day with runs, and the dearest by workflow and by GPU."""

    report: CostsReport
    days: tuple[DayView, ...]
    days_outside: int
    """Days that a clock which was wrong has named, and that the drawing leaves out."""
    workflows: tuple[ShareView, ...]
    gpus: tuple[ShareView, ...]
