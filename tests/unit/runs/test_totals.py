from __future__ import annotations

import math
import operator
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import NotReadyError
from comfymodal.runs.ledger import Ledger
from comfymodal.runs.sums import Sums
from comfymodal.runs.totals import GROUPINGS, Grouping, Totals, by_day_and_kind, extent, spent_by, totals
from tests.unit.runs.cost_rows import DAY_S, NOON, ROW, fill

ACTIVE = ("submitting", "running")


def mixed_rows(seed: int, count: int = 150) -> list[dict[str, Any]]:
    rng = random.Random(seed)

    def maybe(value: int) -> int | None:
        return rng.choice([None, 0, value, value])

    rows = []
    for number in range(count):
        target = rng.choice(["local", "modal", "modal"])
        gpu = "" if target == "local" else rng.choice(["", "L40S", "H100"])
        rows.append(
            {
                "run_id": f"r-{number:03d}",
                "created_at": NOON + rng.uniform(-9, 3) * DAY_S,
                "kind": rng.choice(["render", "train", "sync"]),
                "target": target,
                "status": rng.choice(["succeeded", "partial", "failed", "cancelled", "interrupted", *ACTIVE]),
                "workflow": rng.choice(["cat.json", "dog.json", "ünï", "2 others"]),
                "tag": rng.choice(["", "night", "no tag"]),
                "gpu_billed": gpu,
                "typical": maybe(rng.randrange(10**9)),
                "measured": maybe(rng.randrange(10**9)),
                "idle": maybe(rng.randrange(10**8)),
                "billed": maybe(rng.randrange(10**9)),
                "outputs": rng.randrange(5),
                "run_s": rng.choice([None, rng.uniform(0, 100)]),
            }
        )
    return rows


def read(path: Path, by: Grouping, *, since: float | None = None, top: int | None = None) -> Totals:
    ledger = Ledger(path)
    with ledger.reading() as connection:
        found = totals(connection, by, since=since, top=top)
    ledger.close()
    return found


def key_of(row: Mapping[str, Any], by: Grouping) -> str:
    match by:
        case "day":
            return datetime.fromtimestamp(row["created_at"], UTC).date().isoformat()
        case "run":
            return str(row["run_id"])
        case "gpu":
            return "this machine" if row["target"] == "local" else row["gpu_billed"] or "no GPU"
        case "tag":
            return row["tag"] or "no tag"
    return str(row[by])


def slow_sums(rows: Sequence[Mapping[str, Any]], reserved: Mapping[str, int]) -> Sums:
    """The same in plain Python, a row at a time."""
    total = Sums()
    for row in rows:
        measured, idle, billed = row["measured"], row["idle"], row["billed"]
        spent = billed if billed is not None else None if measured is None else measured + (idle or 0)
        active = row["status"] in ACTIVE
        failed = not active and row["status"] not in ("succeeded", "partial")
        has_estimate = not active and row["typical"] is not None and spent is not None
        total += Sums(
            runs=1,
            active_runs=int(active),
            succeeded_runs=int(row["status"] == "succeeded"),
            reserved=reserved.get(row["run_id"], 0) if active else 0,
            outputs=row["outputs"],
            estimated=row["typical"] if has_estimate else 0,
            estimated_runs=int(has_estimate),
            estimated_spent=(spent or 0) if has_estimate else 0,
            measured=measured or 0,
            measured_runs=int(measured is not None),
            idle=idle or 0,
            idle_runs=int(idle is not None),
            gapless_runs=int(measured is not None and idle is None and billed is None),
            billed=billed or 0,
            billed_runs=int(billed is not None),
            drift=0 if billed is None or measured is None else billed - measured - (idle or 0),
            spent=spent or 0,
            spent_runs=int(spent is not None),
            spent_outputs=0 if spent is None else row["outputs"],
            unknown_runs=int(spent is None and not active),
            failed=(spent or 0) if failed else 0,
            failed_runs=int(failed),
            start_s=20.0,
            run_s=row["run_s"] or 0.0,
            idle_s=12.0,
        )
    return total


def assert_same(one: Sums, other: Sums) -> None:
    for name in Sums.__dataclass_fields__:
        left, right = getattr(one, name), getattr(other, name)
        # Money to the last nanodollar; seconds are added in another order.
        assert math.isclose(left, right, abs_tol=1e-6) if isinstance(left, float) else left == right, name


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("by", GROUPINGS)
def test_rows_sum_up_to_the_total_whatever_the_grouping(by: Grouping, seed: int, tmp_path: Path) -> None:
    rows = mixed_rows(seed)
    reserved = {row["run_id"]: 7_000 + number for number, row in enumerate(rows) if number % 3}
    fill(tmp_path / "l", rows, reserved)
    expected = slow_sums(rows, reserved)
    by_hand: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_hand[key_of(row, by)].append(row)

    for top in (None, 1, 2, 5, 1000):
        found = read(tmp_path / "l", by, top=top)

        assert_same(found.total, expected)
        assert_same(reduce(operator.add, (group.sums for group in found.groups), found.others), expected)
        assert len(found.groups) + found.folded == len(by_hand)
        assert top is None or len(found.groups) <= top
        for group in found.groups:
            assert_same(group.sums, slow_sums(by_hand[group.key], reserved))
        dearest = sorted((slow_sums(group, {}).spent for group in by_hand.values()), reverse=True)
        assert sorted((group.sums.spent for group in found.groups), reverse=True) == dearest[: len(found.groups)]
        paid = [row for row in rows if row["target"] != "local" and row["kind"] == "train"]
        assert_same(found.paid["train"], slow_sums(paid, reserved))


