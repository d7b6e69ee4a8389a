"""One letter is one content: `here="a", there="b", base="a"` is a file that changed there since the last sync."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfymodal.errors import SyncRefusedError
from comfymodal.storage.actions import Action, Plan, Rules
from comfymodal.storage.base import Base, Entry
from comfymodal.storage.filters import Filter
from comfymodal.storage.plan import make_plan, require_deletions_allowed
from comfymodal.storage.values import FileState

PAIR = "here <-> there"
LISTED_AT = 10_000.0


def state(content: str, *, mtime: float | None = None, version: str | None = None) -> FileState:
    return FileState(5, {"sha1": content}, mtime, version)


def entry(content: str) -> Entry:
    return Entry(5, {"sha1": content}, None, None, 1.0, verified=True)


def base_of(contents: Mapping[str, str]) -> Base:
    return Base(PAIR, 1, {path: entry(content) for path, content in contents.items()})


def listing_of(contents: Mapping[str, str]) -> dict[str, FileState]:
    return {path: state(content) for path, content in contents.items()}


def plan_of(
    here: Mapping[str, str], there: Mapping[str, str], base: Mapping[str, str] | Base | None, rules: Rules
) -> Plan:
    known = base if base is None or isinstance(base, Base) else base_of(base)
    return make_plan(
        PAIR,
        known,
        listing_of(here),
        listing_of(there),
        replace(rules, allow_empty=True),
        listed_at=LISTED_AT,
    )


def action_of(case: str, base: Base | None = None, **rules: object) -> Action:
    """`case` is here, there and base as three letters, `-` for none. The plan's only action but conflict copies."""
    here, there, common = ({} if letter == "-" else {"f.bin": letter} for letter in case)
    plan = plan_of(here, there, base or (common or None), Rules(**rules))  # type: ignore[arg-type]
    return next(action for action in plan.actions if action.path == "f.bin")


@pytest.mark.parametrize(
    ("case", "pull", "push", "both"),
    [
        # here there base
        ("aaa", "same", "same", "same"),
        ("aa-", "adopt", "adopt", "adopt"),
        ("bba", "adopt", "adopt", "adopt"),
        ("--a", "adopt", "adopt", "adopt"),
        ("-a-", "new pull", "only_there", "new pull"),
        ("a--", "only_here", "new push", "new push"),
        ("aba", "changed pull", "conflict", "changed pull"),
        ("baa", "conflict", "changed push", "changed push"),
        ("bca", "conflict", "conflict", "conflict"),
        ("ab-", "conflict", "conflict", "conflict"),
        # A person deleted it on one side.
        ("-aa", "new pull", "only_there", "only_there"),
        ("a-a", "only_here", "new push", "only_here"),
        # ... while it changed on the other.
        ("-ba", "new pull", "only_there", "conflict"),
        ("b-a", "only_here", "new push", "conflict"),
    ],
)
def test_every_case_of_three(case: str, pull: str, push: str, both: str) -> None:
    for direction, expected in (("pull", pull), ("push", push), ("both", both)):
        action = action_of(case, direction=direction)
        assert " ".join(filter(None, (action.kind, action.direction))) == expected, direction
        assert action.kind == "same" or action.why


@pytest.mark.parametrize(
    ("case", "pull", "push", "both"),
    [
        ("-aa", "new pull", "delete_there", "delete_there"),
        ("a-a", "delete_here", "new push", "delete_here"),
        ("-ba", "new pull", "conflict", "conflict"),
        ("b-a", "conflict", "new push", "conflict"),
        # Never synced: nobody deleted it anywhere.
        ("-a-", "new pull", "only_there", "new pull"),
        ("a--", "only_here", "new push", "new push"),
    ],
)
def test_delete_carries_over_only_what_was_synced_and_is_unchanged(case: str, pull: str, push: str, both: str) -> None:
    for direction, expected in (("pull", pull), ("push", push), ("both", both)):
        action = action_of(case, direction=direction, delete=True)
        assert " ".join(filter(None, (action.kind, action.direction))) == expected, direction


