"""The two databases of the stand-in: what steers it, and what it writes its losses to."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

WRITE_EVERY_S = 0.25


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
    """WAL; written four times a second, and what is not written yet is lost with a process that ends otherwise."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON;"
            "CREATE TABLE IF NOT EXISTS steps(step INTEGER PRIMARY KEY, wall_time REAL NOT NULL);"
            "CREATE TABLE IF NOT EXISTS metric_keys(key TEXT PRIMARY KEY, first_seen_step INTEGER,"
            " last_seen_step INTEGER);"
            "CREATE TABLE IF NOT EXISTS metrics(step INTEGER NOT NULL, key TEXT NOT NULL, value_real REAL,"
            " value_text TEXT, PRIMARY KEY(step, key),"
            " FOREIGN KEY(step) REFERENCES steps(step) ON DELETE CASCADE);"
            "CREATE INDEX IF NOT EXISTS idx_metrics_key_step ON metrics(key, step);"
        )
        self._pending: list[tuple[int, str, float]] = []
        self._written_at = time.monotonic()
        self._is_pruned = False

    def add(self, step: int, loss: float, lr: float) -> None:
        if not self._is_pruned:
            # Of an attempt that came further; `metrics` follows.
            with self._database:
                self._database.execute("DELETE FROM steps WHERE step > ?", (step,))
            self._is_pruned = True
        self._pending += [(step, "learning_rate", lr), (step, "loss/loss", loss)]
        if time.monotonic() - self._written_at >= WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        with self._database:
            for step, key, value in self._pending:
                self._database.execute("INSERT OR IGNORE INTO steps VALUES (?, ?)", (step, time.time()))
                self._database.execute("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, NULL)", (step, key, value))
                self._database.execute(
                    "INSERT INTO metric_keys VALUES (?, ?, ?) ON CONFLICT(key) DO UPDATE SET last_seen_step = ?",
                    (key, step, step, step),
                )
        self._pending.clear()
        self._written_at = time.monotonic()

    def close(self) -> None:
        self.write()
        self._database.close()
