from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import BudgetError, ComfymodalError, NotReadyError
from comfymodal.operations.books import Books
from comfymodal.operations.budgets import limits_of, show_budgets, watch_budgets
from comfymodal.operations.context import Context
from comfymodal.operations.ending import ErrandEnding
from comfymodal.operations.follow import submit
from comfymodal.operations.money import price_train
from comfymodal.operations.news import telling
from comfymodal.operations.waiting import Waiting
from tests.unit.operations.spenders import PROJECT, Working, priced
from tests.unit.operations.sync_target import OFFLINE, Clerk, SyncTarget, context_of

WORST = 294_124_480
"""(300 + 140 + 2) s of an L40S with 4 cores and 32 GiB."""


def modal_context(folder: Path, costs: str, *, kind: type[SyncTarget] = Working) -> Context:
    text = f"training: {{gpu: L40S, timeout: 140s}}\ncosts: {{{costs}}}\n"
    return context_of(kind([{"status": "succeeded"}] * 9, name="modal"), folder, text)


def start(context: Context, name: str, **more: Any) -> None:
    run, price = priced(context, name, **more)
    submit(run, context, Clerk(), ErrandEnding(), waiting=Waiting(is_detached=True), price=price)


def end(context: Context, name: str, cost: int | None) -> None:
    context.ledger.settle(name, status="succeeded", ended_at=time.time(), result={}, cost_nanodollars=cost)


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
@pytest.mark.parametrize(
    ("used_share", "most"),
    [(0.0, 3), pytest.param(1.0, 3, marks=pytest.mark.soak), pytest.param(0.2, 50, marks=pytest.mark.soak)],
)
def test_fifty_commands_at_once_never_spend_more_than_the_budget(used_share: float, most: int, tmp_path: Path) -> None:
    spenders = [sys.executable, "-m", "tests.unit.operations.spenders", str(tmp_path), "50", str(used_share)]
    done = subprocess.run(spenders, capture_output=True, text=True, check=True)
    told = Counter(done.stdout.split())
    assert sum(told.values()) == 50, done.stderr
    assert set(told) <= {"started", BudgetError.code}
    assert 3 <= told["started"] <= most, done.stderr
    ledger = context_of(SyncTarget(name="modal"), tmp_path, PROJECT).ledger
    assert ledger.reserved() == (0 if used_share else 3 * WORST)
    assert ledger.spent(0.0) + ledger.reserved() <= 10**9
    assert ledger.spent(0.0) == told["started"] * round(WORST * used_share)


def test_what_is_left_shortens_a_run_before_it_refuses_one(tmp_path: Path) -> None:
    context = modal_context(tmp_path, "daily_usd: 0.50")
    start(context, "a")
    _, price = priced(context, "b", typical_s=None)
    # 0.20587552 / 0.00066544 = 309.3 s, less 302 s.
    assert (price.deadline_s, price.is_shortened, price.estimate.worst <= 500_000_000 - WORST) == (7.0, True, True)
    with pytest.raises(BudgetError) as caught:
        priced(context, "c")
    assert "$0.2059 of $0.5000 are left today (costs.daily_usd)" in caught.value.message
    assert "comfymodal costs budget" in (caught.value.hint or "")


def test_what_others_took_between_the_look_and_the_entry_is_not_given_twice(tmp_path: Path) -> None:
    context = modal_context(tmp_path, "total_usd: 0.50")
    (first, price), (second, same) = priced(context, "a"), priced(context, "b")
    assert price == same
    submit(first, context, Clerk(), ErrandEnding(), waiting=Waiting(is_detached=True), price=price)
    with pytest.raises(BudgetError, match="have just been given"):
        submit(second, context, Clerk(), ErrandEnding(), waiting=Waiting(is_detached=True), price=price)
    assert [run.id for run in context.ledger.newest(limit=9)] == ["a"]
    assert context.ledger.reserved() == WORST


def test_a_run_that_ended_unseen_gives_back_what_was_set_aside(tmp_path: Path) -> None:
    context = modal_context(tmp_path, "daily_usd: 0.40", kind=SyncTarget)
    start(context, "a")
    # Its client is gone; the target knows the end, and that it cost half a cent.
    container = {"container_id": "ta-1", "started_at": 100.0, "ended_at": 107.0, "enter_s": 0.0, "is_first": True}
    context.target.endings[0] = {"status": "succeeded", "container": container}  # type: ignore[attr-defined]
    start(context, "b")
    assert (context.ledger.get("a").status, context.ledger.reserved()) == ("succeeded", WORST)