def test_days_come_in_their_order_and_everything_else_by_cost(tmp_path: Path) -> None:
    costs = {"a": 5, "b": 9, "c": 7}
    rows = [
        {"run_id": name, "workflow": name, "billed": cost, "created_at": NOON + number * DAY_S}
        for number, (name, cost) in enumerate(costs.items())
    ]
    fill(tmp_path / "l", rows)

    assert [group.key for group in read(tmp_path / "l", "day", top=2).groups] == ["2024-10-05", "2024-10-06"]
    assert [group.key for group in read(tmp_path / "l", "workflow").groups] == ["b", "c", "a"]
    assert [group.key for group in read(tmp_path / "l", "run", top=2).groups] == ["b", "c"]


@pytest.mark.parametrize("by", GROUPINGS)
def test_shares_are_those_of_the_sums(by: Grouping, tmp_path: Path) -> None:
    fill(tmp_path / "l", mixed_rows(3))
    ledger = Ledger(tmp_path / "l")
    with ledger.reading() as connection:
        shares = spent_by(connection, by, since=None)
        found = totals(connection, by, since=None)
    ledger.close()

    expected = [group.sums.spent if group.sums.spent_runs else None for group in found.groups]
    assert sorted(spent or 0 for _, spent in shares) == sorted(spent or 0 for spent in expected)
    assert [spent for _, spent in shares].count(None) == expected.count(None)
    if by != "day":
        assert dict(shares) == {group.key: spent for group, spent in zip(found.groups, expected, strict=True)}


def test_only_runs_from_then_on_count(tmp_path: Path) -> None:
    fill(tmp_path / "l", [{"run_id": "old", "created_at": NOON - 1.0}, {"run_id": "new", "created_at": float(NOON)}])

    for by in GROUPINGS:
        assert read(tmp_path / "l", by, since=float(NOON)).total.runs == 1
    assert [group.key for group in read(tmp_path / "l", "run", since=float(NOON)).groups] == ["new"]
    ledger = Ledger(tmp_path / "l")
    with ledger.reading() as connection:
        assert by_day_and_kind(connection, since=float(NOON)) == [(date(2024, 10, 4), "render", 48_000_000)]
    ledger.close()


def test_a_run_is_told_with_what_it_was(tmp_path: Path) -> None:
    fill(tmp_path / "l", [{"target": "local", "gpu_billed": "", "status": "failed", "measured": 0, "idle": 0}])

    (group,) = read(tmp_path / "l", "run").groups

    assert group.run is not None
    assert (group.run.gpu, group.run.status, group.run.workflow) == ("this machine", "failed", "cat.json")
    assert group.sums.spent_runs == 1
    assert group.sums.spent == 0


def test_an_empty_ledger_sums_up_to_nothing(tmp_path: Path) -> None:
    for by in GROUPINGS:
        assert read(tmp_path / "new" / "l", by, top=3) == Totals((), 0, Sums(), Sums(), {})


@pytest.mark.parametrize("at", [1e18, -1e18, math.inf])
def test_a_clock_that_says_anything_breaks_no_report(at: float, tmp_path: Path) -> None:
    fill(tmp_path / "l", [{"run_id": "a", "created_at": at}, {"run_id": "b", "created_at": at * 0.5}, ROW])

    found = read(tmp_path / "l", "day")

    assert found.total.runs == 3
    assert {group.key for group in found.groups} <= {"0001-01-01", "2024-10-04", "9999-12-31"}


def test_times_that_cannot_be_true_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"run_id": "future", "created_at": NOON + 10.0, "ended_at": NOON + 50.0},
        {"run_id": "backward", "created_at": float(NOON), "ended_at": NOON - 3600.0},
        {"run_id": "running", "created_at": NOON - 5.0, "ended_at": None, "status": "running"},
    ]
    fill(tmp_path / "l", rows)
    ledger = Ledger(tmp_path / "l")
    with ledger.reading() as connection:
        found = extent(connection, since=None, now=NOON + 1.0)
    ledger.close()

    assert (found.runs, found.first_at, found.future_runs, found.backward_runs) == (3, NOON - 5.0, 1, 1)


def test_all_questions_see_one_state(tmp_path: Path) -> None:
    fill(tmp_path / "l", [ROW])
    ledger = Ledger(tmp_path / "l")
    with ledger.reading() as connection:
        before = totals(connection, "kind", since=None)
        fill(tmp_path / "l", [{"run_id": "meanwhile"}])
        assert totals(connection, "run", since=None).total == before.total
    with ledger.reading() as connection:
        assert totals(connection, "run", since=None).total.runs == 2
    ledger.close()


def test_a_torn_file_is_told_as_one(tmp_path: Path) -> None:
    fill(tmp_path / "l", [{"run_id": f"r-{number}"} for number in range(500)])
    whole = (tmp_path / "l").read_bytes()
    (tmp_path / "l").write_bytes(whole[:8192] + bytes(len(whole) - 8192))
    ledger = Ledger(tmp_path / "l")

    with pytest.raises(NotReadyError, match="cannot read the ledger"), ledger.reading() as connection:
        totals(connection, "workflow", since=None)
    ledger.close()
