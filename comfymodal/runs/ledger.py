"""The ledger: every run of a project, in SQLite under the user's state folder; survives a cleaned checkout.

Money is integer nanodollars. Times are Unix seconds.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from comfymodal.costs.budget import Limit
from comfymodal.costs.measure import Measured
from comfymodal.errors import NotFoundError, NotReadyError
from comfymodal.runs import bills, history, spending
from comfymodal.runs.bills import CallSpan, Paid
from comfymodal.runs.history import Sample
from comfymodal.runs.spending import ACTIVE, CostEntry, Expected
from comfymodal.runs.usage import GpuUsage, first_use, gpu_usage

SCHEMA_VERSION = 3

_MIGRATIONS = (
    """
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
CREATE INDEX runs_by_time ON runs (created_at DESC)
""",
    """
ALTER TABLE runs ADD COLUMN cost_nanodollars INTEGER;
ALTER TABLE runs ADD COLUMN rate TEXT;
CREATE TABLE reservations (
  run_id TEXT PRIMARY KEY,
  nanodollars INTEGER NOT NULL,
  created_at REAL NOT NULL
) STRICT
""",
    spending.SCHEMA,
)
"""Statements that lead from each version to the next. A new file goes the same way, so both ways end alike."""

_PATIENCE_S = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """A row. `request` holds what is needed to submit and to collect it again, `result` what came of it.

    `rate` is what its container was priced by: `{gpu, nanodollars_per_s, as_of}`. None, as a cost of None: not known,
    or nothing is paid there.
    """

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
    cost_nanodollars: int | None = None
    rate: Mapping[str, Any] | None = None

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE


class Ledger:
    """One project's runs. Any number of processes may use the same file."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises `NotReadyError` when it cannot be used."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another command may hold the write lock for a moment.
            self._connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            with contextlib.ExitStack() as opening:
                opening.callback(self.close)
                self._use_wal()
                self._migrate(path)
                opening.pop_all()
        except (OSError, sqlite3.Error) as exc:
            raise _trouble("use", path, exc) from exc

    def _use_wal(self) -> None:
        # SQLite does not wait for others here, whatever the timeout: of many that open a new file at once some fail.
        give_up_at = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as exc:
                if "locked" not in str(exc) or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        self._connection.close()

    def add(
        self, run: Run, reserve: int | None = None, *, expected: Expected | None = None, limits: Sequence[Limit] = ()
    ) -> Limit | None:
        """Enter a run and, at once with it, set `reserve` aside: the most that it may cost.

        Of `limits` the first that does not hold so much is returned, and then nothing is entered.
        """
        with self._writing() as connection:
            for limit in limits:
                if spending.left(connection, limit) < (reserve or 0):
                    return limit
            connection.execute(
                "INSERT INTO runs (id, kind, target, status, title, created_at, ended_at, call_id, again_of, request,"
                " result, cost_nanodollars, rate) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(run.id, run.kind, run.target, run.status, _text(run.title), run.created_at),
                    *(run.ended_at, run.call_id, run.again_of),
                    *(json.dumps(run.request), _json(run.result), run.cost_nanodollars, _json(run.rate)),
                ),
            )
            spending.enter(connection, _entry(run, expected or Expected(worst=reserve)))
            if reserve is not None:
                connection.execute("INSERT INTO reservations VALUES (?, ?, ?)", (run.id, reserve, run.created_at))
        return None

    def note_call(self, run_id: str, call_id: str) -> None:
        """The job was taken: remember by which id it can be found."""
        with self._writing() as connection:
            connection.execute("UPDATE runs SET call_id = ?, status = 'running' WHERE id = ?", (call_id, run_id))
            connection.execute("UPDATE costs SET status = 'running' WHERE run_id = ?", (run_id,))

    def settle(
        self,
        run_id: str,
        *,
        status: str,
        ended_at: float,
        result: Mapping[str, Any],
        cost_nanodollars: int | None = None,
        measured: Measured | None = None,
    ) -> None:
        """Note how the run ended, and free what was reserved for it.

        A later settlement (after `runs fetch`) replaces an earlier one; a cost once known stays when it brings none.
        """
        with self._writing() as connection:
            connection.execute(
                "UPDATE runs SET status = ?, ended_at = ?, result = ?,"
                " cost_nanodollars = coalesce(?, cost_nanodollars) WHERE id = ?",
                (status, ended_at, json.dumps(result), cost_nanodollars, run_id),
            )
            spending.settle(connection, run_id, status=status, ended_at=ended_at, cost=cost_nanodollars, seen=measured)
            spending.note_render(connection, run_id, result)
            connection.execute("DELETE FROM reservations WHERE run_id = ?", (run_id,))

    def tell_once(self, run_id: str, event: str) -> bool:
        """Whether nobody has told of this yet; the one who hears so tells it. Of a budget, `run_id` is a name of it."""
        with self._writing() as connection:
            done = connection.execute("INSERT OR IGNORE INTO notified VALUES (?, ?)", (_text(run_id), event))
            return done.rowcount == 1

    def reserved(self) -> int:
        """Nanodollars set aside for runs that have not ended."""
        return int(self._values("SELECT coalesce(sum(nanodollars), 0) FROM reservations")[0])

    def with_reservation(self) -> list[Run]:
        """Runs that something is set aside for, the newest first."""
        return self._rows("WHERE id IN (SELECT run_id FROM reservations) ORDER BY created_at DESC, id DESC", ())

    def spent(self, since: float) -> int:
        """Nanodollars that runs created from then on came to, as far as it is known."""
        query = f"SELECT coalesce(sum({spending.SPENT}), 0) FROM costs WHERE created_at >= ?"
        return int(self._values(query, (since,))[0])

    def left(self, limit: Limit) -> int:
        """Nanodollars of a budget that are neither spent nor set aside; what is not known counts as its worst."""
        return self._asked(spending.left, limit)

    def committed(self, limit: Limit) -> tuple[int, int]:
        """Nanodollars of a budget that were spent, and that are set aside."""
        return self._asked(spending.committed, limit)

    def paid_since(self, since: float) -> list[Paid]:
        """When runs that were created from then on were paid for; see `runs.bills`, as for the next four."""
        return self._asked(bills.paid_since, since)

    def measured_since(self, since: float) -> int:
        return self._asked(bills.measured_since, since)

    def note_bills(self, found: Mapping[str, tuple[int | None, str]]) -> None:
        with self._writing() as connection:
            bills.note_bills(connection, found)

    def note_calls(self, spans: Mapping[str, CallSpan]) -> None:
        with self._writing() as connection:
            bills.note_calls(connection, spans)

    def note_next_calls(self, starts: Mapping[str, Sequence[float]], *, now: float) -> None:
        with self._writing() as connection:
            bills.note_next_calls(connection, starts, now=now)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Several questions of one state: what others write meanwhile is not seen. Raises `NotReadyError`."""
        try:
            self._connection.execute("BEGIN")
            yield self._connection
        except sqlite3.Error as exc:
            raise _trouble("read", self._path, exc) from exc
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def end_containers(self, at: float) -> None:
        """Every container of the project was ended then: none costs anything for being idle any longer."""
        with self._writing() as connection:
            spending.end_containers(connection, at)

    def usage(self, since: float, *, gap_s: float) -> tuple[list[GpuUsage], float | None]:
        """What was used of each GPU of Modal from then on, and when its first known run was. See `runs.usage`."""
        return self._asked(gpu_usage, since, gap_s), self._asked(first_use)

    def history(self, fingerprint: str) -> list[Sample]:
        """What the newest runs of this workflow took on each GPU; see `runs.history`, as for the next six."""
        return self._asked(history.of_workflow, fingerprint)

    def history_of(self, kind: str, title: str, target: str) -> list[Sample]:
        return self._asked(history.of_title, kind, title, target)

    def start_ups(self, kind: str, gpus: Sequence[str]) -> list[float]:
        return self._asked(history.start_ups, kind, gpus)

    def peak_vram(self, fingerprint: str) -> int | None:
        return self._asked(history.peak_vram, fingerprint)

    def output_bytes(self, fingerprint: str) -> list[float]:
        return self._asked(history.output_bytes, fingerprint)

    def step_times(self) -> list[tuple[dict[str, Any], str, float]]:
        return self._asked(history.step_times)

    def copy_speeds(self, title: str, target: str) -> list[float]:
        return self._asked(history.copy_speeds, _text(title), target)

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
        return [
            Run(
                **{
                    **row,
                    "request": json.loads(row["request"]),
                    "result": json.loads(row["result"] or "null"),
                    "rate": json.loads(row["rate"] or "null"),
                }
            )
            for row in self._read(f"SELECT * FROM runs {clause}", values)
        ]

    def _values(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return [row[0] for row in self._read(query, values)]

    def _asked(self, ask: Callable[..., T], *of: object) -> T:
        try:
            return ask(self._connection, *of)
        except sqlite3.Error as exc:
            raise _trouble("read", self._path, exc) from exc

    def _read(self, query: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as exc:
            raise _trouble("read", self._path, exc) from exc

    def _migrate(self, path: Path) -> None:
        with self._writing() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise NotReadyError(
                    f"the ledger {path} was written by a newer comfymodal", hint="upgrade: pip install -U comfymodal"
                )
            if version == SCHEMA_VERSION:
                return
            for script in _MIGRATIONS[version:]:
                for statement in script.strip().split(";\n"):
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
            raise _trouble("write to", self._path, exc) from exc
        finally:
            # A full disk rolls back by itself.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _trouble(doing: str, path: Path, exc: OSError | sqlite3.Error) -> NotReadyError:
    code = getattr(exc, "sqlite_errorcode", None)
    # Less its extended part: SQLite tells which reading or writing failed.
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        hint = (
            "it is damaged: move it, and what else begins with its name, elsewhere, and the next command starts an "
            f"empty one; what can be read of it: sqlite3 {path.name} .recover"
        )
    elif code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        hint = "is its disk full?"
    elif doing == "read":
        hint = "did another program change it?"
    else:
        hint = "is its folder writable?"
    return NotReadyError(f"cannot {doing} the ledger {path}: {exc}", hint=hint)


def _entry(run: Run, expected: Expected) -> CostEntry:
    rate, job = run.rate or {}, run.request.get("job") or {}
    return CostEntry(
        run_id=run.id,
        created_at=run.created_at,
        kind=run.kind,
        target=run.target,
        status=run.status,
        workflow=_text(run.title),
        fingerprint=str((run.request.get("workflow") or {}).get("sha256") or ""),
        tag=str((job.get("origin") or {}).get("tag") or ""),
        gpu_asked=str(rate.get("gpu") or ""),
        nanodollars_per_s=rate.get("nanodollars_per_s"),
        window_s=float(rate.get("window_s") or 0),
        prompts=max(1, len(job.get("prompts") or ())),
        expected=expected,
    )


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _text(text: str) -> str:
    # A file name that is no valid Unicode cannot be stored as it is.
    return text.encode("utf-8", "backslashreplace").decode()
