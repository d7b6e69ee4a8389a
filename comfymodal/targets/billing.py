"""What a target that costs money can tell about it: prices, what was billed, which calls there were. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BilledRow:
    """What one object (an app, a volume) was billed for in one hour, before credits. There is no row of a run.

    Money is nanodollars; negative ones are adjustments. None: Modal's figure is no number.
    """

    object_id: str
    description: str
    """An app's or volume's name."""
    environment: str
    interval_start: float
    """Unix seconds, at a full hour UTC."""
    cost: int | None
    by_resource: Mapping[str, int | None]
    """In Modal's words, which may change: `CPU`, `Memory`, `H100`."""
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BilledMonth:
    """A calendar month (UTC) of the whole workspace, all of it nanodollars. None, or no entry: not told."""

    start: float
    """Unix seconds."""
    metered: int | None
    """Before credits and what is free."""
    billed: int | None
    """What is to be paid."""
    by_kind: Mapping[str, int | None]
    """Parts of `metered`, in Modal's words: `deployed_apps`, `ephemeral_apps`, `volumes`."""
    adjustments: Mapping[str, int | None]
    """From `metered` to `billed`: `credits`, `free_storage`; what lowers the bill is negative."""


@dataclass(frozen=True, slots=True)
class CallRow:
    """One input of a function, as Modal's history has it. Times are Unix seconds; None: not told, or not yet."""

    app: str
    function: str
    call_id: str
    container_id: str | None
    status: str
    """In Modal's words: `success`, `failure`, `running`."""
    created_at: float | None
    started_at: float | None
    startup_s: float | None
    """What the container took to be ready, where this was its first input."""
    execution_s: float | None

    @property
    def ended_at(self) -> float | None:
        """None while it runs, or where one of the two is not told."""
        if self.started_at is None or self.execution_s is None:
            return None
        return self.started_at + self.execution_s


class Billing(Protocol):
    """All of them raise `BillingUnavailableError` where plan or token do not allow it, `ServiceError` else."""

    def rates(self) -> Mapping[str, Decimal]:
        """Dollars per hour (storage: per GiB and month) by Modal's keys."""
        ...

    def workspace(self) -> str:
        """Whose prices and bill these are."""
        ...

    def report(self, start: float, end: float) -> list[BilledRow]:
        """A row for every object of the workspace and every hour that has any of these Unix seconds."""
        ...

    def summary(self, month: str | None = None) -> BilledMonth:
        """`2026-11`; None is the running month."""
        ...

    def calls(self, since: float, until: float) -> list[CallRow]:
        """Inputs of every function of the project's apps that were enqueued in between, the oldest first."""
        ...
