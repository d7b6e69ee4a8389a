"""Rows of the table `costs`, put there directly."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from comfymodal.runs.ledger import Ledger
from comfymodal.runs.spending import TABLES

DAY_S = 86400
NOON = 20_000 * DAY_S + DAY_S // 2
"""2024-10-04, 12:00 UTC."""

ROW: dict[str, Any] = {
    "run_id": "r-0",
    "created_at": float(NOON),
    "kind": "render",
    "target": "modal",
    "status": "succeeded",
    "workflow": "cat.json",
    "fingerprint": "f",
    "tag": "",
    "gpu_asked": "L40S",
    "gpu_billed": "L40S",
    "gpu_seen": "NVIDIA L40S",
    "nanodollars_per_s": 665_440,
    "low": None,
    "typical": 50_000_000,
    "high": None,
    "worst": 900_000_000,
    "container": "ta-1",
    "began_at": NOON + 5.0,
    "ended_at": NOON + 40.0,
    "queue_s": 5.0,
    "start_s": 20.0,
    "load_s": 3.0,
    "run_s": 15.0,
    "lost_s": 0.0,
    "window_s": 60.0,
    "idle_s": 12.0,
    "is_idle_final": 1,
    "measured": 40_000_000,
    "idle": 8_000_000,
    "billed": None,
    "billing": "",
    "outputs": 2,
}


def fill(path: Path, rows: Iterable[Mapping[str, Any]], reserved: Mapping[str, int] | None = None) -> None:
    """Create the ledger if need be, and add rows; what a row leaves out is as in `ROW`."""
    Ledger(path).close()
    connection = sqlite3.connect(path)
    with connection:
        marks = ", ".join(f":{name}" for name in ROW)
        connection.executemany(
            f"INSERT INTO costs ({', '.join(ROW)}) VALUES ({marks})", [{**ROW, **row} for row in rows]
        )
        connection.executemany("INSERT INTO reservations VALUES (?, ?, 0.0)", (reserved or {}).items())
    connection.close()


def cost_row(began_at: float, **more: Any) -> dict[str, Any]:
    """A render of ten minutes that started its container, which was idle for a minute after it."""
    changed = {
        **{"run_id": f"r{began_at:.0f}", "created_at": began_at - 60, "workflow": "workflow.json", "fingerprint": ""},
        **{"gpu_seen": "", "nanodollars_per_s": 1_000_000, "began_at": began_at, "ended_at": began_at + 600},
        **{"queue_s": 1.0, "start_s": 50.0, "load_s": 20.0, "run_s": 600.0, "idle_s": 60.0},
        **{"measured": 650_000_000, "idle": 60_000_000, "outputs": 1},
    }
    return {**ROW, **changed, **more}


def write_costs(path: Path | str, rows: Iterable[dict[str, Any]]) -> sqlite3.Connection:
    """Put rows into a ledger, or a file or memory that has no more than this table."""
    connection = sqlite3.connect(path, isolation_level=None)
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'costs'").fetchone():
        connection.executescript(TABLES)
    connection.execute("BEGIN")
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO costs ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    connection.execute("COMMIT")
    return connection
