"""One sync of one pair: look at both sides, plan, copy in batches, record each, delete last.

Every order of steps here is for a kill at any moment: the data is durable before the base speaks of it, what a copy
replaces is in the trash before the copy begins, and the next run takes up what this one left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from comfymodal.errors import CancelledError, ComfymodalError, ConflictError, NotFoundError, TransferError
from comfymodal.storage.actions import Action, Kind, Plan, Rules
from comfymodal.storage.base import (
    Base,
    Carry,
    Entry,
    lasting_time,
    matches,
    read_base,
    recall,
    same_content,
    to_hash,
    write_base,
)
from comfymodal.storage.folder_side import FolderSide
from comfymodal.storage.mover import batches
from comfymodal.storage.names import base_file, ignores_case, pair_id
from comfymodal.storage.partials import sweep_partials
from comfymodal.storage.plan import make_plan, require_deletions_allowed
from comfymodal.storage.rclone.copying import CopyResult, Progress
from comfymodal.storage.rclone.process import Control
from comfymodal.storage.remote_side import RemoteSide
from comfymodal.storage.settle import Outcome, PathResult, account, advance, begin
from comfymodal.storage.side import Mover, Refusals, Side
from comfymodal.storage.values import FileState, Listing

HASHERS = 4
"""Files read at a time; hashlib lets other threads run."""
TIME = "modified:"
"""Before the time of a folder's file, which stands for the version that it has not."""
TELL_S = 0.5
"""At most so often is told how far the reading is: thousands of small files a second are nothing to follow."""

Emit = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Approved:
    """The deletions a person agreed to, by side. `is_forced`: also more than a fifth of a side."""

    here: frozenset[str] = frozenset()
    there: frozenset[str] = frozenset()
    is_forced: bool = False

    def allows(self, action: Action) -> bool:
        return action.path in (self.here if action.kind == "delete_here" else self.there)


@dataclass(frozen=True, slots=True)
class Wish:
    """How a sync is to go. `stamp` names the folder in the trash."""

    rules: Rules
    stamp: str
    is_verify: bool = False
    reads_files: bool = True
    """Whether files may be read where only their bytes can tell; without it those count as changed or in doubt."""
    approved: Approved = field(default_factory=Approved)


