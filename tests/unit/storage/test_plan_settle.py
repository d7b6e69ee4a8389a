from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from comfymodal.storage.actions import Action, Plan, Rules
from comfymodal.storage.base import Base, Entry
from comfymodal.storage.filters import Filter
from comfymodal.storage.plan import make_plan
from comfymodal.storage.settle import Outcome, account, advance, begin
from comfymodal.storage.values import FileState

PAIR = "here <-> there"
NOW = 20_000.0
OLD = Entry(5, {"sha1": "old"}, "id-0", 100.0, 1.0, verified=True)


def plan_of(base: Base, here: dict[str, FileState], there: dict[str, FileState], rules: Rules) -> Plan:
    return make_plan(PAIR, base, here, there, replace(rules, allow_empty=True), listed_at=10_000.0)


def test_a_pulled_file_is_recorded_with_the_hash_of_what_arrived() -> None:
    base = Base(PAIR)
    plan = plan_of(base, {}, {"f": FileState(5, {"sha1": "s"}, 90.0, "id-1")}, Rules("pull"))

    moved = advance(base, plan, {"f": Outcome("copied", target=FileState(5, {"sha1": "s"}, 90.0))}, now=NOW)

    assert moved.entries == {"f": Entry(5, {"sha1": "s"}, "id-1", 90.0, NOW, verified=True)}


def test_a_pulled_file_without_a_remote_hash_is_recorded_as_unverified() -> None:
    base = Base(PAIR)
    plan = plan_of(base, {}, {"f": FileState(5, version="id-1")}, Rules("pull"))

    moved = advance(base, plan, {"f": Outcome("copied", target=FileState(5, {"sha256": "s"}, 90.0))}, now=NOW)

    assert moved.entries["f"] == Entry(5, {"sha256": "s"}, "id-1", 90.0, NOW, verified=False)


def test_a_pushed_file_is_recorded_with_its_new_version() -> None:
    base = Base(PAIR, 1, {"f": OLD}, {"f": "push"})
    here = {"f": FileState(5, {"sha1": "new"}, 300.0)}
    plan = plan_of(base, here, {"f": FileState(5, {"sha1": "old"}, version="id-0")}, Rules("push"))

    outcome = Outcome("copied", target=FileState(5, {"sha1": "new"}, 300.0, "id-1"))
    moved = advance(base, plan, {"f": outcome}, now=NOW)

    assert moved.entries == {"f": Entry(5, {"sha1": "new"}, "id-1", 300.0, NOW, verified=True)}
    assert moved.pending == {}


def test_what_rclone_compared_itself_is_verified() -> None:
    base = Base(PAIR)
    plan = plan_of(base, {"f": FileState(5, mtime=90.0)}, {}, Rules("push"))

    outcomes = {"f": Outcome("copied", target=FileState(5, {"sha1": "s"}, version="id-1"), verified=True)}

    assert advance(base, plan, outcomes, now=NOW).entries["f"].verified
    assert account(plan, outcomes)[0].verified


@pytest.mark.parametrize("target", [FileState(5, {"sha1": "other"}), FileState(4, {})])
def test_what_arrived_otherwise_than_planned_moves_nothing_on(target: FileState) -> None:
    base = Base(PAIR, 1, {"f": OLD})
    there = {"f": FileState(5, {"sha1": "new"}, version="id-1")}
    plan = plan_of(base, {"f": FileState(5, {"sha1": "old"})}, there, Rules("pull"))
    outcomes = {"f": Outcome("copied", target=target)}

    assert advance(base, plan, outcomes, now=NOW) is base
    assert account(plan, outcomes)[0].result == "failed"
    assert "not what was planned" in account(plan, outcomes)[0].why


@pytest.mark.parametrize("result", ["failed", "missing", None])
def test_what_failed_keeps_its_entry(result: Literal["failed", "missing"] | None) -> None:
    base = Base(PAIR, 1, {"f": OLD, "g": OLD}, {"f": "pull"})
    here = {"f": FileState(5, {"sha1": "old"}), "g": FileState(5, {"sha1": "old"})}
    there = {"f": FileState(5, {"sha1": "new"}, version="id-1")}
    plan = plan_of(base, here, there, Rules("pull", delete=True))
    outcomes = {path: Outcome(result, "the reason") for path in ("f", "g")} if result else {}

    assert [action.kind for action in plan.actions] == ["changed", "delete_here"]
    assert advance(base, plan, outcomes, now=NOW) is base
    assert [found.result for found in account(plan, outcomes)] == ["failed", "failed"]
    assert account(plan, outcomes)[0].why == ("the reason" if result else "it was planned, but not reached")


def test_what_is_deleted_or_gone_leaves_the_base() -> None:
    base = Base(PAIR, 1, {"deleted": OLD, "gone": OLD, "kept": OLD})
    here = {"deleted": FileState(5, {"sha1": "old"}), "kept": FileState(5, {"sha1": "old"}, 100.0)}
    there = {"kept": FileState(5, {"sha1": "old"}, version="id-0")}
    plan = plan_of(base, here, there, Rules("both", delete=True))

    moved = advance(base, plan, {"deleted": Outcome("deleted")}, now=NOW)

    assert moved.entries == {"kept": OLD}


