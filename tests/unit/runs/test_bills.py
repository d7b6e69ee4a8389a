from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfymodal.costs.measure import Measured
from comfymodal.operations.reconcile import _spans
from comfymodal.runs.bills import CallSpan
from comfymodal.runs.ledger import Ledger
from comfymodal.targets.billing import CallRow
from tests.unit.runs.cost_rows import NOON, fill
from tests.unit.runs.test_ledger import RUN

RATE = 665_440


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    # Three in one container: the gaps after the first two are known, the one after the last is assumed.
    begins = (0.0, 20.0, 40.0)
    rows: list[dict[str, Any]] = [
        {
            "run_id": f"r{number}",
            **{"began_at": NOON + begin, "ended_at": NOON + begin + 0.2, "run_s": 0.2, "start_s": 10.0 * (number == 0)},
            **{"idle_s": 19.8 if number < 2 else 60.0, "is_idle_final": int(number < 2), "window_s": 60.0},
        }
        for number, begin in enumerate(begins)
    ]
    fill(tmp_path / "ledger.sqlite", rows)
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def idle_of(ledger: Ledger, run_id: str) -> tuple[Any, ...]:
    with ledger.reading() as connection:
        row = connection.execute("SELECT idle_s, idle, is_idle_final FROM costs WHERE run_id = ?", (run_id,)).fetchone()
    return tuple(row)


def test_what_a_run_was_paid_for_is_one_stretch(ledger: Ledger) -> None:
    spans = [(paid.run_id, paid.begin - NOON, round(paid.end - NOON, 3)) for paid in ledger.paid_since(0)]
    assert spans == [("r0", -10.0, 20.0), ("r1", 20.0, 40.0), ("r2", 40.0, 100.2)]


def test_the_next_call_in_the_container_ends_the_gap_whoever_made_it(ledger: Ledger) -> None:
    # Modal's clock is half a second ahead, and the run took less than that.
    ledger.note_next_calls({"ta-1": [NOON + 0.5, NOON + 20.5, NOON + 40.5, NOON + 70.2]}, now=NOON + 80)
    assert idle_of(ledger, "r2") == (pytest.approx(30.0), pytest.approx(30 * RATE, abs=RATE / 500), 1)
    assert idle_of(ledger, "r0")[0] == 19.8


def test_without_another_call_the_window_ends_it_once_it_is_over(ledger: Ledger) -> None:
    ledger.note_next_calls({"ta-1": [NOON + 0.1, NOON + 20.1, NOON + 40.1]}, now=NOON + 50)
    assert idle_of(ledger, "r2") == (60.0, 8_000_000, 0)
    ledger.note_next_calls({}, now=NOON + 101)
    assert idle_of(ledger, "r2") == (60.0, 60 * RATE, 1)


def test_a_stop_of_all_containers_ends_it_there(ledger: Ledger) -> None:
    ledger.end_containers(NOON + 45.2)
    assert idle_of(ledger, "r2") == (pytest.approx(5.0), pytest.approx(5 * RATE, abs=RATE / 500), 1)
    ledger.end_containers(NOON + 41)
    assert idle_of(ledger, "r2")[0] == pytest.approx(5.0)


def test_a_bill_counts_when_it_is_final_and_stays(ledger: Ledger) -> None:
    def billed() -> list[tuple[int | None, str]]:
        with ledger.reading() as connection:
            return [tuple(row) for row in connection.execute("SELECT billed, billing FROM costs ORDER BY run_id")]

    ledger.note_bills({"r0": (7, "provisional"), "r1": (9, "matched"), "r2": (None, "not_available_yet")})
    assert billed() == [(None, "provisional"), (9, "matched"), (None, "not_available_yet")]
    ledger.note_bills({"r0": (8, "drift"), "r1": (None, "unavailable")})
    assert billed() == [(8, "drift"), (9, "matched"), (None, "not_available_yet")]


def test_calls_of_unknown_containers_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    ledger, rate = Ledger(tmp_path / "unknown.sqlite"), {"gpu": "L40S", "nanodollars_per_s": RATE, "window_s": 60.0}
    for name in ("r0", "r1"):
        ledger.add(replace(RUN, id=name, target="modal", rate=rate))
        ledger.note_call(name, f"fc-{name}")
    seen = Measured("", NOON, NOON + 1.0, 0.0, 0.0, None, 1.0, 0.0)
    ledger.settle("r0", status="succeeded", ended_at=NOON + 1, result={}, cost_nanodollars=RATE, measured=seen)
    ledger.settle("r1", status="failed", ended_at=NOON + 9, result={})
    ledger.note_calls({"fc-r1": CallSpan("", NOON + 5, 2.0, 0.0, 0.0)})
    assert ledger.get("r1").cost_nanodollars == 2 * RATE
    assert [idle_of(ledger, name) for name in ("r0", "r1")] == [(None, None, 0)] * 2
    ledger.close()


def test_time_between_the_containers_of_a_call_is_not_paid() -> None:
    rows = [
        CallRow("app", "train", "fc-1", "ta-1", "failure", 0.0, 100.0, 10.0, 50.0),
        CallRow("app", "train", "fc-1", "ta-2", "success", 0.0, 4000.0, 20.0, 30.0),
        CallRow("app", "train", "fc-2", "ta-3", "running", 0.0, 4000.0, 20.0, None),
    ]
    spans = _spans({"fc-1": rows[:2], "fc-2": rows[2:]})
    assert spans == {"fc-1": CallSpan("ta-2", 4000.0, 30.0, 20.0, 60.0)}
