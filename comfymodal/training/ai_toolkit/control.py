"""ai-toolkit's control database: what it does now comes out, `save` and `stop` go in.

Its web interface drives it so; a `diffusion_trainer` looks at it after every step when `sqlite_db_path` exists and
`AITK_JOB_ID` names a row. On a local disk only: SQLite and network file systems do not go together.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BUSY_S = 5.0
"""How long the other side may hold the database; it writes one row at a time."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS Job(
    id TEXT PRIMARY KEY, stop INTEGER DEFAULT 0, return_to_queue INTEGER DEFAULT 0, save_now INTEGER DEFAULT 0,
    sample_now INTEGER DEFAULT 0, status TEXT DEFAULT 'queued', info TEXT DEFAULT '', step INTEGER DEFAULT 0,
    speed_string TEXT DEFAULT '')
"""


@dataclass(frozen=True, slots=True)
class JobState:
    """`status`: queued, running, stopped, error or completed; `info` is a sentence; `speed` e.g. `10.65 iter/sec`."""

    status: str
    info: str
    step: int
    speed: str
    is_save_pending: bool


@dataclass(frozen=True, slots=True)
class ControlDatabase:
    path: Path
    job_id: str

    def create(self) -> None:
        """Make it with one job in it, or the job as new. Raises `sqlite3.Error`."""
        with self._open("rwc") as database:
            database.execute(_SCHEMA)
            database.execute("INSERT OR REPLACE INTO Job(id) VALUES (?)", (self.job_id,))

    def read(self) -> JobState | None:
        """None when it cannot be read just now."""
        try:
            with self._open("ro") as database:
                row = database.execute(
                    "SELECT status, info, step, speed_string, save_now FROM Job WHERE id = ?", (self.job_id,)
                ).fetchone()
        except sqlite3.Error:
            return None
        if row is None:
            return None
        status, info, step, speed, save_now = row
        return JobState(str(status or ""), str(info or ""), int(step or 0), str(speed or ""), bool(save_now))

    def ask_save(self) -> None:
        """After the step it is at. Raises `sqlite3.Error`."""
        self._set("save_now")

    def ask_stop(self) -> None:
        """After the step it is at, without saving: a save that was asked for and has not ended is skipped.

        Raises `sqlite3.Error`.
        """
        self._set("stop")

    def _set(self, column: str) -> None:
        with self._open("rw") as database:
            database.execute(f"UPDATE Job SET {column} = 1 WHERE id = ?", (self.job_id,))

    @contextlib.contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_S)
        try:
            with database:
                yield database
        finally:
            database.close()
