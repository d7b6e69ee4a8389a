"""The two databases of the stand-in: what steers it, and what it writes its losses to."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path


class Control:
    """Takes part only when there is a database and a job in it, as a `diffusion_trainer` does."""

    def __init__(self, path: str | None, *, is_off: bool) -> None:
        self._path = path or "./aitk_db.db"
        self._job_id = os.environ.get("AITK_JOB_ID", "")
        self.is_on = not is_off and bool(self._job_id) and Path(self._path).is_file()

    def tell(self, **values: object) -> None:
        if not self.is_on:
            return
        names = ", ".join(f"{name} = ?" for name in values)
        with self._open() as database:
            database.execute(f"UPDATE Job SET {names} WHERE id = ?", (*values.values(), self._job_id))

    def is_asked(self, column: str) -> bool:
        if not self.is_on:
            return False
        with self._open() as database:
            row = database.execute(f"SELECT {column} FROM Job WHERE id = ?", (self._job_id,)).fetchone()
        return bool(row and row[0])

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=10.0)
        try:
            with database:
                yield database
        finally:
            database.close()


class LossLog:
    """WAL, left as it is when the process is killed."""

    def __init__(self, path: Path, *, first_step: int) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.executescript(
            "CREATE TABLE IF NOT EXISTS steps(step INTEGER PRIMARY KEY, wall_time REAL);"
            "CREATE TABLE IF NOT EXISTS metrics(step INTEGER, key TEXT, value_real REAL, value_text TEXT,"
            " PRIMARY KEY(step, key));"
            "CREATE TABLE IF NOT EXISTS metric_keys(key TEXT PRIMARY KEY);"
        )
        for table in ("steps", "metrics"):
            self._database.execute(f"DELETE FROM {table} WHERE step > ?", (first_step,))
        self._database.commit()

    def add(self, step: int, loss: float, lr: float) -> None:
        if step == 0:
            return
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO steps VALUES (?, ?)", (step, time.time()))
            for key, value in (("loss/loss", loss), ("learning_rate", lr)):
                self._database.execute("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, NULL)", (step, key, value))

    def close(self) -> None:
        self._database.close()
