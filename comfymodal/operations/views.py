"""Ledger rows as people and scripts see them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

from comfymodal.costs.rates import money_json
from comfymodal.operations.results import RunView
from comfymodal.runs.ledger import Run


def run_view(run: Run) -> RunView:
    result = run.result or {}
    return RunView(
        id=run.id,
        kind=run.kind,
        status=run.status,
        target=run.target,
        title=run.title,
        created_at=iso_time(run.created_at),
        ended_at=iso_time(run.ended_at),
        seconds=None if run.ended_at is None else round(max(0.0, run.ended_at - run.created_at), 3),
        phases=result.get("phases") or {},
        cost=money_json(run.cost_nanodollars),
    )


@overload
def iso_time(seconds: float) -> str: ...
@overload
def iso_time(seconds: float | None) -> str | None: ...
def iso_time(seconds: float | None) -> str | None:
    """A clock's seconds as ISO 8601 in UTC; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
