"""What each run was thought to cost, what was measured and what was billed: a narrow row beside the run's wide one.

Sums over 100,000 runs read these rows only. Money is integer nanodollars, times are Unix seconds; NULL is not known.
Functions work inside the ledger's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.costs.budget import Limit
from comfymodal.costs.measure import Measured
from comfymodal.costs.rates import cost_of_seconds

ACTIVE = ("submitting", "running")
"""Statuses of a run that may still change without anybody's doing; in SQL as they are in Python."""

TABLES = """
CREATE TABLE costs (
  run_id TEXT PRIMARY KEY,
  created_at REAL NOT NULL,
  kind TEXT NOT NULL,
  target TEXT NOT NULL,
  status TEXT NOT NULL,
  workflow TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  tag TEXT NOT NULL,
  gpu_asked TEXT NOT NULL,
  gpu_billed TEXT NOT NULL,
  gpu_seen TEXT NOT NULL,
  nanodollars_per_s INTEGER,
  low INTEGER,
  typical INTEGER,
  high INTEGER,
  worst INTEGER,
  container TEXT,
  began_at REAL,
  ended_at REAL,
  queue_s REAL,
  start_s REAL,
  load_s REAL,
  run_s REAL,
  lost_s REAL,
  window_s REAL,
  idle_s REAL,
  is_idle_final INTEGER NOT NULL,
  measured INTEGER,
  idle INTEGER,
  billed INTEGER,
  billing TEXT NOT NULL,
  outputs INTEGER NOT NULL,
  prompts INTEGER NOT NULL DEFAULT 1,
  is_cached INTEGER NOT NULL DEFAULT 0,
  peak_vram_bytes INTEGER
) STRICT;
CREATE INDEX costs_by_time ON costs (created_at);
CREATE INDEX costs_by_container ON costs (container, began_at) WHERE container IS NOT NULL;
CREATE INDEX costs_by_fingerprint ON costs (fingerprint, created_at) WHERE fingerprint <> '';
CREATE TABLE notified (
  run_id TEXT NOT NULL,
  event TEXT NOT NULL,
  PRIMARY KEY (run_id, event)
) STRICT
"""

_FILL = """
INSERT INTO costs (run_id, created_at, kind, target, status, workflow, fingerprint, tag, gpu_asked, gpu_billed,
  gpu_seen, nanodollars_per_s, ended_at, start_s, run_s, is_idle_final, measured, idle, billing, outputs, prompts,
  is_cached)
SELECT id, created_at, kind, target, status, title,
  CASE WHEN json_valid(request) THEN coalesce(json_extract(request, '$.workflow.sha256'), '') ELSE '' END, '',
  CASE WHEN json_valid(rate) THEN coalesce(json_extract(rate, '$.gpu'), '') ELSE '' END,
  CASE WHEN json_valid(rate) THEN coalesce(json_extract(rate, '$.gpu'), '') ELSE '' END, '',
  CASE WHEN json_valid(rate) THEN json_extract(rate, '$.nanodollars_per_s') END, ended_at,
  CASE WHEN json_valid(result) AND json_extract(result, '$.container.is_first') = 1
    THEN CAST(json_extract(result, '$.container.enter_s') AS REAL) END,
  CASE WHEN json_valid(result) THEN CAST(json_extract(result, '$.container.ended_at') AS REAL)
    - CAST(json_extract(result, '$.container.started_at') AS REAL) END, 1,
  CASE WHEN target = 'local' AND ended_at IS NOT NULL THEN 0 ELSE cost_nanodollars END,
  CASE WHEN target = 'local' AND ended_at IS NOT NULL THEN 0 END, '',
  CASE WHEN json_valid(result) THEN coalesce(json_array_length(result, '$.outputs'), 0) ELSE 0 END,
  CASE WHEN json_valid(request) THEN coalesce(json_array_length(request, '$.job.prompts'), 1) ELSE 1 END,
  CASE WHEN json_valid(result) THEN coalesce(json_extract(result, '$.is_cached') = 1, 0) ELSE 0 END
FROM runs
"""
"""The gaps after runs of before were not noted."""

SCHEMA = f"{TABLES.strip()};\n{_FILL.strip()}"
"""From version 2 on."""

SOONEST = 1_577_836_800
"""2020-01-01, UTC: what began before was noted by a clock that was wrong, and is no beginning of a ledger."""

SPENT = "coalesce(billed, measured + coalesce(idle, 0))"
"""What a run came to, as far as it is known: Modal's own figure before ours."""

_LONGEST = "max(0, CAST(nanodollars_per_s * (ended_at - created_at + coalesce(window_s, 0)) AS INTEGER))"
COMMITTED = f"coalesce({SPENT}, min(worst, {_LONGEST}), worst, 0)"
"""Against budgets, what is not known counts as the most that it can be."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run may cost, before it starts. `worst` holds whatever happens."""

    low: int | None = None
    typical: int | None = None
    high: int | None = None
    worst: int | None = None


@dataclass(frozen=True, slots=True)
class CostEntry:
    """How a run enters: what sums are grouped by."""

    run_id: str
    created_at: float
    kind: str
    target: str
    status: str
    workflow: str
    fingerprint: str = ""
    tag: str = ""
    gpu_asked: str = ""
    nanodollars_per_s: int | None = None
    window_s: float = 0.0
    prompts: int = 1
    expected: Expected = Expected()