@pytest.mark.parametrize(
    ("case", "direction", "delete", "here", "there", "both"),
    [
        ("bca", "both", False, "changed push", "changed pull", "changed pull keep"),
        ("bca", "pull", False, "kept", "changed pull", "changed pull keep"),
        ("bca", "push", False, "changed push", "kept", "changed push keep"),
        ("ab-", "both", False, "changed push", "changed pull", "changed pull keep"),
        ("baa", "pull", False, "kept", "changed pull", "changed pull keep"),
        ("aba", "push", False, "changed push", "kept", "changed push keep"),
        # Changed on one side, deleted on the other.
        ("b-a", "both", False, "new push", "conflict", "new push"),
        ("b-a", "both", True, "new push", "delete_here", "new push"),
        ("-ba", "both", False, "conflict", "new pull", "new pull"),
        ("-ba", "both", True, "delete_there", "new pull", "new pull"),
        ("b-a", "pull", True, "kept", "delete_here", "kept"),
        ("-ba", "push", True, "delete_there", "kept", "kept"),
        # Deleted on one side, as it was on the other: no conflict, and preferring that other one undoes it.
        ("a-a", "both", False, "new push", "only_here", "new push"),
        ("-aa", "both", False, "only_there", "new pull", "new pull"),
        ("a-a", "both", True, "delete_here", "delete_here", "delete_here"),
        # Nothing to prefer.
        ("aba", "both", False, "changed pull", "changed pull", "changed pull"),
    ],
)
def test_what_is_preferred(case: str, direction: str, delete: bool, here: str, there: str, both: str) -> None:
    for prefer, expected in (("here", here), ("there", there), ("both", both)):
        action = action_of(case, direction=direction, delete=delete, prefer=prefer)
        found = " ".join(filter(None, (action.kind, action.direction, "keep" if action.keep_as else "")))
        assert found == expected, prefer


def test_keeping_both_carries_the_side_that_gave_way_over_too() -> None:
    rules = Rules("both", prefer="both", conflict_mark="conflict-box-1")
    plan = plan_of({"x/f.bin": "b", "x/f.conflict-box-1.bin": "z"}, {"x/f.bin": "c"}, {"x/f.bin": "a"}, rules)

    pulled, copy = plan.copies("pull")[0], plan.copies("push")[0]
    assert (pulled.path, pulled.keep_as) == ("x/f.bin", "x/f.conflict-box-1-2.bin")
    assert (copy.path, copy.kind, copy.here) == ("x/f.conflict-box-1-2.bin", "new", state("b"))


def test_a_conflict_copy_the_filter_does_not_mean_stays_where_it_is() -> None:
    rules = Rules("both", prefer="both", filter=Filter(include=("/f.bin",)))
    plan = plan_of({"f.bin": "b"}, {"f.bin": "c"}, {"f.bin": "a"}, rules)

    assert [action.path for action in plan.actions] == ["f.bin"]
    assert plan.actions[0].keep_as == "f.conflict.bin"


@pytest.mark.parametrize("direction", ["pull", "push", "both"])
def test_a_one_way_conflict_copy_is_not_carried_over(direction: Literal["pull", "push", "both"]) -> None:
    plan = plan_of({"f.bin": "b"}, {"f.bin": "c"}, {"f.bin": "a"}, Rules(direction, prefer="both"))

    assert len(plan.actions) == (2 if direction == "both" else 1)


@pytest.mark.parametrize(("case", "carry"), [("-ba", "pull"), ("-aa", "pull"), ("b-a", "push"), ("a-a", "push")])
def test_a_file_our_own_crash_left_missing_is_not_taken_for_deleted(case: str, carry: Literal["pull", "push"]) -> None:
    base = replace(base_of({"f.bin": "a"}), pending={"f.bin": carry})

    for delete in (True, False):
        action = action_of(case, base, direction="both", delete=delete)
        assert (action.kind, action.direction) == ("changed", carry)


def test_pending_says_nothing_about_the_side_it_was_copied_from() -> None:
    base = replace(base_of({"f.bin": "a"}), pending={"f.bin": "pull"})

    assert action_of("a-a", base, direction="both", delete=True).kind == "delete_here"


