"""Sums over the narrow rows of the ledger: what runs were thought to cost, what was measured, what was billed.

Money is integer nanodollars, times are Unix seconds. Every question reads each row once. Functions work inside the
ledger's `reading`, so that all answers are of one state.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce
from typing import Any, Literal, get_args

from comfymodal.runs.spending import ACTIVE, SOONEST, SPENT
from comfymodal.runs.sums import COLUMNS, Sums, SumsRow, added, fields_of, values_of

Grouping = Literal["day", "run", "workflow", "gpu", "kind", "tag"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)

HERE = "this machine"
NO_GPU = "no GPU"
NO_TAG = "no tag"

_DAY_S = 86400
_EPOCH = date(1970, 1, 1).toordinal()
# A clock may say anything: a day that no calendar has counts as the first or the last one.
_DAY = (
    f"min(max(CAST(created_at / {_DAY_S} AS INTEGER), {date.min.toordinal() - _EPOCH}),"
    f" {date.max.toordinal() - _EPOCH})"
)

_KEYS: dict[Grouping, str] = {
    "day": _DAY,
    "run": "run_id",
    "workflow": "workflow",
    "gpu": f"CASE WHEN target = 'local' THEN '{HERE}' WHEN gpu_billed = '' THEN '{NO_GPU}' ELSE gpu_billed END",
    "kind": "kind",
    "tag": f"CASE WHEN tag = '' THEN '{NO_TAG}' ELSE tag END",
}

_SET_ASIDE = "(SELECT nanodollars FROM reservations WHERE reservations.run_id = costs.run_id)"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What tells one run from another."""

    kind: str
    target: str
    status: str
    workflow: str
    gpu: str
    tag: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Group:
    key: str
    sums: Sums
    run: RunFacts | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """`groups` are the dearest first, days in their order; `others` is the sum of `folded` more.

    Whatever the grouping and however many are folded, the sum of all rows is `total`. `paid` is by kind, without the
    runs of this machine.
    """

    groups: tuple[Group, ...]
    folded: int
    others: Sums
    total: Sums
    paid: dict[str, Sums]


@dataclass(frozen=True, slots=True)
class Extent:
    """How many runs there ever were, when the first was submitted, and of how many the times cannot be true.

    `future_runs` are submitted later than now; `backward_runs`, of the period, ended before they were submitted.
    """

    runs: int
    first_at: float | None
    future_runs: int
    backward_runs: int


def extent(connection: sqlite3.Connection, *, since: float | None, now: float) -> Extent:
    runs = connection.execute("SELECT count(*) FROM costs").fetchone()[0]
    first_at = connection.execute("SELECT min(created_at) FROM costs WHERE created_at >= ?", (SOONEST,)).fetchone()[0]
    future = connection.execute("SELECT count(*) FROM costs WHERE created_at > ?", (now,)).fetchone()[0]
    backward = "SELECT count(*) FROM costs WHERE created_at >= ? AND ended_at < created_at"
    return Extent(int(runs), first_at, int(future), int(connection.execute(backward, (_from(since),)).fetchone()[0]))


def totals(connection: sqlite3.Connection, by: Grouping, *, since: float | None, top: int | None = None) -> Totals:
    """Sum the runs submitted from `since` on (None: all). All but the `top` dearest groups are folded into one."""
    # Of runs there are too many to sum each: the dearest are looked for afterwards.
    key = "''" if by == "run" else _KEYS[by]
    found: dict[Any, SumsRow] = {}
    paid: dict[str, SumsRow] = {}
    for name, kind, is_here, row in _rows(connection, key, _from(since)):
        found[name] = added(found.get(name), row)
        if not is_here:
            paid[kind] = added(paid.get(kind), row)
    total = Sums(*reduce(added, found.values())) if found else Sums()
    if by == "run":
        groups, count = _dearest_runs(connection, _from(since), top), total.runs
    else:
        groups, count = _dearest(found, by, top), len(found)
    shown = sum((group.sums for group in groups), start=Sums())
    by_kind = {kind: Sums(*row) for kind, row in paid.items()}
    return Totals(tuple(groups), count - len(groups), total - shown, total, by_kind)


