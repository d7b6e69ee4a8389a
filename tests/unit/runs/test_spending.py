from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from comfymodal.costs.budget import Limit
from comfymodal.costs.measure import Measured, billed_choice, measure
from comfymodal.runs.ledger import Ledger
from tests.unit.runs.test_ledger import RUN

RATE = {"gpu": "L40S", "nanodollars_per_s": 665_440, "as_of": "2026-10-07", "window_s": 60.5}
ACTS = st.lists(
    st.tuples(st.sampled_from(["add", "call", "end", "end unknown", "stop"]), st.integers(0, 5), st.integers(0, 10**9)),
    max_size=40,
)


def seen(container: str, begin: float, seconds: float) -> Measured:
    return Measured(container, begin, begin + seconds, 0.0, 0.0, None, seconds, 0.0)


@settings(max_examples=60, deadline=None)
@given(acts=ACTS)
def test_no_reservation_survives_its_run_and_no_budget_is_exceeded(acts: list[tuple[str, int, int]]) -> None:
    limit = Limit("in all", "costs.total_usd", 3 * 10**9)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        held: dict[str, int] = {}
        known: set[str] = set()
        for number, (act, which, amount) in enumerate(acts):
            run_id = f"r{which}"
            if act == "add" and run_id not in known:
                run = replace(RUN, id=run_id, target="modal", rate=RATE, created_at=float(number))
                if ledger.add(run, amount, limits=[limit]) is None:
                    held[run_id] = amount
                    known.add(run_id)
            elif act == "call" and run_id in held:
                ledger.note_call(run_id, "fc-1")
            elif act.startswith("end") and run_id in known:
                cost = None if act == "end unknown" else min(amount, held.get(run_id, amount))
                ledger.settle(run_id, status="failed", ended_at=float(number), result={}, cost_nanodollars=cost)
                held.pop(run_id, None)
            elif act == "stop":
                ledger.end_containers(float(number))
            active = {run.id for run in ledger.newest(limit=99) if run.is_active}
            assert {run.id for run in ledger.with_reservation()} == set(held) <= active
            assert ledger.reserved() == sum(held.values())
            # What a run came to was never above what was set aside for it: nor is the sum.
            if act == "add":
                assert ledger.left(limit) >= 0
        ledger.close()


def test_gaps_in_a_container_are_the_same_in_whatever_order_its_runs_are_settled(tmp_path: Path) -> None:
    begins = {"a": 100.0, "b": 130.0, "c": 400.0}
    found = []
    for order in ("abc", "cba", "bca"):
        ledger = Ledger(tmp_path / f"{order}.sqlite")
        for name in "abc":
            ledger.add(replace(RUN, id=name, target="modal", rate=RATE, created_at=begins[name]), 10**9)
        for name in order:
            ledger.settle(
                name,
                status="succeeded",
                ended_at=begins[name] + 10,
                result={},
                cost_nanodollars=10 * 665_440,
                measured=seen("ta-1", begins[name], 10.0),
            )
        with ledger.reading() as connection:
            rows = connection.execute("SELECT run_id, idle_s, is_idle_final FROM costs ORDER BY run_id")
            found.append([tuple(row) for row in rows])
        assert ledger.spent(0.0) == round((30 + 20 + 60.5 + 60.5) * 665_440)
        ledger.close()
    # After the second the container was kept, or another one was started: not for that run.
    assert found == [[("a", 20.0, 1), ("b", 60.5, 1), ("c", 60.5, 0)]] * 3


def test_seconds_by_what_they_went_into() -> None:
    noted = {"container_id": "ta-1", "container_started_at": 95.0, "enter_s": 8.0, "is_first": True, "lost_s": 3.0}
    first = measure({**noted, "started_at": 103.0, "first_started_at": 103.0, "ended_at": 110.0}, created_at=90.0)
    assert (first.queue_s, first.start_s, first.run_s, first.lost_s) == (5.0, 8.0, 7.0, 3.0)
    warm = measure({**noted, "is_first": False, "started_at": 91.5, "ended_at": 90.0}, created_at=92.0)
    # Clocks that disagree give nothing back.
    assert (warm.queue_s, warm.start_s, warm.run_s) == (0.0, 0.0, 0.0)


def test_the_card_that_was_seen_is_the_choice_that_is_billed() -> None:
    choices = ["H100", "A100-80GB", "A100", "L4", "RTX-PRO-6000"]
    told = {
        "NVIDIA A100-SXM4-80GB": "A100-80GB",
        "NVIDIA A100-SXM4-40GB": "A100",
        "cuda:0 NVIDIA H100 80GB HBM3 : cudaMallocAsync": "H100",
        "NVIDIA L40S": "",
        "NVIDIA L4": "L4",
        "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTX-PRO-6000",
        "": "",
    }
    assert {seen: billed_choice(choices, seen) for seen in told} == told