def test_without_hashes_a_remote_is_known_by_its_version() -> None:
    common = Entry(5, {"sha256": "s"}, "id-1", 100.0, 1.0, verified=False)
    here = FileState(5, {"sha256": "s"}, 100.0)

    def kind(here: FileState, there: FileState, rules: Rules) -> tuple[str, str | None]:
        plan = make_plan(PAIR, Base(PAIR, 1, {"f": common}), {"f": here}, {"f": there}, rules, listed_at=LISTED_AT)
        return plan.actions[0].kind, plan.actions[0].direction

    two_way = Rules("both")
    assert kind(here, FileState(5, version="id-1"), two_way) == ("same", None)
    assert kind(FileState(5, mtime=100.0), FileState(5, version="id-1"), two_way) == ("same", None)
    assert kind(here, FileState(5, version="id-2"), two_way) == ("changed", "pull")
    # Put there anew with the old time: the version tells, time must not hide it.
    assert kind(here, FileState(5, mtime=100.0, version="id-2"), two_way) == ("changed", "pull")
    assert kind(FileState(5, {"sha256": "t"}, 200.0), FileState(5, version="id-1"), two_way) == ("changed", "push")
    assert kind(FileState(5, {"sha256": "t"}, 200.0), FileState(5, version="id-2"), two_way) == ("conflict", None)
    # A copy that was finished, and the sync killed before it could say so.
    assert kind(FileState(5, {"sha256": "t"}, 200.0), FileState(5, {}, 200.5, "id-2"), two_way) == ("adopt", None)


def test_a_copy_that_was_not_recorded_is_not_taken_for_somebody_elses() -> None:
    common = Entry(5, {"sha256": "s"}, "id-1", 100.0, 1.0, verified=False)
    here, there = FileState(5, {"sha256": "s"}, 100.0), FileState(5, mtime=100.0, version="id-2")

    def kind(base: Base, there: FileState) -> str:
        return make_plan(PAIR, base, {"f": here}, {"f": there}, Rules("push"), listed_at=LISTED_AT).actions[0].kind

    begun = Base(PAIR, 1, {"f": common}, {"f": "push"})
    assert kind(begun, there) == "adopt"
    assert kind(begun, replace(there, mtime=200.0)) == "conflict"
    assert kind(replace(begun, pending={}), there) == "conflict"


def test_without_base_and_hash_equal_sizes_prove_nothing_but_equal_times_do() -> None:
    def kind(here: FileState, there: FileState) -> str:
        return make_plan(PAIR, None, {"f": here}, {"f": there}, Rules("both"), listed_at=LISTED_AT).actions[0].kind

    assert kind(FileState(5, {"sha256": "s"}, 100.0), FileState(5, mtime=200.0)) == "conflict"
    assert kind(FileState(5, {"sha256": "s"}), FileState(5)) == "conflict"
    assert kind(FileState(5, {"sha256": "s"}, 100.0), FileState(5, mtime=100.4)) == "adopt"
    assert kind(FileState(5, {"sha1": "s"}, 100.0), FileState(5, {"sha1": "t"}, 100.0)) == "conflict"


def test_bytes_that_changed_under_an_old_time_are_not_carried_over_as_an_edit() -> None:
    base = Base(PAIR, 1, {"f": Entry(5, {"sha1": "a"}, None, 100.0, 1.0, verified=True)})

    def plan(mtime: float, **rules: object) -> Action:
        there = {"f": state("a")}
        return make_plan(
            PAIR,
            base,
            {"f": state("rot", mtime=mtime)},
            there,
            Rules("both", **rules),  # type: ignore[arg-type]
            listed_at=LISTED_AT,
        ).actions[0]

    assert plan(100.0).kind == "conflict"
    assert "damaged" in plan(100.0).why
    assert plan(100.0, prefer="there").direction == "pull"
    assert plan(101.0).direction == "push"


def test_the_base_of_another_pair_deletes_nothing() -> None:
    base = replace(base_of({"f.bin": "a", "g.bin": "a"}), pair="here <-> elsewhere")
    plan = plan_of({"f.bin": "a", "g.bin": "a"}, {"f.bin": "a"}, base, Rules("both", delete=True))

    assert dict(plan.counts) == {"adopt": 1, "new": 1}