@dataclass(slots=True)
class Sync:
    """A pair and what moves its files. `here` keeps the base; whoever calls `run` holds its lease."""

    here: FolderSide
    there: Side
    mover: Mover
    wish: Wish
    emit: Emit
    control: Control
    moving_s: float = 0.0
    """Seconds that the mover took, of all."""
    fatal: ComfymodalError | None = None
    """Why no further batch was begun."""
    error: ComfymodalError | None = None
    """Why the newest batch was not copied whole."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _base: Base = field(init=False)
    _rehashed: set[str] = field(default_factory=set, init=False)
    _done_bytes: int = 0
    _done_files: int = 0

    def __post_init__(self) -> None:
        self._base = Base(pair_id(self.here.identity, self.there.identity))

    def look(self) -> Plan:
        """Compare both sides with the base; changes nothing.

        Raises `NotFoundError`, `SyncRefusedError`, `CancelledError`, and what the sides raise.
        """
        rules, pair = self.wish.rules, self._base.pair
        listed_at = time.time()
        self._phase("listing")
        with ThreadPoolExecutor(1) as pool:
            # What takes longest; all that is done meanwhile costs nothing.
            listing = pool.submit(self._list_there)
            base = read_base(self._base_file, pair)
            self._base = base or self._base
            here = self._list_here()
            known = dict(here) if self.wish.is_verify else recall(here, base)
            there = dict(self._with_versions(listing.result()))
        self._go_on()
        self._require_in_reach(here, there, base)
        if self.wish.reads_files:
            self._hash(known, there, base)
        if self.here.root.is_dir() and rules.allows("pull"):
            rules = replace(rules, ignores_case=ignores_case(self.here.root))
        plan = make_plan(pair, base, known, there, rules, listed_at=listed_at)
        if not self.wish.reads_files:
            plan = replace(plan, actions=tuple(_without_doubt(action) for action in plan.actions))
        self.emit({"type": "plan", **summary_of(plan)})
        return plan

    def run(self, plan: Plan) -> tuple[Plan, tuple[PathResult, ...]]:
        """Carry the plan out, as far as nobody stops it; the plan as it was carried out, and one answer per path.

        Raises `SyncRefusedError` when it deletes too much, `ConflictError` when another sync wrote the base.
        """
        plan = _only_approved(plan, self.wish.approved)
        require_deletions_allowed(plan, force=self.wish.approved.is_forced)
        self.here.root.mkdir(parents=True, exist_ok=True)
        self._record(begin(self._base, plan))
        total = sum(action.size for action in plan.actions if action.direction)
        carries: tuple[Carry, ...] = ("pull", "push")
        for carry in carries:
            for batch in batches(plan.copies(carry)):
                if self._is_over:
                    break
                self._copy(plan, batch, carry, total)
        self._delete(plan)
        self._advance(plan)
        results = account(plan, self.outcomes)
        if plan.copies("pull") and not self._is_over:
            sweep_partials(self.here.place.path, {action.path for action in plan.actions})
        return plan, results

    @property
    def is_stopped(self) -> bool:
        return self.control() is not None

    @property
    def copied_bytes(self) -> int:
        return self._done_bytes

    @property
    def _is_over(self) -> bool:
        return self.is_stopped or self.fatal is not None

    @property
    def _base_file(self) -> Path:
        return base_file(self.here.root, self._base.pair)

    def _list_here(self) -> Listing:
        try:
            return self.here.list_files(self.control)
        except NotFoundError:
            # What is only written to may be made by its first sync.
            if self.wish.rules.direction == "push":
                raise
            return {}

    def _list_there(self) -> Listing:
        try:
            return self.there.list_files(self.control)
        except NotFoundError:
            # Of a bucket only the bucket itself can be missing, and nobody here makes one.
            if self.wish.rules.direction == "pull" or isinstance(self.there, RemoteSide):
                raise
            return {}

    def _require_in_reach(self, here: Listing, there: Listing, base: Base | None) -> None:
        """What lies behind a link to a disk that is not mounted now is not deleted."""
        sides: tuple[tuple[Side, Listing], ...] = ((self.here, here), (self.there, there))
        for side, listing in sides:
            missing = base.entries.keys() - listing.keys() if base else set()
            for path in filter(self.wish.rules.filter.accepts, sorted(missing)):
                if isinstance(side, FolderSide) and (link := side.broken_link(path)) is not None:
                    raise TransferError(
                        f"{path!r} is out of reach: {link} is a link that leads nowhere",
                        hint="mount what it leads to; or remove the link, if the file is meant to be gone",
                    )

    def _with_versions(self, listing: Listing) -> Listing:
        # A folder's files have no version of their own: their time tells whether they are as they were.
        if not isinstance(self.there, FolderSide):
            return listing
        return {path: replace(state, version=f"{TIME}{state.mtime}") for path, state in listing.items()}

    def _hash(self, here: dict[str, FileState], there: dict[str, FileState], base: Base | None) -> None:
        """Read what only its bytes can tell, and put the hashes into the listings."""
        wanted = to_hash(here, there, base, trusts_time=not self.wish.is_verify)
        if isinstance(self.there, FolderSide):
            known = base.entries if base and not self.wish.is_verify else {}
            alike = [path for path in here.keys() & there.keys() if here[path].size == there[path].size]
            both = [
                path
                for path in alike
                if (path not in known or known[path].version is None) and same_content(here[path], there[path]) is None
            ]
            wanted.update({path: ("sha1",) for path in both})
            there.update(self._hashes_of(self.there, there, dict.fromkeys(both, ("sha1",))))
        here.update(self._hashes_of(self.here, here, wanted))
        self._rehashed.update(wanted)

    def _hashes_of(self, side: Side, listing: Listing, wanted: Mapping[str, Sequence[str]]) -> dict[str, FileState]:
        if not wanted:
            return {}
        total, done, told_at = sum(listing[path].size for path in wanted), 0, 0.0
        self._phase("hashing")

        def read(path: str) -> tuple[str, Mapping[str, str]]:
            self._go_on()
            try:
                return path, side.hash_file(path, wanted[path])
            except OSError:
                # Gone or unreadable: what is to be done with it fails by itself, if anything is.
                return path, {}

        found = {}
        with ThreadPoolExecutor(HASHERS) as pool:
            for path, hashes in pool.map(read, wanted):
                done += listing[path].size
                found[path] = replace(listing[path], hashes={**listing[path].hashes, **hashes})
                if (now := time.monotonic()) - told_at >= TELL_S or done == total:
                    told_at = now
                    self.emit({"type": "hashing", "done_bytes": done, "total_bytes": total, "name": path})
        return found

    def _appeared(self, target: Side, batch: Sequence[Action]) -> Refusals:
        """Whoever put a file there since the listing has the only copy of it."""
        names = [action.path for action in batch if action.target is None or action.keep_as]
        return {
            path: ConflictError(f"{path!r} appeared while the sync ran; it was left alone", hint="run the sync again")
            for path in target.find_files(names)
        }

    def _copy(self, plan: Plan, batch: Sequence[Action], carry: Carry, total: int) -> None:
        source, target = (self.there, self.here) if carry == "pull" else (self.here, self.there)
        self._phase("copy")
        refused = {
            **target.set_aside([action for action in batch if action.keep_as]),
            **target.keep_replaced([a for a in batch if a.target and not a.keep_as], self.wish.stamp),
        }
        refused = {**self._appeared(target, [a for a in batch if a.path not in refused]), **refused}
        self._refuse(refused)
        fit = [action for action in batch if action.path not in refused]
        before = self._done_bytes

        def on_progress(progress: Progress) -> None:
            self.emit(
                {
                    "type": "transfer",
                    "done_bytes": before + progress.bytes,
                    "total_bytes": total,
                    "files_done": self._done_files + progress.files_done,
                    "files": len(plan.copies("pull")) + len(plan.copies("push")),
                    "names": [each.path for each in progress.moving[:4]],
                    "speed": progress.speed,
                }
            )

        began = time.monotonic()
        moved = self.mover(source, target, fit, on_progress, self.control) if fit else None
        self.moving_s += time.monotonic() - began
        if moved is not None:
            self._settle(moved, {action.path: action for action in fit}, carry)
        undone = [a.path for a in fit if a.target and not a.keep_as and not self._is_copied(a.path)]
        target.put_back(undone, self.wish.stamp)
        self._phase("commit")
        target.commit()
        self._advance(plan)

    def _settle(self, moved: CopyResult, actions: Mapping[str, Action], carry: Carry) -> None:
        copied = [each.path for each in moved.copied]
        here, there = self.here.find_files(copied), self._with_versions(self.there.find_files(copied))
        for path in copied:
            action = actions[path]
            is_push = carry == "push"
            now = there.get(path)
            self.outcomes[path] = self._pushed(path, now) if is_push else self._pulled(action, here.get(path), now)
            self._done_files += 1
            self._done_bytes += action.size
        for each in moved.results:
            if each.result in ("failed", "missing"):
                self.outcomes[each.path] = Outcome("failed" if each.result == "failed" else "missing", each.error)
        self.error = moved.error or self.error
        if moved.error is not None and not moved.is_stopped and any(r.result == "skipped" for r in moved.results):
            self.fatal = moved.error

    def _is_copied(self, path: str) -> bool:
        return path in self.outcomes and self.outcomes[path].result == "copied"

    def _pushed(self, path: str, there: FileState | None) -> Outcome:
        if there is None:
            return Outcome("failed", "it was sent, and is not there")
        # The server compared the hash that was sent along; where there is no server, our own is a beginning.
        hashes = there.hashes or self.there.hash_file(path, ("sha1",))
        return Outcome("copied", target=replace(there, hashes=hashes), verified=bool(there.hashes))

    def _pulled(self, action: Action, here: FileState | None, there: FileState | None) -> Outcome:
        planned = action.there
        if here is None or planned is None:
            return Outcome("failed", "it arrived, and was gone again at once")
        if there is not None and matches(there, planned) is False:
            # What came may be the old file or the new one.
            self.here.withdraw(action.path, self.wish.stamp)
            return Outcome("failed", "it changed at its source while it was copied; the next sync takes the new one")
        if here.size != planned.size:
            # Somebody's work, and none of ours: what it replaced was ours, and is there still.
            return Outcome("failed", "it changed here as soon as it had come")
        # rclone compares what it wrote with the hash the source told; where there is none, our own is a beginning.
        hashes = planned.hashes or self.here.hash_file(action.path, ("sha1",))
        return Outcome("copied", target=replace(here, hashes=hashes), verified=bool(planned.hashes))

    def _delete(self, plan: Plan) -> None:
        for side, name in ((self.here, "here"), (self.there, "there")):
            actions = [action for action in plan.actions if action.kind == f"delete_{name}"]
            if not actions or self._is_over:
                continue
            self._phase("delete")
            refused = side.put_away(actions, self.wish.stamp)
            self._refuse(refused)
            done = [action.path for action in actions if action.path not in refused]
            self.outcomes.update(dict.fromkeys(done, Outcome("deleted")))
            side.commit()

    def _refuse(self, refused: Refusals) -> None:
        self.outcomes.update({path: Outcome("failed", error.message) for path, error in refused.items()})

    def _advance(self, plan: Plan) -> None:
        base = advance(self._base, plan, self.outcomes, now=time.time(), rehashed=self._rehashed)
        if base is not self._base and isinstance(self.there, FolderSide):
            entries = {path: _without_young_time(entry, plan.listed_at) for path, entry in base.entries.items()}
            base = replace(base, entries=entries)
        self._record(base)

    def _record(self, base: Base) -> None:
        if base is not self._base:
            self._base = write_base(self._base_file, base)
            self.here.commit()

    def _phase(self, phase: str) -> None:
        self.emit({"type": "phase", "phase": phase})

    def _go_on(self) -> None:
        if self.is_stopped:
            raise CancelledError("stopped before anything was copied", hint="run it again")


def summary_of(plan: Plan) -> dict[str, Any]:
    """The plan in figures, as JSON."""
    copies = [action for action in plan.actions if action.direction]
    return {
        "here_files": plan.here_files,
        "there_files": plan.there_files,
        "counts": dict(plan.counts),
        "copy_files": len(copies),
        "copy_bytes": plan.size_bytes,
        "pull_bytes": sum(action.size for action in plan.copies("pull")),
        "push_bytes": sum(action.size for action in plan.copies("push")),
        "notices": list(plan.notices),
        "is_in_step": plan.is_in_step,
    }


def _without_young_time(entry: Entry, listed_at: float) -> Entry:
    """As `lasting_time`, of the file there: it is read again until its time proves something."""
    if entry.version is None or not entry.version.startswith(TIME):
        return entry
    is_lasting = lasting_time(float(entry.version.removeprefix(TIME)), listed_at=listed_at) is not None
    return entry if is_lasting else replace(entry, version=None)


def _without_doubt(action: Action) -> Action:
    """What would be read before it is called a conflict is none yet."""
    here, there = action.here, action.there
    if action.kind != "conflict" or here is None or there is None or same_content(here, there) is not None:
        return action
    return replace(action, kind="unread", why="equal in size; a sync reads it here to tell whether it is equal")


def _only_approved(plan: Plan, approved: Approved) -> Plan:
    def left(action: Action) -> Action:
        if not action.kind.startswith("delete_") or approved.allows(action):
            return action
        kind: Kind = "only_here" if action.kind == "delete_here" else "only_there"
        return replace(action, kind=kind, why=f"{action.why}; nobody agreed to delete it")

    return replace(plan, actions=tuple(left(action) for action in plan.actions))
