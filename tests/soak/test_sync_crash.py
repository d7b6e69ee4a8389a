"""Random edits on both sides of a pair, a sync that is killed with -9 at a random moment, a rerun: both sides equal,
and not a byte lost that either had. Everything is real but the bucket's vendor: rclone, its server, the job, the kill.

ROUNDS and SEED (env vars) change what is played; the default run plays ten rounds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfymodal.jobs import sync
from comfymodal.storage.ends import RemoteEnd, VolumeEnd, arrange, end_to_dict
from comfymodal.storage.keys import key_names
from tests.doubles.b2_native import B2Native
from tests.doubles.serve_s3 import serve_s3
from tests.doubles.storage_place import FolderPlace
from tests.doubles.stores import Store, b2_store, s3_store

SEED = int(os.environ.get("SEED", "20261121"))
ROUNDS = int(os.environ.get("ROUNDS", "200"))
NAMES = ("a.bin", "loras/b.bin", "loras/ünï côde.bin", "-dash.bin", "x/y/z.bin", "empty", "100% [x].bin", "plain")
REPOSITORY = Path(__file__).parents[2]

KIND = pytest.mark.parametrize("kind", ["s3", "b2"])


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Iterator[Store]:
    if kind == "b2":
        with b2_store(B2Native()) as found:
            yield found
    else:
        with serve_s3(tmp_path / "served") as served, s3_store(served) as found:
            yield found


@KIND
def test_five_rounds(store: Store, tmp_path: Path) -> None:
    World(store, tmp_path, random.Random(f"{SEED}{store.remote.kind}")).play(5)


@pytest.mark.soak
@pytest.mark.timeout(5400)
@KIND
def test_two_hundred_rounds(store: Store, tmp_path: Path) -> None:
    world = World(store, tmp_path, random.Random(f"{SEED}{store.remote.kind}"))
    world.play(ROUNDS)
    told = f"{world.kills} killed at work, {world.conflicts} conflicts"
    print(f"\n{store.remote.kind}: {ROUNDS} rounds, seed {SEED}: {told}")
    assert world.kills > ROUNDS / 10
    assert world.conflicts


class World:
    """A volume, a bucket, and a person who edits both."""

    def __init__(self, store: Store, folder: Path, chance: random.Random) -> None:
        self.store, self.chance = store, chance
        environ = {"PATH": os.environ["PATH"]}
        environ |= dict(zip(key_names(store.remote)[-1], (store.keys.key_id, store.keys.key), strict=True))
        self.place = FolderPlace(folder / "volumes", environ)
        self.models = self.place.volumes["models"]
        self.models.mkdir(parents=True)
        self.job_file = folder / "job.json"
        self.kills = self.conflicts = self.runs = 0
        self.took_s = 1.0

    def play(self, rounds: int) -> None:
        for number in range(rounds):
            for _ in range(self.chance.randint(1, 5)):
                self.edit()
            if self.store.remote.kind == "s3":
                # The server sees what was changed behind its back a second later.
                time.sleep(1.1)
            before = self.contents()
            if number % 5 != 4:
                self.kill_one()
                lost = before - self.contents()
                assert not lost, f"round {number}: a killed sync lost {[data[:40] for data in lost]}"
            self.finish(number)
            lost = before - self.contents()
            assert not lost, f"round {number}: lost {[data[:40] for data in lost]}"
            assert self.seen() == self.store.seen, f"round {number}"

    def edit(self) -> None:
        name = self.chance.choice(NAMES)
        what = self.chance.choice(("here", "there", "both", "delete here", "delete there", "here", "there"))
        if what.startswith("delete"):
            if what == "delete here" and (self.models / name).exists():
                (self.models / name).unlink()
            elif what == "delete there" and name in self.store.seen:
                self.store.remove(name)
            return
        if what in ("here", "both"):
            path = self.models / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.content(name))
        if what in ("there", "both"):
            self.store.put(name, self.content(name))

    def content(self, name: str) -> bytes:
        size = 0 if name == "empty" else self.chance.choice((10, 1000, 200_000, 3_000_000))
        return self.chance.randbytes(size)

    def seen(self) -> dict[str, bytes]:
        return {path: data for path, data in self.files().items() if not path.startswith(".comfymodal/")}

    def files(self) -> dict[str, bytes]:
        """Whole files only: what is half-written counts for nothing."""
        found = {path.relative_to(self.models).as_posix(): path for path in self.models.rglob("*") if path.is_file()}
        ours = (".comfymodal/bases/", ".comfymodal/lock")
        return {
            name: path.read_bytes()
            for name, path in found.items()
            if not name.endswith(".partial") and not name.startswith(ours)
        }

    def contents(self) -> set[bytes]:
        """Every content that is somewhere under a whole name: in place, in a conflict copy or in a trash."""
        return set(self.files().values()) | set(self.store.files().values())

    def job(self, mode: str, approved: dict[str, Any] | None = None) -> dict[str, Any]:
        self.runs += 1
        ends = arrange(RemoteEnd(self.store.remote), VolumeEnd("models"), is_two_way=True)
        rules = {"delete": True, "prefer": "both"}
        return {
            **{"version": 1, "kind": "sync", "run_id": f"r{self.runs}", "mode": mode, "is_verify": False},
            **{"pair": {"name": "soak"}, "here": end_to_dict(ends.here), "there": end_to_dict(ends.there)},
            **{"direction": "both", "rules": rules, "limits": {}, "approved": approved, "host": "soak"},
        }

    def approved_job(self) -> dict[str, Any]:
        plan = sync.run(self.job("plan"), self.place)
        if plan["status"] != "succeeded":
            # The bucket or the volume is empty now, and that is not taken for a wish.
            assert plan["error"]["code"] == "sync_refused", plan
            self.store.put(f"again-{self.runs}", b"something")
            (self.models / f"again-{self.runs}").write_bytes(b"something")
            return self.approved_job()
        sides = {"here": "delete_here", "there": "delete_there"}
        found = {side: [p["path"] for p in plan["paths"] if p["action"] == kind] for side, kind in sides.items()}
        self.conflicts += sum(1 for path in plan["paths"] if path.get("keep_as"))
        return self.job("run", {**found, "force": True})

    def kill_one(self) -> None:
        self.job_file.write_text(json.dumps({"job": self.approved_job(), "root": str(self.place.root)}))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.sync_process", str(self.job_file)],
            cwd=REPOSITORY,
            env={**os.environ, **self.place.environ},
            stdout=subprocess.PIPE,
        )
        assert process.stdout
        # It says when it begins, so that imports are not what is killed.
        process.stdout.readline()
        began = time.monotonic()
        try:
            process.wait(self.chance.uniform(0, 1.1 * self.took_s))
            self.took_s = 0.8 * self.took_s + 0.2 * (time.monotonic() - began)
        except subprocess.TimeoutExpired:
            self.kills += 1
            process.kill()
            process.wait()
            self.took_s *= 1.05
        process.stdout.close()
        # rclone ends with the first line it writes to a pipe that nobody reads.
        time.sleep(0.1)

    def finish(self, number: int) -> None:
        for _ in range(3):
            done = sync.run(self.approved_job(), self.place)
            if done["status"] == "succeeded" and self.seen() == self.store.seen:
                return
        raise AssertionError(f"round {number} does not end: {done}")
