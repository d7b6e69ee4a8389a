"""Rows of the table `costs`, put there directly."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from comfymodal.runs.ledger import Ledger

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
