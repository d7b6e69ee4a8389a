"""ai-toolkit's loss log: every step's loss in full, where its progress bar shows four digits.

A SQLite database in WAL mode beside the checkpoints, written twice a second; read where it is, never through a volume.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOSS_KEY = "loss/loss"
VALIDATION_KEY = "val/loss"
"""Only where `train.validation_config` asks for it, each so many steps."""

BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class Loss:
    step: int
    value: float


def read_losses(path: Path, *, after: int = -1, key: str = LOSS_KEY) -> tuple[Loss, ...]:
    """What was logged of steps beyond `after`, in order; empty while there is no log. Step 0 never is in it."""
    try:
        with _open(path) as database:
            rows = database.execute(
                "SELECT step, value_real FROM metrics WHERE key = ? AND step > ? AND value_real IS NOT NULL "
                "ORDER BY step",
                (key, after),
            ).fetchall()
    except sqlite3.Error:
        return ()
    return tuple(Loss(int(step), float(value)) for step, value in rows)


def copy_log(path: Path, target: Path, *, until: int | None = None) -> bool:
    """Copy the log as it is this moment, or its steps up to `until`: a plain copy would miss what is in the WAL. False
    when there is none.

    Raises `OSError` when `target` cannot be written.
    """
    target.unlink(missing_ok=True)
    try:
        with _open(path) as source, contextlib.closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            if until is not None:
                for table in ("metrics", "steps"):
                    copy.execute(f"DELETE FROM {table} WHERE step > ?", (until,))
                copy.commit()
            # The copy lies on a volume, for readers of one file.
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error:
        target.unlink(missing_ok=True)
        return False
    return True


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)
    try:
        yield database
    finally:
        database.close()
