from __future__ import annotations

import json
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import NotReadyError
from comfymodal.runs.ledger import SCHEMA_VERSION, Ledger, Run
from tests.unit.runs.test_ledger import RUN

RATE = {"gpu": "L40S", "nanodollars_per_s": 665_440, "as_of": "2026-10-07"}

VERSION_1 = """
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
PRAGMA user_version = 1;
"""
"""As comfymodal wrote it before there was money in it."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def write_version_1(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(VERSION_1)
    for run_id, status, result in (("old-1", "succeeded", {"outputs": [1]}), ("old-2", "running", None)):
        connection.execute(
            "INSERT INTO runs VALUES (?, 'render', 'local', ?, 'workflow.json', 5.0, NULL, '12@3.5', NULL, ?, ?)",
            (run_id, status, json.dumps({"job": {}}), None if result is None else json.dumps(result)),
        )
    connection.close()


def shape(path: Path) -> tuple[int, dict[str, list[Any]]]:
    connection = sqlite3.connect(path)
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
    columns = {table: connection.execute(f"PRAGMA table_xinfo({table})").fetchall() for table in tables}
    connection.close()
    return version, columns


def test_a_ledger_of_version_1_is_brought_to_what_a_new_one_is(tmp_path: Path) -> None:
    write_version_1(tmp_path / "old.sqlite")
    Ledger(tmp_path / "old.sqlite").close()
    Ledger(tmp_path / "new.sqlite").close()
    assert shape(tmp_path / "old.sqlite") == shape(tmp_path / "new.sqlite")
    assert shape(tmp_path / "old.sqlite")[0] == SCHEMA_VERSION == 3


def test_runs_of_version_1_are_as_they_were_and_go_on(tmp_path: Path) -> None:
    write_version_1(tmp_path / "ledger.sqlite")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    old = replace(RUN, id="old-1", status="succeeded", created_at=5.0, call_id="12@3.5", request={"job": {}})
    assert ledger.get("old-1") == replace(old, result={"outputs": [1]})
    assert (ledger.reserved(), ledger.spent(0.0), ledger.history("")) == (0, 0, [])
    ledger.settle("old-2", status="succeeded", ended_at=9.0, result={}, cost_nanodollars=7)
    ledger.add(replace(RUN, rate=RATE), 11)
    assert (ledger.reserved(), ledger.spent(0.0)) == (11, 7)
    ledger.close()


def test_a_migration_that_fails_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    write_version_1(path)
    with sqlite3.connect(path) as connection:
        # In the way of the last step: the columns were added by then.
        connection.execute("CREATE TABLE reservations (other TEXT)")
    connection.close()
    before = shape(path)
    with pytest.raises(NotReadyError, match="reservations already exists"):
        Ledger(path)
    assert shape(path) == before
    assert before[0] == 1


def test_a_rate_and_a_cost_come_back_as_they_went_in(ledger: Ledger) -> None:
    run = replace(RUN, rate=RATE, cost_nanodollars=2**53 + 1)
    ledger.add(run)
    assert ledger.get(RUN.id) == run


def test_a_run_without_money_has_none(ledger: Ledger) -> None:
    ledger.add(RUN)
    ledger.settle(RUN.id, status="succeeded", ended_at=2.0, result={})
    found = ledger.get(RUN.id)
    assert (found.cost_nanodollars, found.rate, ledger.reserved(), ledger.spent(0.0)) == (None, None, 0, 0)


def test_what_is_reserved_is_free_again_when_the_run_ends(ledger: Ledger) -> None:
    ledger.add(replace(RUN, id="a", rate=RATE), 2_834_774_400)
    ledger.add(replace(RUN, id="b", rate=RATE), 1)
    ledger.add(replace(RUN, id="c", rate=RATE), 0)
    ledger.add(replace(RUN, id="d"))
    assert ledger.reserved() == 2_834_774_401
    ledger.settle("a", status="succeeded", ended_at=2.0, result={}, cost_nanodollars=47_246_240)
    assert (ledger.reserved(), ledger.spent(0.0)) == (1, 47_246_240)
    ledger.note_call("b", "fc-1")
    assert ledger.reserved() == 1


def test_a_run_that_cannot_be_entered_reserves_nothing(ledger: Ledger) -> None:
    ledger.add(RUN, 5)
    with pytest.raises(NotReadyError):
        ledger.add(replace(RUN, title="the same id"), 7)
    assert ledger.reserved() == 5


def test_a_reservation_that_cannot_be_made_enters_no_run(ledger: Ledger) -> None:
    with pytest.raises(NotReadyError):
        ledger.add(RUN, "much")  # type: ignore[arg-type]
    assert (ledger.newest(limit=5), ledger.reserved()) == ([], 0)


def test_a_settlement_without_a_cost_keeps_the_one_that_is_known(ledger: Ledger) -> None:
    ledger.add(RUN, 5)
    ledger.settle(RUN.id, status="failed", ended_at=2.0, result={}, cost_nanodollars=3)
    ledger.settle(RUN.id, status="partial", ended_at=2.0, result={})
    assert ledger.get(RUN.id).cost_nanodollars == 3
    ledger.settle(RUN.id, status="succeeded", ended_at=2.0, result={}, cost_nanodollars=4)
    assert (ledger.get(RUN.id).cost_nanodollars, ledger.spent(0.0)) == (4, 4)


def test_what_was_spent_since_a_time(ledger: Ledger) -> None:
    for number, cost in enumerate((1, 10, None, 100)):
        ledger.add(replace(RUN, id=str(number), created_at=1000.0 + number))
        ledger.settle(str(number), status="failed", ended_at=9999.0, result={}, cost_nanodollars=cost)
    assert [ledger.spent(since) for since in (0.0, 1001.0, 1001.5, 1003.0, 1003.5)] == [111, 110, 100, 100, 0]


@pytest.mark.parametrize("question", ["reserved", "spent", "history", "peak_vram"])
def test_a_damaged_ledger_is_our_error(question: str, ledger: Ledger, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        other.execute("DROP TABLE runs")
        other.execute("DROP TABLE reservations")
        other.execute("DROP TABLE costs")
    other.close()
    ask: Mapping[str, Callable[[], Any]] = {
        "reserved": ledger.reserved,
        "spent": lambda: ledger.spent(0.0),
        "history": lambda: ledger.history("abc"),
        "peak_vram": lambda: ledger.peak_vram("abc"),
    }
    with pytest.raises(NotReadyError, match="cannot read the ledger"):
        ask[question]()


def _reserve_many(path: Path, who: str, start: Any, results: Any) -> None:
    try:
        start.wait(60)
        # Each one opens, and perhaps migrates, the same old file.
        ledger = Ledger(path)
        seen = []
        for number in range(40):
            run = replace(RUN, id=f"{who}-{number:03d}", created_at=float(number), rate=RATE)
            ledger.add(run, 1_000_000_000)
            seen.append(ledger.reserved())
            if number % 2:
                ledger.settle(run.id, status="succeeded", ended_at=1.0, result={}, cost_nanodollars=3)
        ledger.close()
        results.put((who, seen))
    except BaseException as error:
        results.put((who, repr(error)))
        raise


def test_commands_that_reserve_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    write_version_1(path)
    context = multiprocessing.get_context("spawn")
    results, start = context.Queue(), context.Barrier(2)
    workers = [context.Process(target=_reserve_many, args=(path, who, start, results)) for who in "ab"]
    for worker in workers:
        worker.start()
    seen = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    ledger = Ledger(path)
    assert ledger.reserved() == 2 * 20 * 1_000_000_000
    assert ledger.spent(0.0) == 2 * 20 * 3
    assert len(ledger.newest(limit=1000)) == 82
    ledger.close()
    # Who asks after reserving always sees the own reservation, and no more than all together.
    for sums in seen.values():
        assert all((number + 1) // 2 + 1 <= total / 1e9 <= 42 for number, total in enumerate(sums))


def test_runs_are_made_by_position_as_before() -> None:
    made = Run("id", "render", "local", "submitting", "t", 1.0, None, None, None, {}, None)
    assert (made.cost_nanodollars, made.rate) == (None, None)
