"""Rows of the ledger's table `costs`, as runs leave them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from comfymodal.runs.spending import TABLES


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
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'costs'").fetchone():
        connection.executescript(TABLES)
    connection.execute("BEGIN")
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO costs ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    connection.execute("COMMIT")
    return connection
