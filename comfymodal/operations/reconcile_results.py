"""What `comfymodal costs reconcile` tells; money is dollars as text, None is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class HourView:
    """One hour (UTC) of one app. `difference` is billed less measured."""

    hour: str
    app: str
    runs: int
    measured: str
    billed: str | None
    difference: str | None
    status: str


@dataclass(frozen=True, slots=True)
class MonthView:
    """The running month: of the whole workspace before (`metered`) and after credits (`billed`), of all its apps, and
    what this project's ledger knows of it.
    """

    month: str
    metered: str | None
    billed: str | None
    of_apps: str | None
    of_ledger: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """`source` is Modal's `bill`, or its history of `calls` where it shows no bill. `statuses` counts runs."""

    since: str
    until: str
    source: Literal["bill", "calls"]
    hours: tuple[HourView, ...]
    statuses: Mapping[str, int]
    measured: str
    """Of hours with runs."""
    billed: str | None
    """Of the same hours, as far as there are bills."""
    unattributed: str
    """Billed for the project's apps in hours without a run that is known here."""
    provisional_hours: float
    month: MonthView | None
    exit_code: int
