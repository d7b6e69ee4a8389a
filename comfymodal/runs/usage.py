"""What was used of each GPU of Modal, from the ledger's narrow rows: hours, money, and when. Only reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from comfymodal.costs.compare import Session
from comfymodal.runs.spending import ACTIVE, SOONEST, SPENT

_ENDED = f"target = 'modal' AND gpu_billed <> '' AND status NOT IN {ACTIVE}"
_KNOWN = f"{SPENT} IS NOT NULL AND run_s IS NOT NULL AND began_at IS NOT NULL AND ended_at IS NOT NULL"

# Model loading is a part of run_s. Without a container's id nobody knows the gap after a run, nor was it priced.
_ROWS = (
    "SELECT gpu_billed, began_at - coalesce(start_s, 0), ended_at,"
    " coalesce(start_s, 0) + run_s + coalesce(lost_s, 0) + coalesce(idle_s, 0),"
    f" CASE WHEN status = 'succeeded' THEN run_s ELSE 0 END, {SPENT}"
    f" FROM costs WHERE created_at >= ? AND {_ENDED} AND {_KNOWN} ORDER BY 2"
)
_UNKNOWN = (
    f"SELECT gpu_billed, count(*) FROM costs WHERE created_at >= ? AND {_ENDED} AND NOT ({_KNOWN}) GROUP BY gpu_billed"
)

_Row = tuple[str, float, float, float, float, int]


@dataclass(slots=True)
class GpuUsage:
    """Of one label of `gpu_billed`. Seconds: `useful_s` of runs that succeeded, `paid_s` with all that is paid beside.

    `unknown` runs are in no sum: what they cost or how long they took is not known.
    """

    gpu: str
    runs: int = 0
    useful_s: float = 0.0
    paid_s: float = 0.0
    nanodollars: int = 0
    unknown: int = 0
    sessions: list[Session] = field(default_factory=list)
    _began: float = 0.0
    _ended: float = 0.0

    def add(self, row: _Row, gap_s: float) -> None:
        """Rows come in the order of their beginning."""
        _, began, ended, paid_s, useful_s, nanodollars = row
        if not self.sessions or began - self._ended >= gap_s:
            self.sessions.append(Session(0.0, 0.0))
            self._began = self._ended = began
        self._ended = max(self._ended, ended)
        useful_h = self.sessions[-1].useful_h + useful_s / 3600
        self.sessions[-1] = Session((self._ended - self._began) / 3600, useful_h)
        self.runs += 1
        self.useful_s += useful_s
        self.paid_s += paid_s
        self.nanodollars += nanodollars


def gpu_usage(connection: sqlite3.Connection, since: float, gap_s: float) -> list[GpuUsage]:
    """What runs created from then on used of each GPU, the dearest first; a gap so long ends a session.

    Rows are read one by one: a million of them needs no more memory than one.
    """
    found: dict[str, GpuUsage] = {}
    rows: Iterable[_Row] = (tuple(row) for row in connection.execute(_ROWS, (since,)))
    for row in rows:
        found.setdefault(row[0], GpuUsage(row[0])).add(row, gap_s)
    for gpu, unknown in connection.execute(_UNKNOWN, (since,)):
        found.setdefault(gpu, GpuUsage(gpu)).unknown = unknown
    return sorted(found.values(), key=lambda usage: -usage.nanodollars)


def first_use(connection: sqlite3.Connection) -> float | None:
    """When the first run on a GPU of Modal was submitted of which all is known: sums begin there."""
    asked = f"SELECT min(created_at) FROM costs WHERE {_ENDED} AND {_KNOWN} AND created_at >= ?"
    found = connection.execute(asked, (SOONEST,)).fetchone()[0]
    return None if found is None else float(found)