@pytest.mark.parametrize(
    ("direction", "here", "there", "base", "empty"),
    [
        ("pull", {"f": "a"}, {}, {}, "there is empty"),
        ("push", {}, {"f": "a"}, {}, "here is empty"),
        ("both", {"f": "a"}, {}, {"f": "a"}, "there is empty"),
        ("both", {}, {"f": "a"}, {"f": "a"}, "here is empty"),
        ("both", {}, {}, {}, "here is empty"),
        ("both", {}, {}, {"f": "a"}, "here is empty"),
        ("pull", {}, {"g.ckpt": "a"}, {}, r"none of 1 files there is meant \(exclude \*\.ckpt\)"),
    ],
)
def test_an_empty_side_that_should_not_be_is_an_error(
    direction: Literal["pull", "push", "both"],
    here: Mapping[str, str],
    there: Mapping[str, str],
    base: Mapping[str, str],
    empty: str,
) -> None:
    def plan(rules: Rules) -> Plan:
        return make_plan(PAIR, base_of(base), listing_of(here), listing_of(there), rules, listed_at=LISTED_AT)

    rules = Rules(direction, filter=Filter(exclude=("*.ckpt",)))

    with pytest.raises(SyncRefusedError, match=empty):
        plan(rules)
    assert plan(replace(rules, allow_empty=True)).counts.keys().isdisjoint({"delete_here", "delete_there"})


@pytest.mark.parametrize(
    ("direction", "here", "there"), [("pull", {}, {"f": "a"}), ("push", {"f": "a"}, {}), ("both", {}, {"f": "a"})]
)
def test_a_first_sync_into_an_empty_place_is_no_error(
    direction: Literal["pull", "push", "both"], here: Mapping[str, str], there: Mapping[str, str]
) -> None:
    plan = make_plan(PAIR, None, listing_of(here), listing_of(there), Rules(direction), listed_at=LISTED_AT)

    assert plan.counts == {"new": 1}


def test_a_fifth_of_a_side_may_be_deleted_and_no_more() -> None:
    names = [f"f{number}" for number in range(10)]

    def plan(deleted: int) -> Plan:
        everything = dict.fromkeys(names, "a")
        return plan_of(everything, dict.fromkeys(names[deleted:], "a"), everything, Rules("both", delete=True))

    require_deletions_allowed(plan(2))
    with pytest.raises(SyncRefusedError, match="deletes 3 of 10 files here, more than 20%"):
        require_deletions_allowed(plan(3))
    require_deletions_allowed(plan(3), force=True)


def test_a_single_file_may_always_be_deleted() -> None:
    require_deletions_allowed(
        plan_of({"f": "a", "g": "a"}, {"f": "a"}, {"f": "a", "g": "a"}, Rules("both", delete=True))
    )


def test_what_the_filter_does_not_mean_is_not_in_the_plan() -> None:
    rules = Rules("both", delete=True, filter=Filter(include=("loras/**",)))
    plan = plan_of({"vae/a": "a", "loras/a": "a"}, {"loras/a": "b"}, {"vae/a": "a", "vae/b": "a"}, rules)

    assert [action.path for action in plan.actions] == ["loras/a"]
    assert (plan.here_files, plan.there_files) == (1, 1)


def test_bad_names_are_refused_one_by_one_and_the_rest_goes_on() -> None:
    there = {"../evil": "a", "new\nline": "a", "fine": "a", "a": "a", "Straße.bin": "a", "trailing.": "a"}
    plan = plan_of({"a/b": "a"}, there, None, Rules("both"))

    kinds = {action.path: action.kind for action in plan.actions}
    assert kinds == {
        "../evil": "refused",
        "new\nline": "refused",
        "a": "refused",
        "a/b": "refused",
        "fine": "new",
        "Straße.bin": "new",
        "trailing.": "new",
    }
    assert not plan.is_in_step
    assert len(plan.notices) == 1


def test_names_that_differ_in_case_clash_only_where_case_is_ignored() -> None:
    here, there = {"Lora.bin": "a"}, {"lora.bin": "b"}

    assert plan_of(here, there, None, Rules("pull")).counts == {"new": 1, "only_here": 1}
    assert plan_of(here, there, None, Rules("pull", ignores_case=True)).counts == {"refused": 2}


def test_sizes_count_what_is_copied() -> None:
    here = {"up": FileState(3), "changed": FileState(4, {"sha1": "b"}), "same": FileState(0)}
    there = {"down": FileState(10), "changed": FileState(5, {"sha1": "a"}), "same": FileState(0)}
    base = Base(PAIR, 1, {"changed": entry("a")})
    plan = make_plan(PAIR, base, here, there, Rules("both"), listed_at=LISTED_AT)

    assert plan.size_bytes == 3 + 10 + 4
    assert plan.copies("push")[0].to_dict() == {
        "path": "changed",
        "action": "changed",
        "direction": "push",
        "size_bytes": 4,
        "why": "changed here since the last sync",
    }


