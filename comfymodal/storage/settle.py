"""What a sync did: the base moved on by what is in place, and an answer for every path that was planned."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from comfymodal.storage.actions import Action, Plan
from comfymodal.storage.base import Base, Carry, Entry, is_untouched, lasting_time, same_content
from comfymodal.storage.values import FileState


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action; `missing` is a source that was gone when it was to be copied."""

    result: Literal["copied", "deleted", "failed", "missing"]
    error: str | None = None
    target: FileState | None = None
    """Copied files: what the receiving side holds now, with a hash where one could be taken, and its new version.

    A pushed file needs the version when its remote knows no hashes, or the next sync takes it for changed there.
    """
    verified: bool = False
    """Whether the mover compared hashes by itself, as rclone does with what it uploads."""


@dataclass(frozen=True, slots=True)
class PathResult:
    """The answer for one path."""

    path: str
    action: str
    result: Literal["copied", "deleted", "same", "conflict", "failed", "skipped"]
    size_bytes: int
    why: str = ""
    verified: bool | None = None
    """Copied files: whether a hash of each side was compared."""

    def to_dict(self) -> dict[str, Any]:
        found = {"path": self.path, "action": self.action, "result": self.result, "size_bytes": self.size_bytes}
        return (
            found
            | ({"why": self.why} if self.why else {})
            | ({"verified": self.verified} if self.verified is not None else {})
        )


def begin(base: Base, plan: Plan) -> Base:
    """The base to write (and commit) before anything is copied: which files it knows are about to be written.

    Without it, after a crash, a file that was moved away for its successor would look like one a person deleted, and
    a copy that was not recorded like one a person changed. The same object when there is nothing to write.
    """
    planned = {action.path for action in plan.actions}
    pending: dict[str, Carry] = {path: carry for path, carry in base.pending.items() if path not in planned}
    for action in plan.actions:
        if action.direction and (action.kind == "changed" or action.path in base.entries):
            pending[action.path] = action.direction
    return base if pending == base.pending else replace(base, pending=pending)


def advance(
    base: Base, plan: Plan, outcomes: Mapping[str, Outcome], *, now: float, rehashed: Container[str] = ()
) -> Base:
    """The base after these outcomes and all that was found in step. `now` in Unix seconds.

    `rehashed` are the files here that were read in this run; a hash that was only recalled verifies nothing.

    Call it with each batch: a sync that is killed afterwards loses nothing. What failed, or arrived as something
    else than was planned, leaves its entry as it was. The same object when nothing is new.
    """
    entries, pending = dict(base.entries), dict(base.pending)
    for action in plan.actions:
        outcome = outcomes.get(action.path)
        if action.kind in ("same", "adopt"):
            entry = _entry_of_both(action, entries.get(action.path), plan.listed_at, action.path in rehashed)
            if entry is not None and not entry.synced_at:
                entry = replace(entry, synced_at=now)
            _settle(entries, action.path, entry)
        elif outcome is not None and outcome.result == "deleted" and action.kind.startswith("delete_"):
            _settle(entries, action.path, None)
        elif outcome is not None and outcome.result == "copied" and is_as_planned(action, outcome):
            _settle(entries, action.path, _entry_of_copy(action, outcome, plan, now))
        else:
            continue
        pending.pop(action.path, None)
    if entries == base.entries and pending == base.pending:
        return base
    return replace(base, entries=entries, pending=pending)


def is_as_planned(action: Action, outcome: Outcome) -> bool:
    """Whether what arrived may be what was planned; False only when size or hash contradict it."""
    if action.source is None or outcome.target is None:
        return action.source is not None
    return same_content(action.source, outcome.target) is not False


def account(plan: Plan, outcomes: Mapping[str, Outcome]) -> tuple[PathResult, ...]:
    """One answer per planned path: rclone skips in silence what it does not find, so silence counts as failure."""
    return tuple(_account_one(action, outcomes.get(action.path)) for action in plan.actions)


def _account_one(action: Action, outcome: Outcome | None) -> PathResult:
    def answer(result: Literal["same", "conflict", "failed", "skipped", "deleted"], why: str) -> PathResult:
        return PathResult(action.path, action.kind, result, action.size, why)

    if action.kind in ("same", "adopt"):
        return answer("same", action.why)
    if action.kind == "conflict":
        return answer("conflict", action.why)
    if action.kind == "refused":
        return answer("failed", action.why)
    if action.kind in ("kept", "only_here", "only_there"):
        return answer("skipped", action.why)
    return _account_act(action, outcome)


def _account_act(action: Action, outcome: Outcome | None) -> PathResult:
    failed = PathResult(action.path, action.kind, "failed", action.size)
    if outcome is None:
        return replace(failed, why="it was planned, but not reached")
    if outcome.result == "missing":
        return replace(failed, why=outcome.error or "it was gone when it was to be copied")
    if outcome.result == "failed":
        return replace(failed, why=outcome.error or "it failed without a reason")
    if outcome.result == "deleted":
        return replace(failed, result="deleted", why=action.why)
    if not is_as_planned(action, outcome):
        return replace(failed, why="what arrived is not what was planned: it changed while it was copied")
    return replace(failed, result="copied", why=action.why, verified=_is_verified(action, outcome))


def _settle(entries: dict[str, Entry], path: str, entry: Entry | None) -> None:
    if entry is None:
        entries.pop(path, None)
    else:
        entries[path] = entry


def _entry_of_both(action: Action, old: Entry | None, listed_at: float, was_read: bool) -> Entry | None:
    """The entry of a file that was found equal on both sides; its `synced_at` is 0 when it says something new."""
    here, there = action.here, action.there
    if here is None or there is None:
        return None
    known = old if old is not None and action.kind == "same" else None
    was_read = was_read or old is None or not is_untouched(here, old)
    entry = Entry(
        size=here.size,
        hashes={**(known.hashes if known else {}), **there.hashes, **here.hashes},
        version=there.version,
        mtime=lasting_time(here.mtime, listed_at=listed_at),
        synced_at=known.synced_at if known else 0.0,
        verified=bool(known and known.verified) or (was_read and _are_compared(here, there)),
    )
    # Found as it was: no reason to write the whole base again only for a newer time.
    return entry if known is None or entry == known else replace(entry, synced_at=0.0)


def _entry_of_copy(action: Action, outcome: Outcome, plan: Plan, now: float) -> Entry | None:
    source, target = action.source, outcome.target or FileState(action.size)
    if source is None:
        return None
    here, there = (target, source) if action.direction == "pull" else (source, target)
    return Entry(
        size=source.size,
        hashes={**source.hashes, **target.hashes},
        version=there.version,
        mtime=lasting_time(here.mtime, listed_at=plan.listed_at),
        synced_at=now,
        verified=_is_verified(action, outcome),
    )


def _is_verified(action: Action, outcome: Outcome) -> bool:
    return outcome.verified or (
        action.source is not None and outcome.target is not None and _are_compared(action.source, outcome.target)
    )


def _are_compared(one: FileState, other: FileState) -> bool:
    return bool(one.hashes.keys() & other.hashes.keys()) and same_content(one, other) is True