def test_a_run_is_not_shortened_for_one_that_ended_unseen(tmp_path: Path) -> None:
    # More than half of the budget is left, and yet not enough.
    context = modal_context(tmp_path, "daily_usd: 0.588", kind=SyncTarget)
    start(context, "a")
    container = {"container_id": "ta-1", "started_at": 100.0, "ended_at": 100.5, "enter_s": 0.0, "is_first": True}
    context.target.endings[0] = {"status": "succeeded", "container": container}  # type: ignore[attr-defined]
    _, price = priced(context, "b", typical_s=None)
    assert (price.is_shortened, context.ledger.reserved()) == (False, 0)


def test_an_ended_run_whose_cost_nobody_knows_counts_as_the_most_it_can_be(tmp_path: Path) -> None:
    context = modal_context(tmp_path, "daily_usd: 0.50")
    (limit,) = limits_of(context.project)
    start(context, "a")
    end(context, "a", None)
    left = context.ledger.left(limit)
    # It took no time at all: nothing but the window in which a container waits can have been paid.
    assert 500_000_000 - 3 * 665_440 < left < 500_000_000
    end(context, "a", 1)
    assert context.ledger.left(limit) == 499_999_999


def test_days_and_months_begin_anew_and_the_total_does_not(tmp_path: Path) -> None:
    context = modal_context(tmp_path, "daily_usd: 1, monthly_usd: 2, total_usd: 3")
    now = datetime(2026, 3, 1, 0, 0, 5, tzinfo=UTC).timestamp()
    found = {limit.key: (limit.nanodollars, now - limit.since) for limit in limits_of(context.project, now=now)}
    assert found == {
        "costs.daily_usd": (10**9, 5.0),
        "costs.monthly_usd": (2 * 10**9, 5.0),
        "costs.total_usd": (3 * 10**9, now),
    }
    later = {limit.key: now + 86_400 - limit.since for limit in limits_of(context.project, now=now + 86_400)}
    assert (later["costs.daily_usd"], later["costs.monthly_usd"]) == (5.0, 86_405.0)


def test_a_tag_has_budgets_of_its_own(tmp_path: Path) -> None:
    tagged = modal_context(tmp_path, "daily_usd: 9, tag: night, tags: {night: {daily_usd: 0.40}, day: {total_usd: 1}}")
    assert [limit.key for limit in limits_of(tagged.project)] == ["costs.daily_usd", "costs.tags.night.daily_usd"]
    start(tagged, "a")
    with pytest.raises(BudgetError, match=r"left today for tag night \(costs.tags.night.daily_usd\)"):
        priced(tagged, "b")
    other = modal_context(tmp_path, "daily_usd: 9, tags: {night: {daily_usd: 0.40}}")
    start(other, "c")
    assert other.ledger.reserved() == 2 * WORST


@pytest.mark.parametrize(
    ("wish", "answer", "is_started"), [("block", True, False), ("confirm", True, True), ("confirm", False, False)]
)
def test_who_may_go_beyond_a_budget(wish: str, answer: bool, is_started: bool, tmp_path: Path) -> None:
    context = modal_context(tmp_path, f"per_run_usd: 0.10, on_exceed: {wish}")
    run, _ = priced(modal_context(tmp_path, "per_run_usd: 9"), "a")
    context = modal_context(tmp_path, f"per_run_usd: 0.10, on_exceed: {wish}")
    clerk = Clerk(answer=answer)
    if is_started:
        _, price = price_train(run, context, clerk, max_cost=None)
        assert price is not None
        assert (price.deadline_s, price.limits) == (140.0, ())
    else:
        with pytest.raises(BudgetError):
            price_train(run, context, clerk, max_cost=None)
    assert len(clerk.questions) == (wish == "confirm")


def test_a_warning_does_not_raise_what_the_command_allows(tmp_path: Path) -> None:
    run, _ = priced(modal_context(tmp_path, ""), "a")
    context, clerk = modal_context(tmp_path, "daily_usd: 0.10, on_exceed: warn"), Clerk()
    _, price = price_train(run, context, clerk, max_cost=300_000_000)
    assert price is not None
    assert price.estimate.worst == WORST
    assert "started all the same" in clerk.warnings[0]
    with pytest.raises(BudgetError):
        price_train(run, context, clerk, max_cost=100_000_000)


def test_a_budget_that_is_nearly_spent_is_told_once(tmp_path: Path) -> None:
    context, clerk = modal_context(tmp_path, "daily_usd: 1.00, total_usd: 9, warn_at: [40, 50, 95]"), Clerk()
    for number, said in enumerate(([], ["$0.5882 of $1.00 are spent or set aside today"], [], [])):
        if number < 2:
            start(context, str(number))
            end(context, str(number), WORST)
        watch_budgets(context, clerk)
        assert [warning.partition(" (")[0] for warning in clerk.warnings] == said
        clerk.warnings.clear()
    start(context, "x")
    end(context, "x", 400_000_000)
    watch_budgets(context, clerk)
    assert "$0.9882 of $1.00" in clerk.warnings[0]
    assert len(clerk.warnings) == 1


