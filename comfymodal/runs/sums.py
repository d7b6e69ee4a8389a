"""What is summed up of a group of runs, and the columns of a query that tell it of runs of one status.

Money is integer nanodollars.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from comfymodal.runs.spending import ACTIVE, SPENT

SumsRow = tuple[Any, ...]
"""The fields of a `Sums`: thousands of them are added faster so."""

_WELL = ("succeeded", "partial")


@dataclass(frozen=True, slots=True)
class Sums:
    """Of a group of runs; each `..._runs` says of how many the money beside it is known.

    `measured` is their own seconds and start-ups, `idle` the gaps after them. `spent` takes Modal's figure before ours.
    `estimated` is the typical estimate of those that ended and whose cost is known, `estimated_spent` that cost.
    `unknown_runs` ended, and what they cost is not known.
    """

    runs: int = 0
    active_runs: int = 0
    succeeded_runs: int = 0
    reserved: int = 0
    outputs: int = 0
    estimated: int = 0
    estimated_runs: int = 0
    estimated_spent: int = 0
    measured: int = 0
    measured_runs: int = 0
    idle: int = 0
    idle_runs: int = 0
    gapless_runs: int = 0
    """Measured, and how long their container idled afterwards is not known."""
    billed: int = 0
    billed_runs: int = 0
    drift: int = 0
    """How much more was billed than measured, of those that were both."""
    spent: int = 0
    spent_runs: int = 0
    spent_outputs: int = 0
    unknown_runs: int = 0
    failed: int = 0
    failed_runs: int = 0
    start_s: float = 0.0
    run_s: float = 0.0
    idle_s: float = 0.0
    lost_s: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*map(operator.add, values_of(self), values_of(other)))

    def __sub__(self, other: Sums) -> Sums:
        return Sums(*map(operator.sub, values_of(self), values_of(other)))


values_of: Callable[[Sums], SumsRow] = operator.attrgetter(*(field.name for field in fields(Sums)))

_FORESEEN = f"CASE WHEN {SPENT} IS NOT NULL THEN typical END"

# What follows from the status is not asked for each of them.
COLUMNS = ", ".join(
    (
        *("count(*)", "sum(outputs)", f"sum({_FORESEEN})", f"count({_FORESEEN})", "sum(measured)", "count(measured)"),
        *("sum(idle)", "count(idle)", "sum(measured IS NOT NULL AND idle IS NULL AND billed IS NULL)"),
        *("sum(billed)", "count(billed)", f"sum({SPENT})", f"count({SPENT})"),
        f"sum(CASE WHEN {SPENT} IS NOT NULL THEN outputs END)",
        f"sum(CASE WHEN typical IS NOT NULL THEN {SPENT} END)",
        "sum(billed - measured - coalesce(idle, 0))",
        *("sum(start_s)", "sum(run_s)", "sum(idle_s)", "sum(lost_s)"),
    )
)


def fields_of(status: str, values: Sequence[Any]) -> SumsRow:
    """What a row of `COLUMNS` says of runs of this status; nothing is reserved in it."""
    runs, outputs, typical, typicals, measured, measureds, idle, idles, gapless, *known = (
        value or 0 for value in values[:16]
    )
    billed, billeds, spent, spents, shown, foreseen, drift = known
    is_active = status in ACTIVE
    has_failed = not is_active and status not in _WELL
    estimates = (0, 0, 0) if is_active else (typical, typicals, foreseen)
    return (
        *(runs, runs * is_active, runs * (status == "succeeded"), 0, outputs),
        *(*estimates, measured, measureds, idle, idles, gapless, billed, billeds, drift),
        *(spent, spents, shown, 0 if is_active else runs - spents, spent * has_failed, runs * has_failed),
        *(value or 0.0 for value in values[16:]),
    )


def added(one: SumsRow | None, other: SumsRow) -> SumsRow:
    """The sum of both, or the other one."""
    return other if one is None else tuple(map(operator.add, one, other))
