"""Random edits on both sides, a crash at a random moment, a rerun: sides equal, nothing lost, no unplanned deletion.

The plan, the base and the trash are the real ones, on real folders; only the moving is done by plain copies that can
be stopped after any single step (rclone's part has its own tests). `pytest -m soak` plays 200 rounds, the default run
ten. ROUNDS and SEED (env vars) change what is played.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfymodal.errors import ConflictError, NotFoundError
from comfymodal.storage.actions import Action, Plan, Rules, Side
from comfymodal.storage.base import Base, Carry, read_base, recall, to_hash, write_base
from comfymodal.storage.filters import Filter
from comfymodal.storage.names import base_file, pair_id, stamp_of
from comfymodal.storage.plan import make_plan
from comfymodal.storage.settle import Outcome, account, advance, begin
from comfymodal.storage.trash import empty, keep_replaced, list_trash, older_than, put_away, set_aside
from comfymodal.storage.values import FileState

SEED = int(os.environ.get("SEED", "20261121"))
ROUNDS = int(os.environ.get("ROUNDS", "200"))
NAMES = ("a.bin", "b.bin", "loras/a.bin", "loras/ünï côde.bin", "-leading dash.bin", "x/y/z.bin", "noext", ".hidden")
PAIR = pair_id("volume:/", "remote:bucket")
SIDES: tuple[Side, Side] = ("here", "there")
BATCH = 3


@pytest.mark.parametrize("seed", range(5))
def test_ten_rounds(tmp_path: Path, seed: int) -> None:
    play(World(tmp_path, random.Random(SEED + seed), has_hashes=seed % 2 == 0, has_links=seed % 3 != 0), rounds=10)


@pytest.mark.soak
@pytest.mark.parametrize("has_hashes", [True, False], ids=["hashes", "no hashes there"])
@pytest.mark.parametrize("has_links", [True, False], ids=["hard links", "no hard links"])
def test_two_hundred_rounds(tmp_path: Path, has_hashes: bool, has_links: bool) -> None:
    world = World(tmp_path, random.Random(SEED), has_hashes=has_hashes, has_links=has_links)
    play(world, rounds=ROUNDS)
    print(f"\nseed {SEED}, {ROUNDS} rounds: {world.tally}")
    assert world.tally["crash"] > ROUNDS / 4


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chance=st.randoms(use_true_random=False), has_hashes=st.booleans(), has_links=st.booleans())
def test_any_few_rounds(chance: random.Random, has_hashes: bool, has_links: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        play(World(Path(folder), chance, has_hashes=has_hashes, has_links=has_links), rounds=2)


class CrashError(Exception):
    """The process is gone."""


@dataclass
class World:
    """Both places, a person who edits them, and a clock that only moves when something happens."""

    root: Path
    chance: random.Random
    has_hashes: bool
    has_links: bool
    clock: int = 1_700_000_000
    contents: set[bytes] = field(default_factory=set)
    deleted: dict[Side, set[str]] = field(default_factory=lambda: {"here": set(), "there": set()})
    """By the person, since both sides were last equal."""
    tally: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for side in SIDES:
            self.folder(side).mkdir()

    def folder(self, side: Side) -> Path:
        return self.root / side

    @property
    def base_file(self) -> Path:
        return base_file(self.folder("here"), PAIR)

    def now(self) -> float:
        self.clock += 10
        return float(self.clock)

    def count(self, what: str) -> None:
        self.tally[what] = self.tally.get(what, 0) + 1

    def files(self, side: Side) -> dict[str, bytes]:
        """What a person sees: no trash, no half-written files."""
        folder, meant = self.folder(side), Filter()
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if meant.accepts(name)}

    def bytes_kept(self) -> set[bytes]:
        """Every content that is somewhere under a whole name: in place, in a conflict copy or in a trash."""
        return {
            path.read_bytes()
            for side in SIDES
            for path in self.folder(side).rglob("*")
            if path.is_file() and path.suffix not in (".partial", ".json")
        }

    def listing(self, side: Side) -> dict[str, FileState]:
        folder, found = self.folder(side), {}
        for path in folder.rglob("*"):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = self.state(side, path)
        return found

    def state(self, side: Side, path: Path, hashed: tuple[str, ...] = ()) -> FileState:
        stat = path.stat()
        if side == "there":
            hashed = ("sha1",) if self.has_hashes else ()
        hashes = {name: hashlib.new(name, path.read_bytes()).hexdigest() for name in hashed}
        version = f"{stat.st_ino}-{stat.st_mtime_ns}" if side == "there" else None
        return FileState(stat.st_size, hashes, stat.st_mtime, version)

    # --- the person

    def edit(self) -> None:
        side = self.chance.choice(SIDES)
        present = sorted(self.files(side))
        kind = self.chance.choice(("write", "write", "write", "delete", "rename", "touch", "both"))
        if kind in ("delete", "rename", "touch") and present:
            path = self.folder(side) / self.chance.choice(present)
            if kind in ("delete", "rename"):
                self.deleted[side].add(path.relative_to(self.folder(side)).as_posix())
            if kind == "delete":
                path.unlink()
            elif kind == "rename":
                self.write(side, self.chance.choice(NAMES), path.read_bytes())
                path.unlink()
            else:
                self.set_time(path)
            return
        name = self.chance.choice([*NAMES, *present])
        for each in SIDES if kind == "both" else (side,):
            self.write(each, name, self.new_content() if kind != "both" else b"the same on both sides")

    def new_content(self) -> bytes:
        # Few sizes, so that size alone tells little; now and then nothing at all.
        size = self.chance.choice((0, 40, 40, 40, 60))
        return f"content {len(self.contents):030d}".ljust(size, "-").encode()[:size]

    def write(self, side: Side, name: str, content: bytes) -> None:
        path = self.folder(side) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = self.root / "editor"
        part.write_bytes(content)
        part.replace(path)
        self.set_time(path)
        self.contents.add(content)

    def set_time(self, path: Path) -> None:
        now = self.now()
        os.utime(path, (now, now))

    def clear_up(self) -> None:
        """Conflict copies pile up; a person deletes some, on both sides."""
        names = sorted(set(self.files("here")) | set(self.files("there")))
        for name in self.chance.sample(names, max(0, len(names) - 25)):
            for side in SIDES:
                self.deleted[side].add(name)
                (self.folder(side) / name).unlink(missing_ok=True)
        for side in SIDES:
            if len(trashed := list_trash(self.folder(side))) > 40:
                empty(self.folder(side), older_than(trashed, self.clock - 1000))


@dataclass
class Sync:
    """One run of a sync that moves by plain copies; `tick` is called between any two steps and may crash or edit."""

    world: World
    rules: Rules
    tick: Callable[[], None] = lambda: None
    plan: Plan | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def run(self) -> Plan:
        world = self.world
        stamp = stamp_of(world.now())
        listed_at = world.now()
        base = read_base(world.base_file, PAIR)
        had_base = base is not None
        here, there = world.listing("here"), world.listing("there")
        here = recall(here, base)
        for path, hashed in to_hash(here, there, base).items():
            here[path] = world.state("here", world.folder("here") / path, hashed)
        self.plan = plan = make_plan(PAIR, base, here, there, self.rules, listed_at=listed_at)
        assert had_base or not (plan.deletions("here") or plan.deletions("there"))
        base = self.save(base or Base(PAIR), begin(base or Base(PAIR), plan))
        for batch in batches(plan, world.chance):
            for action in batch:
                self.tick()
                self.outcomes[action.path] = self.act(action, stamp)
                self.tick()
            base = self.save(base, advance(base, plan, self.outcomes, now=world.now()))
            self.tick()
        self.save(base, advance(base, plan, self.outcomes, now=world.now()))
        return plan

    def save(self, old: Base, new: Base) -> Base:
        self.tick()
        return new if new is old else write_base(self.world.base_file, new)

    def act(self, action: Action, stamp: str) -> Outcome:
        try:
            if action.direction:
                return self.copy(action, stamp)
            side: Side = "here" if action.kind == "delete_here" else "there"
            put_away(self.world.folder(side), action.path, stamp, expected=getattr(action, side))
        except (ConflictError, NotFoundError) as error:
            return Outcome("failed", error.message)
        return Outcome("deleted")

    def copy(self, action: Action, stamp: str) -> Outcome:
        source_side, target_side = SIDES if action.direction == "push" else reversed(SIDES)
        target_folder = self.world.folder(target_side)
        source, target = self.world.folder(source_side) / action.path, target_folder / action.path
        kept = ""
        if action.keep_as:
            set_aside(target_folder, action.path, action.keep_as, expected=action.target)
            self.tick()
        elif action.target is not None:
            # A remote (and a volume without links) is left without the file until its successor is there.
            keep = keep_replaced if target_side == "here" and self.world.has_links else put_away
            kept = keep(target_folder, action.path, stamp, expected=action.target)
            self.tick()
        if not source.exists():
            return Outcome("missing")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.0a1b2c3d.partial")
        content, stat = source.read_bytes(), source.stat()
        part.write_bytes(content[: len(content) // 2])
        self.tick()
        part.write_bytes(content)
        os.utime(part, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
        self.tick()
        if not source.exists() or source.stat().st_mtime_ns != stat.st_mtime_ns:
            return Outcome("failed", "source file is being updated")
        if target.exists() and not (kept and target.samefile(target_folder / kept)):
            # A person put something there meanwhile; what the trash holds already is simply replaced.
            put_away(target_folder, action.path, f"{stamp}-late")
        part.replace(target)
        self.tick()
        if not target.exists():
            return Outcome("failed", "somebody took it away as soon as it was there")
        hashed = tuple(action.source.hashes) if action.source and action.source.hashes else ("sha256",)
        return Outcome("copied", target=self.world.state(target_side, target, hashed))


def batches(plan: Plan, chance: random.Random) -> Iterator[list[Action]]:
    """In the order a job has: first what is renamed, copies, deletions last."""
    copies = [*plan.copies("pull"), *plan.copies("push")]
    chance.shuffle(copies)
    copies.sort(key=lambda action: action.keep_as is None)
    work = [*copies, *plan.deletions("here"), *plan.deletions("there")]
    for start in range(0, len(work), BATCH):
        yield work[start : start + BATCH]


def play(world: World, *, rounds: int) -> None:
    for _ in range(rounds):
        for _ in range(world.chance.randrange(12)):
            world.edit()
        world.clear_up()
        if world.chance.random() < 0.15:
            lose_base(world)
        hit(world)
        complete(world)


def lose_base(world: World) -> None:
    world.count("base lost")
    if world.base_file.exists() and world.chance.random() < 0.5:
        text = world.base_file.read_bytes()
        world.base_file.write_bytes(text[: world.chance.randrange(len(text))])
    else:
        world.base_file.unlink(missing_ok=True)


def hit(world: World) -> None:
    """A sync of any kind, crashed at some step (or not), with a person at work meanwhile (or not)."""
    chance = world.chance
    rules = Rules(
        direction=chance.choice(("pull", "push", "both")),
        delete=chance.random() < 0.5,
        prefer=chance.choice((None, "here", "there", "both")),
        allow_empty=True,
        conflict_mark=f"conflict-{world.clock}",
    )
    crash_at = chance.choice((0, chance.randrange(6), chance.randrange(15), chance.randrange(40)))
    is_disturbed = chance.random() < 0.3
    kept = world.bytes_kept()
    seen = {side: set(world.files(side)) for side in SIDES}
    steps = 0

    def tick() -> None:
        nonlocal steps, kept
        steps += 1
        if steps == crash_at:
            raise CrashError
        if is_disturbed and chance.random() < 0.1:
            world.edit()
            world.count("edit meanwhile")
            kept = world.bytes_kept()
            for side in SIDES:
                seen[side] &= set(world.files(side))

    sync = Sync(world, rules, tick)
    try:
        sync.run()
    except CrashError:
        world.count("crash")
        if not is_disturbed:
            rerun(world, sync)
    assert_nothing_lost(world, kept)
    assert_only_planned_deletions(world, sync, seen)


def rerun(world: World, crashed: Sync) -> None:
    """The same command again: it neither deletes nor disputes what the first one did not."""
    assert crashed.plan is not None
    again = Sync(world, replace(crashed.rules, conflict_mark=f"conflict-{world.clock}"))
    plan = again.run()
    assert {action.path for action in plan.conflicts} <= {action.path for action in crashed.plan.conflicts}
    for side in SIDES:
        assert {action.path for action in plan.deletions(side)} <= {
            action.path for action in crashed.plan.deletions(side)
        }
    assert {result.result for result in account(plan, again.outcomes)} <= {
        "copied",
        "deleted",
        "same",
        "skipped",
        "conflict",
    }
    world.count("rerun")


def complete(world: World) -> None:
    """The next run, undisturbed, completes; the one after it has nothing to do."""
    kept = world.bytes_kept()
    rules = Rules("both", delete=True, prefer="both", allow_empty=True, conflict_mark=f"conflict-{world.clock}")
    seen = {side: set(world.files(side)) for side in SIDES}
    sync = Sync(world, rules)
    plan = sync.run()
    results = account(plan, sync.outcomes)
    assert [result.path for result in results] == [action.path for action in plan.actions]
    assert {result.result for result in results} <= {"copied", "deleted", "same"}, results
    assert world.files("here") == world.files("there")
    assert_nothing_lost(world, kept)
    assert_only_planned_deletions(world, sync, seen)
    world.deleted = {"here": set(), "there": set()}
    written = world.base_file.read_bytes() if world.base_file.exists() else b""
    again = Sync(world, replace(rules, prefer=None)).run()
    assert again.is_in_step, [action for action in again.actions if action.kind not in ("same", "adopt")]
    assert (world.base_file.read_bytes() if world.base_file.exists() else b"") == written
    world.count("whole")


def assert_nothing_lost(world: World, kept: set[bytes]) -> None:
    now = world.bytes_kept()
    assert kept <= now, f"lost: {kept - now}"
    assert now <= world.contents, f"half-written under a whole name: {now - world.contents}"


def assert_only_planned_deletions(world: World, sync: Sync, seen: dict[Side, set[str]]) -> None:
    for side in SIDES:
        gone = seen[side] - set(world.files(side))
        plan = sync.plan
        planned = {action.path for action in plan.deletions(side)} if plan else set()
        incoming: Carry = "pull" if side == "here" else "push"
        # Moved aside for a successor that the crash (or a person) kept from coming.
        replaced = {action.path for action in plan.copies(incoming) if action.target} if plan else set()
        assert gone <= planned | replaced, gone - planned - replaced
        assert sync.rules.delete or not planned
        assert planned <= world.deleted["there" if side == "here" else "here"], "no person deleted these"