def enter(connection: sqlite3.Connection, entry: CostEntry) -> None:
    expected = entry.expected
    connection.execute(
        "INSERT INTO costs (run_id, created_at, kind, target, status, workflow, fingerprint, tag, gpu_asked,"
        " gpu_billed, gpu_seen, nanodollars_per_s, low, typical, high, worst, window_s, prompts, is_idle_final,"
        " billing, outputs, is_cached)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?, 0, '', 0, 0)",
        (
            *(entry.run_id, entry.created_at, entry.kind, entry.target, entry.status, entry.workflow),
            *(entry.fingerprint, entry.tag, entry.gpu_asked, entry.gpu_asked, entry.nanodollars_per_s),
            *(expected.low, expected.typical, expected.high, expected.worst, entry.window_s, entry.prompts),
        ),
    )


def settle(
    connection: sqlite3.Connection,
    run_id: str,
    *,
    status: str,
    ended_at: float,
    cost: int | None,
    seen: Measured | None,
) -> None:
    """Note the end of a run, and the gap before and after it in its container. A second one replaces the first."""
    connection.execute(
        "UPDATE costs SET status = ?, ended_at = ?,"
        " measured = coalesce(?, measured, CASE WHEN target = 'local' THEN 0 END),"
        " idle = CASE WHEN target = 'local' THEN 0 ELSE idle END WHERE run_id = ?",
        (status, ended_at, cost, run_id),
    )
    if seen is None:
        return
    connection.execute(
        "UPDATE costs SET container = ?, began_at = ?, ended_at = ?, queue_s = ?, start_s = ?, load_s = ?, run_s = ?,"
        " lost_s = ?, gpu_seen = ?, gpu_billed = CASE WHEN ? = '' THEN gpu_billed ELSE ? END, outputs = max(outputs, ?)"
        " WHERE run_id = ?",
        (
            *(seen.container, seen.began_at, seen.ended_at, seen.queue_s, seen.start_s, seen.load_s, seen.run_s),
            *(seen.lost_s, seen.gpu_seen, seen.gpu_billed, seen.gpu_billed, seen.outputs, run_id),
        ),
    )
    if seen.nanodollars_per_s is not None:
        connection.execute("UPDATE costs SET nanodollars_per_s = ? WHERE run_id = ?", (seen.nanodollars_per_s, run_id))
    if seen.container:
        note_gaps(connection, seen.container, seen.began_at)


def note_render(connection: sqlite3.Connection, run_id: str, result: Mapping[str, Any]) -> None:
    """What of a render's result says whether, and on which GPU, the next one will be alike."""
    engine = result.get("engine")
    peak = engine.get("peak_vram_bytes") if isinstance(engine, Mapping) else None
    connection.execute(
        "UPDATE costs SET is_cached = ?, peak_vram_bytes = coalesce(?, peak_vram_bytes) WHERE run_id = ?",
        (int(bool(result.get("is_cached"))), peak if isinstance(peak, int) else None, run_id),
    )


def note_gaps(connection: sqlite3.Connection, container: str, began_at: float) -> None:
    """Until the next run in the same container, the one before it is idle; after the last one it is for the window.

    Both at most: a container that is kept up longer is not kept for that run.
    """
    before = "SELECT max(began_at) FROM costs WHERE container = ? AND began_at < ?"
    since = connection.execute(before, (container, began_at)).fetchone()[0]
    rows = connection.execute(
        "SELECT run_id, ended_at, coalesce(window_s, 0), nanodollars_per_s,"
        " lead(began_at) OVER (ORDER BY began_at, run_id), is_idle_final FROM costs"
        " WHERE container = ? AND began_at >= ? ORDER BY began_at, run_id LIMIT 2",
        (container, began_at if since is None else since),
    ).fetchall()
    for run_id, ended_at, window_s, per_s, next_at, is_final in rows:
        if next_at is None and is_final:
            continue
        idle_s = window_s if next_at is None else min(window_s, max(0.0, next_at - ended_at))
        set_idle(connection, run_id, idle_s, per_s, is_final=next_at is not None)


def end_containers(connection: sqlite3.Connection, at: float) -> None:
    """Every container was ended then: none stays idle any longer."""
    rows = connection.execute(
        "SELECT run_id, ended_at, idle_s, nanodollars_per_s FROM costs"
        " WHERE is_idle_final = 0 AND idle_s IS NOT NULL AND container IS NOT NULL"
    ).fetchall()
    for run_id, ended_at, idle_s, per_s in rows:
        set_idle(connection, run_id, min(idle_s, max(0.0, at - ended_at)), per_s, is_final=True)


def set_idle(connection: sqlite3.Connection, run_id: str, idle_s: float, per_s: int | None, *, is_final: bool) -> None:
    connection.execute(
        "UPDATE costs SET idle_s = ?, idle = ?, is_idle_final = ? WHERE run_id = ?",
        (idle_s, None if per_s is None else cost_of_seconds(per_s, idle_s), int(is_final), run_id),
    )


def committed(connection: sqlite3.Connection, limit: Limit) -> tuple[int, int]:
    """What was spent on runs that count against a budget, and what is set aside for all that have not ended."""
    of_tag, values = ("", ()) if limit.tag is None else (" AND tag = ?", (limit.tag,))
    spent = connection.execute(
        f"SELECT coalesce(sum({COMMITTED}), 0) FROM costs WHERE created_at >= ?{of_tag}"
        " AND run_id NOT IN (SELECT run_id FROM reservations)",
        (limit.since, *values),
    ).fetchone()[0]
    aside = connection.execute(
        "SELECT coalesce(sum(nanodollars), 0) FROM reservations"
        + ("" if limit.tag is None else " WHERE run_id IN (SELECT run_id FROM costs WHERE tag = ?)"),
        values,
    ).fetchone()[0]
    return int(spent), int(aside)


def left(connection: sqlite3.Connection, limit: Limit) -> int:
    """Nanodollars of a budget that nothing was spent on or set aside of; below 0 when it is exceeded."""
    return limit.nanodollars - sum(committed(connection, limit))
