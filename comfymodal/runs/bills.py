"""What Modal says of runs, beside what was measured: bills of hours, and its history of calls.

Functions work inside the ledger's transaction. Money is nanodollars, times are Unix seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfymodal.costs.rates import cost_of_seconds
from comfymodal.runs.spending import ACTIVE, note_gaps, set_idle

FINAL = ("matched", "drift")
"""Statuses of a bill that counts; before, it may still grow, and is noted without its amount."""


@dataclass(frozen=True, slots=True)
class Paid:
    """When a run's container was paid for it: lost containers and start-up before it, the gap after it."""

    run_id: str
    kind: str
    begin: float
    end: float
    nanodollars_per_s: int


@dataclass(frozen=True, slots=True)
class CallSpan:
    """What Modal's history has of a call: its last container, when it began there, and the seconds that were paid for,
    `lost_s` of them in containers before.
    """

    container: str
    began_at: float
    run_s: float
    start_s: float
    lost_s: float


def paid_since(connection: sqlite3.Connection, since: float) -> list[Paid]:
    rows = connection.execute(
        "SELECT run_id, kind, began_at - coalesce(start_s, 0) - coalesce(lost_s, 0), ended_at + coalesce(idle_s, 0),"
        " nanodollars_per_s FROM costs WHERE created_at >= ? AND target = 'modal' AND began_at IS NOT NULL"
        " AND ended_at IS NOT NULL AND nanodollars_per_s IS NOT NULL ORDER BY began_at",
        (since,),
    )
    return [Paid(*row) for row in rows]


def note_bills(connection: sqlite3.Connection, bills: Mapping[str, tuple[int | None, str]]) -> None:
    """A later bill replaces an earlier one; one that is not final takes none away."""
    for run_id, (billed, status) in bills.items():
        if status in FINAL:
            connection.execute("UPDATE costs SET billed = ?, billing = ? WHERE run_id = ?", (billed, status, run_id))
        else:
            connection.execute("UPDATE costs SET billing = ? WHERE run_id = ? AND billed IS NULL", (status, run_id))


def note_calls(connection: sqlite3.Connection, spans: Mapping[str, CallSpan]) -> None:
    """Fill in ended runs of unknown cost; `spans` are by call id."""
    unknown = connection.execute(
        "SELECT costs.run_id, runs.call_id, nanodollars_per_s FROM costs JOIN runs ON runs.id = costs.run_id"
        " WHERE costs.target = 'modal' AND measured IS NULL AND nanodollars_per_s IS NOT NULL"
        f" AND costs.status NOT IN {ACTIVE}"
    ).fetchall()
    for run_id, call_id, per_s in unknown:
        if call_id not in spans:
            continue
        span = spans[call_id]
        cost = cost_of_seconds(per_s, span.run_s + span.start_s + span.lost_s)
        connection.execute(
            "UPDATE costs SET container = ?, began_at = ?, ended_at = ?, start_s = ?, run_s = ?, lost_s = ?,"
            " measured = ? WHERE run_id = ?",
            (
                *(span.container, span.began_at, span.began_at + span.run_s, span.start_s, span.run_s, span.lost_s),
                *(cost, run_id),
            ),
        )
        connection.execute("UPDATE runs SET cost_nanodollars = ? WHERE id = ?", (cost, run_id))
        if span.container:
            note_gaps(connection, span.container, span.began_at)


def note_next_calls(connection: sqlite3.Connection, starts: Mapping[str, Sequence[float]], *, now: float) -> None:
    """End gaps that are only assumed: at the container's next call, whoever made it, or when its time is over."""
    gaps = connection.execute(
        "SELECT run_id, container, began_at, ended_at, coalesce(window_s, 0), nanodollars_per_s FROM costs"
        " WHERE is_idle_final = 0 AND container <> '' AND began_at IS NOT NULL AND ended_at IS NOT NULL"
    ).fetchall()
    for run_id, container, began_at, ended_at, window_s, per_s in gaps:
        known = sorted(starts.get(container, ()))
        # Two clocks: the start next to the run's own beginning is its own, and the one after it ends the gap.
        own = min(range(len(known)), key=lambda place: abs(known[place] - began_at), default=0)
        later = known[own + 1 :]
        if later:
            set_idle(connection, run_id, min(window_s, max(0.0, later[0] - ended_at)), per_s, is_final=True)
        elif now > ended_at + window_s:
            set_idle(connection, run_id, window_s, per_s, is_final=True)


def measured_since(connection: sqlite3.Connection, since: float) -> int:
    """Of runs created from then on, with the gaps after them."""
    row = connection.execute(
        "SELECT coalesce(sum(coalesce(measured, 0) + coalesce(idle, 0)), 0) FROM costs WHERE created_at >= ?", (since,)
    )
    return int(row.fetchone()[0])
