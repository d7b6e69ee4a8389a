"""The ledger: every run of a project, in SQLite under the user's state folder; survives a cleaned checkout.

Money, when it comes, is integer nanodollars. Times are Unix seconds.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.errors import NotFoundError, NotReadyError

SCHEMA_VERSION = 1

ACTIVE = ("submitting", "running")
"""Statuses of a run that may still change without anybody's doing."""

_SCHEMA = """
CREATE TABLE runs (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  target TEXT NOT NULL,
  status TEXT NOT NULL,
  title TEXT NOT NULL,
  created_at REAL NOT NULL,
  ended_at REAL,
  call_id TEXT,
  again_of TEXT,
  request TEXT NOT NULL,
  result TEXT
) STRICT;
CREATE INDEX runs_by_time ON runs (created_at DESC);
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A row. `request` holds what is needed to submit and to collect it again, `result` what came of it."""

    id: str
    kind: str
    target: str
    status: str
    title: str
    created_at: float
    ended_at: float | None
    call_id: str | None
    again_of: str | None
    request: Mapping[str, Any]
    result: Mapping[str, Any] | None

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE


class Ledger:
    """One project's runs. Any number of processes may use the same file."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises `NotReadyError` when it cannot be used."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another command may hold the write lock for a moment.
            self._connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            with contextlib.ExitStack() as opening:
                opening.callback(self.close)
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._migrate(path)
                opening.pop_all()
        except (OSError, sqlite3.Error) as exc:
            raise NotReadyError(f"cannot use the ledger {path}: {exc}", hint="is its folder writable?") from exc

    def close(self) -> None:
        self._connection.close()

    def add(self, run: Run) -> None:
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(run.id, run.kind, run.target, run.status, _text(run.title), run.created_at),
                    *(run.ended_at, run.call_id, run.again_of),
                    json.dumps(run.request),
                    None if run.result is None else json.dumps(run.result),
                ),
            )

    def note_call(self, run_id: str, call_id: str) -> None:
        """The job was taken: remember by which id it can be found."""
        with self._writing() as connection:
            connection.execute("UPDATE runs SET call_id = ?, status = 'running' WHERE id = ?", (call_id, run_id))

    def settle(self, run_id: str, *, status: str, ended_at: float, result: Mapping[str, Any]) -> None:
        """Note how the run ended; a later settlement (after `runs fetch`) replaces an earlier one."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE runs SET status = ?, ended_at = ?, result = ? WHERE id = ?",
                (status, ended_at, json.dumps(result), run_id),
            )

    def get(self, name: str) -> Run:
        """The run with this id, with the only id that begins so, or the newest for `last`. Raises `NotFoundError`."""
        if name == "last":
            rows = self.newest(limit=1)
        else:
            name = _text(name)
            pattern = name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            rows = self._rows("WHERE id LIKE ? ESCAPE '\\' ORDER BY id = ? DESC, id DESC LIMIT 3", (pattern, name))
        if not rows:
            raise NotFoundError(f"no run {name!r} in this project", hint="list them: comfymodal runs list")
        if len(rows) > 1 and rows[0].id != name:
            ids = ", ".join(row.id for row in rows)
            raise NotFoundError(f"{name!r} is the beginning of several runs: {ids}", hint="give more of the id")
        return rows[0]

    def newest(self, *, limit: int) -> list[Run]:
        """Runs, the newest first."""
        return self._rows("ORDER BY created_at DESC, id DESC LIMIT ?", (limit,))

    def _rows(self, clause: str, values: Sequence[Any]) -> list[Run]:
        try:
            rows = self._connection.execute(f"SELECT * FROM runs {clause}", values).fetchall()
        except sqlite3.Error as exc:
            raise NotReadyError(f"cannot read the ledger: {exc}") from exc
        return [
            Run(**{**row, "request": json.loads(row["request"]), "result": json.loads(row["result"] or "null")})
            for row in rows
        ]

    def _migrate(self, path: Path) -> None:
        with self._writing() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise NotReadyError(
                    f"the ledger {path} was written by a newer comfymodal", hint="upgrade: pip install -U comfymodal"
                )
            if version == 0:
                for statement in _SCHEMA.strip().split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE takes the write lock before reading, so two processes never decide on the same state.
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.Error as exc:
            raise NotReadyError(f"cannot write to the ledger: {exc}", hint="is its disk full, or read-only?") from exc
        finally:
            # A full disk rolls back by itself.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _text(text: str) -> str:
    # A file name that is no valid Unicode cannot be stored as it is.
    return text.encode("utf-8", "backslashreplace").decode()