def test_a_ledger_that_cannot_be_written_does_not_change_how_a_command_ends(tmp_path: Path) -> None:
    context, clerk = modal_context(tmp_path, "daily_usd: 1.00, warn_at: [20]"), Clerk()
    start(context, "a")
    end(context, "a", WORST)
    with context.ledger._writing() as connection:
        connection.execute("DROP TABLE notified")
    with telling(context, clerk):
        context.news.add("a")
    assert len(clerk.warnings) == 1
    assert clerk.warnings[0].startswith("nobody looked how much of the budgets is left: cannot write to the ledger")


def test_the_command_tells_all_of_them_and_ends_with_seven_when_one_is_used_up(tmp_path: Path) -> None:
    context = modal_context(tmp_path, "daily_usd: 1, per_run_usd: 0.9, tags: {night: {total_usd: 0.50}}")
    start(context, "a")
    start(context, "b")
    end(context, "b", 100_000_000)
    books = Books(context.project, context.ledger, context.state, ())
    told = show_budgets(books)
    day, night = told.budgets
    assert (day.name, day.limit, day.spent, day.reserved) == ("today", "1", "0.1", "0.29412448")
    assert (night.name, night.left, told.per_run, told.exit_code) == ("in all for tag night", "0.5", {"": "0.9"}, 0)
    context.ledger.settle("a", status="succeeded", ended_at=time.time(), result={}, cost_nanodollars=900_000_000)
    told = show_budgets(books)
    assert (told.budgets[0].left, told.exit_code) == ("0", 7)


@pytest.mark.parametrize(
    ("costs", "max_cost", "said"),
    [
        ("per_run_usd: 0.10, daily_usd: 5", None, "(costs.per_run_usd)"),
        ("per_run_usd: 0.20, daily_usd: 0.10", 400_000_000, "to be left of costs.daily_usd"),
        ("daily_usd: 5, tag: night, tags: {night: {per_run_usd: 0.10}}", None, "(costs.tags.night.per_run_usd)"),
    ],
)
def test_a_refusal_names_the_limit_that_was_too_tight(
    costs: str, max_cost: int | None, said: str, tmp_path: Path
) -> None:
    run, _ = priced(modal_context(tmp_path, ""), "a")
    with pytest.raises(BudgetError) as refused:
        price_train(run, modal_context(tmp_path, costs), Clerk(), max_cost=max_cost)
    cheaper = "or choose a cheaper GPU (training.gpu); see: comfymodal costs budget"
    assert refused.value.hint == f"allow at least $0.30 {said}, {cheaper}"


def test_what_a_command_itself_allows_is_refused_first(tmp_path: Path) -> None:
    run, _ = priced(modal_context(tmp_path, ""), "a")
    clerk = Clerk(answer=True)
    with pytest.raises(BudgetError) as refused:
        price_train(run, modal_context(tmp_path, "daily_usd: 0.01, on_exceed: confirm"), clerk, max_cost=10_000_000)
    assert refused.value.hint == "allow at least $0.30 (--max-cost), or choose a cheaper GPU (training.gpu)"
    assert clerk.questions == []


def test_several_at_once_are_told_what_all_of_them_need(tmp_path: Path) -> None:
    run, _ = priced(modal_context(tmp_path, ""), "a")
    with pytest.raises(BudgetError) as refused:
        price_train(run, modal_context(tmp_path, "daily_usd: 0.80"), Clerk(), max_cost=None, of=3)
    assert str(refused.value.hint).startswith("allow at least $0.89 to be left of costs.daily_usd, ")
    price_train(run, modal_context(tmp_path, "daily_usd: 0.89"), Clerk(), max_cost=None, of=3)


@pytest.mark.parametrize(("error", "cost"), [(OFFLINE, None), (NotReadyError("no such app"), 0)])
def test_a_hand_over_that_failed_cost_nothing_only_where_that_is_sure(
    error: ComfymodalError, cost: int | None, tmp_path: Path
) -> None:
    context = modal_context(tmp_path, "daily_usd: 0.40")
    context.target.endings[0] = error  # type: ignore[attr-defined]
    with pytest.raises(type(error)):
        start(context, "a")
    assert (context.ledger.get("a").cost_nanodollars, context.ledger.reserved()) == (cost, 0)
