"""Reports of costs for tests of what is shown."""

from __future__ import annotations

from typing import Any

from comfymodal.operations.costs_results import (
    BudgetView,
    CostsPage,
    CostsReport,
    DayView,
    ForecastView,
    GroupView,
    PricesView,
    RunFactsView,
    ShareView,
    StorageView,
    SumsView,
    TodayView,
    UnitView,
)


def sums(**changed: Any) -> SumsView:
    known: dict[str, Any] = {
        "runs": 4,
        "active_runs": 0,
        "outputs": 7,
        "estimate": "1.1",
        "estimated_runs": 3,
        "estimated_total": "1",
        "measured": "0.8",
        "idle": "0.2",
        "billed": None,
        "billed_runs": 0,
        "drift": None,
        "total": "1",
        "unknown_runs": 0,
        "failed": "0.25",
        "failed_runs": 1,
        "reserved": "0",
        "seconds": {"start": 20.0, "run": 90.0, "idle": 60.0, "lost": 0.0},
    }
    return SumsView(**{**known, **changed})


NOTHING: dict[str, Any] = {
    "runs": 0,
    "outputs": 0,
    "estimate": None,
    "estimated_runs": 0,
    "estimated_total": None,
    "measured": None,
    "idle": None,
    "total": None,
    "failed": None,
    "failed_runs": 0,
    "seconds": {"start": 0.0, "run": 0.0, "idle": 0.0, "lost": 0.0},
}


def group(key: str, share: float | None, run: RunFactsView | None = None, **changed: Any) -> GroupView:
    return GroupView(key, share, sums(**changed), run)


def costs_report(**changed: Any) -> CostsReport:
    known: dict[str, Any] = {
        "project": "demo",
        "by": "workflow",
        "since": "2026-11-15T00:00:00.000Z",
        "until": "2026-11-21T13:30:00.000Z",
        "runs_ever": 12,
        "prices": PricesView("list", "2026-10-07"),
        "groups": (group("cat.json", 0.75, total="3", runs=6), group("dog.json", 0.25, total="1", runs=2)),
        "others": None,
        "total": sums(runs=8, total="4"),
        "local_runs": 0,
        "idle_share": 0.2,
        "failed_share": 0.0625,
        "per_image": UnitView(7, "3.5", "0.5"),
        "per_lora": None,
        "today": TodayView("0.6", 2, "0"),
        "budgets": (BudgetView("today", "costs.daily_usd", "10", "0.6", "0.4", "9.0"),),
        "forecast": ForecastView("2026-11", 6, "12", "0", "17.5", "19", "23"),
        "storage": (StorageView("Modal volumes", "$0.09 per GiB", "2026-10-07", "comfymodal models du"),),
        "notices": ("what 1 run that ended cost is not known: no sum has it",),
    }
    return CostsReport(**{**known, **changed})


def empty_report(**changed: Any) -> CostsReport:
    nothing: dict[str, Any] = {
        "runs_ever": 0,
        "groups": (),
        "total": sums(**NOTHING),
        "idle_share": None,
        "failed_share": None,
        "per_image": None,
        "today": TodayView("0", 0, "0"),
        "budgets": (),
        "forecast": None,
        "storage": (),
        "notices": (),
    }
    return costs_report(**{**nothing, **changed})


def costs_page(report: CostsReport | None = None, **changed: Any) -> CostsPage:
    known: dict[str, Any] = {
        "days": (DayView("2026-11-15", {"render": "1", "train": "0.5"}), DayView("2026-11-18", {"render": "2.5"})),
        "days_outside": 0,
        "workflows": (ShareView("cat.json", "3", 0.75), ShareView("3 others", "1", 0.25)),
        "gpus": (ShareView("L40S", "4", 1.0),),
    }
    return CostsPage(report or costs_report(), **{**known, **changed})