def by_day_and_kind(connection: sqlite3.Connection, *, since: float | None) -> list[tuple[date, str, int]]:
    """What is known to be spent, by the day of submission (UTC) and kind, in order."""
    rows = connection.execute(
        f"SELECT {_DAY}, kind, coalesce(sum({SPENT}), 0) FROM costs WHERE created_at >= ? GROUP BY 1, 2 ORDER BY 1, 2",
        (_from(since),),
    )
    return [(_date(day), kind, spent) for day, kind, spent in rows]


def spent_by(connection: sqlite3.Connection, by: Grouping, *, since: float | None) -> list[tuple[str, int | None]]:
    """What is known to be spent on each of a grouping, the dearest first; None where nothing is known."""
    rows = connection.execute(
        f"SELECT {_KEYS[by]}, sum({SPENT}) FROM costs WHERE created_at >= ? GROUP BY 1 ORDER BY 2 DESC, 1",
        (_from(since),),
    )
    return [(str(key), spent) for key, spent in rows]


def _from(since: float | None) -> float:
    return -math.inf if since is None else since


def _rows(connection: sqlite3.Connection, key: str, since: float) -> Iterator[tuple[Any, str, bool, SumsRow]]:
    """Key, kind, whether on this machine, and the fields of a `Sums`."""
    rows = connection.execute(
        f"SELECT {key}, kind, target = 'local', status, {COLUMNS} FROM costs WHERE created_at >= ? GROUP BY 1, 2, 3, 4",
        (since,),
    )
    for name, kind, is_here, status, *values in rows:
        yield name, kind, bool(is_here), fields_of(status, values)
    aside = connection.execute(
        f"SELECT {key}, kind, target = 'local', {_SET_ASIDE} FROM costs"
        f" WHERE run_id IN (SELECT run_id FROM reservations) AND status IN {ACTIVE} AND created_at >= ?",
        (since,),
    )
    for name, kind, is_here, reserved in aside:
        yield name, kind, bool(is_here), values_of(Sums(reserved=reserved))


def _dearest(found: dict[Any, SumsRow], by: Grouping, top: int | None) -> list[Group]:
    sums = {key: Sums(*row) for key, row in found.items()}
    dearest = sorted(sums, key=lambda key: (-sums[key].spent, key))[:top]
    # A year reads from its beginning to its end, whatever its days cost.
    ordered = sorted(dearest) if by == "day" else dearest
    return [Group(_date(key).isoformat() if by == "day" else str(key), sums[key]) for key in ordered]


def _dearest_runs(connection: sqlite3.Connection, since: float, top: int | None) -> list[Group]:
    rows = connection.execute(
        f"SELECT run_id, kind, target, status, workflow, {_KEYS['gpu']}, tag, created_at,"
        f" {_SET_ASIDE}, {COLUMNS} FROM costs"
        " WHERE run_id IN (SELECT run_id FROM costs WHERE created_at >= ?"
        f" ORDER BY coalesce({SPENT}, 0) DESC, run_id LIMIT ?)"
        f" GROUP BY run_id ORDER BY coalesce({SPENT}, 0) DESC, run_id",
        (since, -1 if top is None else top),
    )
    return [Group(run_id, _sums_of_run(facts, values), facts) for run_id, facts, values in map(_split, rows)]


def _split(row: Sequence[Any]) -> tuple[str, RunFacts, Sequence[Any]]:
    return row[0], RunFacts(*row[1:8]), row[8:]


def _sums_of_run(facts: RunFacts, values: Sequence[Any]) -> Sums:
    aside = (values[0] or 0) if facts.status in ACTIVE else 0
    return replace(Sums(*fields_of(facts.status, values[1:])), reserved=aside)


def _date(day: int) -> date:
    return date.fromordinal(_EPOCH + day)
