"""What happens to one path, given what both sides hold and what they held when they were last in step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from comfymodal.storage.actions import Action, Kind, Rules, Side
from comfymodal.storage.base import Carry, Entry, is_same_time, is_untouched, matches, same_content
from comfymodal.storage.values import FileState


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of one path."""

    path: str
    here: FileState | None
    there: FileState | None
    entry: Entry | None
    pending: Carry | None
    rules: Rules

    def act(self, kind: Kind, why: str, direction: Carry | None = None) -> Action:
        source = self.there if direction == "pull" else self.here if direction == "push" else self.here or self.there
        size = source.size if source else 0
        return Action(self.path, kind, size, why, direction, self.here, self.there)


def decide(case: Case) -> Action:
    if case.here is not None and case.there is not None:
        return _decide_both(case, case.here, case.there)
    if case.here is not None:
        return _decide_one(case, case.here, "here")
    if case.there is not None:
        return _decide_one(case, case.there, "there")
    return case.act("adopt", "gone on both sides")


def _decide_both(case: Case, here: FileState, there: FileState) -> Action:
    entry = case.entry
    same = same_content(here, there)
    here_is_old, there_is_old = _is_old(case, here, "here"), _is_old(case, there, "there")
    if same:
        return case.act("same", "") if here_is_old and there_is_old else case.act("adopt", "equal on both sides")
    if same is None and here_is_old and there_is_old:
        return case.act("same", "each side is as it was; their hashes cannot be compared")
    # A copy of ours that was cut off before it was recorded gave the receiving side a new version.
    may_be_ours = case.pending is not None or not (here_is_old or there_is_old)
    if same is None and may_be_ours and is_same_time(here.mtime, there.mtime):
        # What rclone itself goes by. It sets a copy's time last, so a half-written file never has it.
        return case.act("adopt", "equal in size and time; there is no hash to compare")
    if entry is not None and there_is_old and not here_is_old and is_untouched(here, entry):
        return _conflict(case, "its bytes here changed though its time did not: it may be damaged")
    if here_is_old == there_is_old:
        return _conflict(case, _words_of_conflict(entry, same))
    return _carry_change(case, "push" if there_is_old else "pull")


def _words_of_conflict(entry: Entry | None, same: bool | None) -> str:
    if same is None:
        return "equal in size, but no hash, version or time tells whether they are equal"
    return "changed on both sides" if entry else "differs, and no earlier sync tells which side is newer"


def _carry_change(case: Case, carry: Carry) -> Action:
    changed = "here" if carry == "push" else "there"
    if case.rules.allows(carry):
        return case.act("changed", f"changed {changed} since the last sync", carry)
    return _conflict(case, f"changed {changed} since the last sync, and this pair only carries the other way")


def _conflict(case: Case, why: str) -> Action:
    """Both sides are there and differ: what the operator prefers, or nothing."""
    prefer, direction = case.rules.prefer, case.rules.direction
    if prefer is None:
        return case.act("conflict", why)
    if prefer == "both":
        action = case.act("changed", f"{why}; both are kept", "push" if direction == "push" else "pull")
        # A name for it is found when all the others are known.
        return replace(action, keep_as=case.path)
    winner: Carry = "push" if prefer == "here" else "pull"
    if case.rules.allows(winner):
        return case.act("changed", f"{why}; the one {prefer} is preferred", winner)
    return case.act("kept", f"{why}; the one {prefer} is preferred")


def _decide_one(case: Case, state: FileState, side: Side) -> Action:
    """The file is on one `side` only."""
    carry: Carry = "push" if side == "here" else "pull"
    other = "there" if side == "here" else "here"
    if case.entry is None:
        return _carry_new(case, side, f"not {other} yet")
    if not case.rules.allows(carry):
        return _decide_extra(case, state, side)
    if case.pending == carry:
        return case.act("changed", f"an earlier sync was cut off while it copied this one {other}", carry)
    if case.rules.direction != "both":
        return case.act("new", f"missing {other}, where it was at the last sync", carry)
    return _decide_deletion(case, state, side)


def _carry_new(case: Case, side: Side, why: str) -> Action:
    carry: Carry = "push" if side == "here" else "pull"
    if case.rules.allows(carry):
        return case.act("new", why, carry)
    return case.act("only_here" if side == "here" else "only_there", why)


def _decide_extra(case: Case, state: FileState, side: Side) -> Action:
    """The receiving `side` of a one-way pair has a file that was synced once; its source is gone."""
    only: Kind = "only_here" if side == "here" else "only_there"
    if not case.rules.delete:
        return case.act(only, "deleted at its source since the last sync; --delete carries that over")
    if _is_old(case, state, side) or case.rules.prefer not in (None, side, "both"):
        return _delete(case, side, "deleted at its source since the last sync")
    if case.rules.prefer:
        return case.act("kept", f"changed {side}, deleted at its source; the one {side} is preferred")
    return case.act("conflict", f"changed {side} since the last sync, deleted at its source")


def _decide_deletion(case: Case, state: FileState, side: Side) -> Action:
    """One side of a two-way pair has a file that was synced once; on the other a person deleted it."""
    rules, other = case.rules, "there" if side == "here" else "here"
    carry: Carry = "push" if side == "here" else "pull"
    is_old = _is_old(case, state, side)
    if is_old and rules.delete:
        return _delete(case, side, f"deleted {other} since the last sync")
    if rules.prefer in (side, "both"):
        return case.act("new", f"deleted {other} since the last sync; the one {side} is preferred", carry)
    if is_old:
        only: Kind = "only_here" if side == "here" else "only_there"
        return case.act(
            only, f"deleted {other} since the last sync; --delete carries that over, --prefer {side} undoes it"
        )
    if rules.prefer is not None and rules.delete:
        return _delete(case, side, f"changed {side}, deleted {other}, which is preferred")
    return case.act("conflict", f"changed {side} and deleted {other} since the last sync")


def _is_old(case: Case, state: FileState, side: Side) -> bool:
    """Whether the file on this side is what it was at the last sync; where nothing tells, it counts as changed."""
    entry = case.entry
    if entry is None:
        return False
    found = matches(state, entry.here if side == "here" else entry.there)
    return is_untouched(state, entry) if found is None and side == "here" else bool(found)


def _delete(case: Case, side: Side, why: str) -> Action:
    return case.act("delete_here" if side == "here" else "delete_there", why)