def test_what_is_in_step_is_recorded_before_anything_is_copied() -> None:
    base = Base(PAIR)
    state = FileState(5, {"sha1": "s"}, 90.0)
    plan = plan_of(base, {"f": state}, {"f": replace(state, version="id-1")}, Rules("pull"))

    assert advance(base, plan, {}, now=NOW).entries == {"f": Entry(5, {"sha1": "s"}, "id-1", 90.0, NOW, verified=True)}


def test_nothing_new_is_the_same_base() -> None:
    base = Base(PAIR, 1, {"f": OLD})
    here, there = {"f": FileState(5, {"sha1": "old"}, 100.0)}, {"f": FileState(5, {"sha1": "old"}, version="id-0")}
    plan = plan_of(base, here, there, Rules("pull"))

    assert advance(base, plan, {}, now=NOW) is base
    assert begin(base, plan) is base


def test_a_new_version_or_time_of_the_same_content_is_recorded() -> None:
    base = Base(PAIR, 1, {"f": OLD})
    here, there = {"f": FileState(5, {"sha1": "old"}, 200.0)}, {"f": FileState(5, {"sha1": "old"}, version="id-1")}

    moved = advance(base, plan_of(base, here, there, Rules("pull")), {}, now=NOW)

    assert moved.entries["f"] == replace(OLD, version="id-1", mtime=200.0, synced_at=NOW)


def test_a_file_written_as_it_was_listed_must_be_hashed_again_next_time() -> None:
    base = Base(PAIR)
    plan = plan_of(base, {"f": FileState(5, {"sha1": "s"}, 9_999.5)}, {"f": FileState(5, {"sha1": "s"})}, Rules("pull"))

    assert advance(base, plan, {}, now=NOW).entries["f"].mtime is None


def test_a_recalled_hash_verifies_nothing_and_a_fresh_one_does() -> None:
    base = Base(PAIR, 1, {"f": replace(OLD, verified=False)})
    here, there = {"f": FileState(5, {"sha1": "old"}, 100.0)}, {"f": FileState(5, {"sha1": "old"}, version="id-0")}
    plan = plan_of(base, here, there, Rules("pull"))

    assert advance(base, plan, {}, now=NOW) is base
    assert advance(base, plan, {}, now=NOW, rehashed={"f"}).entries["f"].verified


def test_begin_names_what_is_about_to_be_replaced_and_forgets_what_is_settled() -> None:
    base = Base(
        PAIR, 1, dict.fromkeys(("changed", "same", "out/of/scope"), OLD), {"same": "pull", "out/of/scope": "pull"}
    )
    old = FileState(5, {"sha1": "old"}, 100.0, "id-0")
    there = {"changed": FileState(5, {"sha1": "x"}), "new": old, "same": old}
    rules = Rules("both", filter=Filter(exclude=("/out/**",)))
    plan = plan_of(base, {"changed": old, "same": old}, there, rules)

    begun = begin(base, plan)

    assert begun.pending == {"changed": "pull", "out/of/scope": "pull"}
    assert begun.entries == base.entries
    moved = advance(begun, plan, {"changed": Outcome("copied", target=FileState(5, {"sha1": "x"}))}, now=NOW)
    assert moved.pending == {"out/of/scope": "pull"}
    assert moved.entries["out/of/scope"] == OLD


def test_begin_names_what_is_copied_again_but_not_what_was_never_there() -> None:
    base = Base(PAIR, 1, {"lost here": OLD})
    there = {"lost here": FileState(5, {"sha1": "old"}), "new": FileState(5)}

    assert begin(base, plan_of(base, {}, there, Rules("pull"))).pending == {"lost here": "pull"}


def test_every_planned_path_has_one_answer() -> None:
    old, new = FileState(5, {"sha1": "old"}), FileState(5, {"sha1": "new"})
    base = Base(PAIR, 1, dict.fromkeys(("changed", "conflict", "delete", "same", "gone"), OLD))
    here = {"changed": old, "conflict": new, "delete": old, "same": old, "extra": old}
    there = {"changed": new, "conflict": FileState(6), "same": old, "new": new, "../evil": new, "lost": new}
    plan = plan_of(base, here, there, Rules("pull", delete=True))
    outcomes = {"changed": Outcome("copied", target=new), "new": Outcome("copied"), "delete": Outcome("deleted")}

    results = {found.path: found.result for found in account(plan, outcomes)}

    assert results == {
        "../evil": "failed",
        "changed": "copied",
        "conflict": "conflict",
        "delete": "deleted",
        "extra": "skipped",
        "gone": "same",
        "lost": "failed",
        "new": "copied",
        "same": "same",
    }
    verified = {found.path: found.verified for found in account(plan, outcomes) if found.verified is not None}
    assert verified == {"changed": True, "new": False}


def test_an_answer_as_json() -> None:
    action = Action("f", "new", 5, "not here yet", "pull", there=FileState(5))
    plan = Plan(PAIR, "pull", (action,), 1.0, 0, 1)

    assert account(plan, {"f": Outcome("copied")})[0].to_dict() == {
        "path": "f",
        "action": "new",
        "result": "copied",
        "size_bytes": 5,
        "why": "not here yet",
        "verified": False,
    }
