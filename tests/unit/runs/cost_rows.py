"""Rows of the ledger's table `costs`, as runs leave them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TABLE = """
CREATE TABLE IF NOT EXISTS costs (run_id TEXT PRIMARY KEY, created_at REAL NOT NULL, kind TEXT NOT NULL,
  target TEXT NOT NULL, status TEXT NOT NULL, workflow TEXT NOT NULL, fingerprint TEXT NOT NULL, tag TEXT NOT NULL,
  gpu_asked TEXT NOT NULL, gpu_billed TEXT NOT NULL, gpu_seen TEXT NOT NULL, nanodollars_per_s INTEGER, low INTEGER,
  typical INTEGER, high INTEGER, worst INTEGER, container TEXT, began_at REAL, ended_at REAL, queue_s REAL,
  start_s REAL, load_s REAL, run_s REAL, lost_s REAL, idle_s REAL, is_idle_final INTEGER NOT NULL, measured INTEGER,
  idle INTEGER, billed INTEGER, billing TEXT NOT NULL, outputs INTEGER NOT NULL) STRICT
"""


def cost_row(began_at: float, **more: Any) -> dict[str, Any]:
    """A render of ten minutes that started its container, which was idle for a minute after it."""
    return {
        "run_id": f"r{began_at:.0f}",
        "created_at": began_at - 60,
        "kind": "render",
        "target": "modal",
        "status": "succeeded",
        "workflow": "workflow.json",
        "fingerprint": "",
        "tag": "",
        "gpu_asked": "L40S",
        "gpu_billed": "L40S",
        "gpu_seen": "",
        "nanodollars_per_s": 1_000_000,
        "container": "ta-1",
        "began_at": began_at,
        "ended_at": began_at + 600,
        "queue_s": 1.0,
        "start_s": 50.0,
        "load_s": 20.0,
        "run_s": 600.0,
        "lost_s": 0.0,
        "idle_s": 60.0,
        "is_idle_final": 1,
        "measured": 650_000_000,
        "idle": 60_000_000,
        "billed": None,
        "billing": "",
        "outputs": 1,
        **more,
    }


def write_costs(path: Path | str, rows: Iterable[dict[str, Any]]) -> sqlite3.Connection:
    """Put rows into a ledger, or a file or memory that has no more than this table."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(TABLE)
    connection.execute("BEGIN")
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO costs ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    connection.execute("COMMIT")
    return connection