LETTERS = st.sampled_from(["a", "b", "c", None])
PATHS = st.sampled_from(["f", "g", "x/f", "x/g.bin"])
CASES = st.dictionaries(PATHS, st.tuples(LETTERS, LETTERS, LETTERS), max_size=4)
RULES = st.builds(
    Rules,
    direction=st.sampled_from(["pull", "push", "both"]),
    delete=st.booleans(),
    prefer=st.sampled_from([None, "here", "there", "both"]),
)


def split(cases: Mapping[str, tuple[str | None, str | None, str | None]]) -> list[dict[str, str]]:
    return [{path: case[index] for path, case in cases.items() if case[index]} for index in range(3)]  # type: ignore[misc]


@given(CASES, RULES, st.booleans())
def test_whatever_the_case_nothing_unsaid_happens(
    cases: dict[str, tuple[str | None, str | None, str | None]], rules: Rules, has_base: bool
) -> None:
    here, there, common = split(cases)
    plan = plan_of(here, there, common if has_base else None, rules)

    copies = {action.keep_as for action in plan.actions if action.keep_as}
    paths = [action.path for action in plan.actions]
    assert sorted(set(paths)) == paths
    assert set(paths) - copies == here.keys() | there.keys() | (common.keys() if has_base else set())
    for action in plan.actions:
        deletes = action.kind.startswith("delete_")
        assert not deletes or (rules.delete and has_base and action.path in common)
        assert action.direction in (None, rules.direction) or rules.direction == "both"
        if action.kind == "delete_here":
            assert action.path not in there
            assert rules.direction != "push"
            assert here[action.path] == common[action.path] or rules.prefer == "there"
        if action.direction and action.target is not None:
            # A replacement: what gives way is as it was at the last sync, or the operator has chosen.
            replaced = (here if action.direction == "pull" else there)[action.path]
            assert rules.prefer is not None or (has_base and replaced == common.get(action.path))


@given(CASES, st.sampled_from([None, "here", "there", "both"]))
def test_a_two_way_plan_carried_out_leaves_nothing_to_do(
    cases: dict[str, tuple[str | None, str | None, str | None]],
    prefer: Literal["here", "there", "both"] | None,
) -> None:
    here, there, common = split(cases)
    plan = plan_of(here, there, common, Rules("both", delete=True, prefer=prefer))
    moved: tuple[dict[str, str], dict[str, str]] = (dict(here), dict(there))
    for action in plan.actions:
        if action.keep_as:
            moved[0][action.keep_as] = moved[1][action.keep_as] = here[action.path]
    for action, side in itertools.product(plan.actions, (0, 1)):
        if action.kind == ("delete_here", "delete_there")[side]:
            del moved[side][action.path]
        if action.direction == ("pull", "push")[side] and action.path not in {a.keep_as for a in plan.actions}:
            moved[side][action.path] = (there, here)[side][action.path]
    conflicts = {action.path for action in plan.conflicts}
    assert {path: moved[0][path] for path in moved[0].keys() - conflicts} == {
        path: moved[1][path] for path in moved[1].keys() - conflicts
    }
    assert not (conflicts and prefer == "both")
    settled = {path: moved[0][path] for path in moved[0].keys() - conflicts}
    settled |= {path: common[path] for path in conflicts & common.keys()}
    again = plan_of(*moved, settled, Rules("both", delete=True, prefer=None))
    assert {action.kind for action in again.actions} <= {"same", "conflict"}


def test_a_plan_is_in_step_when_nothing_is_left_to_do() -> None:
    same = {"f": "a"}

    assert plan_of(same, same, same, Rules("both")).is_in_step
    assert plan_of({**same, "g": "a"}, same, same, Rules("pull")).is_in_step
    assert not plan_of({**same, "g": "a"}, same, {**same, "g": "a"}, Rules("both")).is_in_step
    assert not plan_of(same, {**same, "g": "a"}, same, Rules("pull")).is_in_step
