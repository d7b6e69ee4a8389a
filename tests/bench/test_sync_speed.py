"""Sync as ratios: `pytest -m bench -s -n 0 tests/bench/test_sync_speed.py`. Nothing here can fail for being slow.

Both sides talk to the same `rclone serve s3` (or to our fake of B2) on this machine; where it says so, through a proxy
that is far away. The other side is rclone as the guide's script calls it, or `rclone check`. Needs 13 times
COMFYMODAL_BENCH_MIB (1024, the size of one large file) of disk, or of memory with TMPDIR=/dev/shm, which spares the
figures the disk's own moods; what does not fit is skipped.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfymodal.storage.ends import RemoteEnd, VolumeEnd, arrange, end_to_dict
from comfymodal.storage.keys import key_names
from comfymodal.storage.rclone.listing import list_files
from comfymodal.storage.rclone.session import Session
from comfymodal.storage.values import Keys, Remote
from tests.bench.test_speed import tell
from tests.doubles.b2_native import B2Native
from tests.doubles.serve_s3 import KEYS, serve_s3
from tests.doubles.serving import serve
from tests.doubles.storage_proxy import Fault, StorageProxy
from tests.doubles.stores import session_for

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

MIB = 1 << 20
LARGE = int(os.environ.get("COMFYMODAL_BENCH_MIB", "1024")) * MIB
LARGE_FILES = 4
ROUNDS = 2
FAR_S = 0.06
LONG_AGO = 1_700_000_000
SAMPLE_S = 0.1
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Rig:
    """A volume and a bucket, each empty at first, and who moves files between them in processes of their own."""

    root: Path
    remote: Remote
    keys: Keys
    bucket: Path | None
    """The remote's own folder on this disk; None where it has none."""
    runs: int = field(default=0)

    @property
    def volume(self) -> Path:
        return self.root / "volumes" / "models"

    @property
    def session(self) -> Session:
        return session_for(self.remote, self.keys)

    def warm_up(self) -> None:
        """Let the server learn what a real one knows of each file."""
        settle()
        list_files(self.session, self.remote)

    def sync(self, direction: str, *, is_sampled: bool = False) -> Ran:
        """One sync of the pair; its outcome must be a success."""
        self.runs += 1
        (self.root / "order.json").write_text(
            json.dumps({"job": self._job(direction), "root": str(self.root / "volumes")})
        )
        outcome = self.root / "outcome.json"
        argv = [sys.executable, "-m", "tests.bench.sync_process", str(self.root / "order.json"), str(outcome)]
        id_name, key_name = key_names(self.remote)[-1]
        environ = {**os.environ, id_name: self.keys.key_id, key_name: self.keys.key}
        ran = measure(argv, environ, is_sampled=is_sampled)
        ran.outcome = json.loads(outcome.read_text())
        assert ran.outcome["status"] == "succeeded", ran.outcome["error"]
        return ran

    def by_hand(self, *arguments: str) -> Ran:
        session = self.session
        return measure([str(session.rclone.path), *arguments], session.environ)

    def as_in_the_guide(self, direction: str) -> Ran:
        there, here = self.session.address(self.remote), str(self.volume)
        if direction == "pull":
            return self.by_hand("copy", there, here, "--transfers", "16", "--fast-list", "--progress")
        return self.by_hand("copy", here, there, "--transfers", "16", "--progress")

    def _job(self, direction: str) -> dict[str, Any]:
        volume, remote = VolumeEnd("models"), RemoteEnd(self.remote)
        source, target = (remote, volume) if direction == "pull" else (volume, remote)
        ends = arrange(source, target, is_two_way=False)
        return {
            "version": 1,
            "kind": "sync",
            "run_id": f"run-{self.runs}",
            "mode": "run",
            "pair": {"name": "models", "from": str(source), "to": str(target)},
            "here": end_to_dict(ends.here),
            "there": end_to_dict(ends.there),
            "direction": ends.direction,
            "approved": None,
            "limits": {},
            "rules": {},
        }


@dataclass
class Ran:
    """A process that has ended; `peak` is the most memory (bytes) that it and its children held at once."""

    seconds: float
    cpu_s: float = 0.0
    """Of it and its children; says more than `seconds` on a machine that is busy."""
    peak: int = 0
    peak_rclone: int = 0
    """The children's part of it."""
    outcome: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outside_s(self) -> float:
        """Our own time, listings included."""
        took = self.outcome["ended_at"] - self.outcome["started_at"]
        return float(took - self.outcome["rclone_s"])


def measure(argv: list[str], environ: Mapping[str, str], *, is_sampled: bool = False) -> Ran:
    began, cpu_s = time.perf_counter(), cpu_of_children()
    process = subprocess.Popen(argv, env=dict(environ), cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    ran = Ran(0.0)
    while is_sampled and process.poll() is None:
        own, children = memory_of(process.pid)
        ran.peak, ran.peak_rclone = max(ran.peak, own + children), max(ran.peak_rclone, children)
        time.sleep(SAMPLE_S)
    assert process.wait() == 0, argv
    ran.seconds, ran.cpu_s = time.perf_counter() - began, cpu_of_children() - cpu_s
    return ran


def cpu_of_children() -> float:
    """Seconds of all that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_of(pid: int) -> tuple[int, int]:
    """Resident bytes of the process, and of all its children."""
    try:
        process = psutil.Process(pid)
        return process.memory_info().rss, sum(resident(each) for each in process.children(recursive=True))
    except psutil.Error:
        return 0, 0


def resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own, which keeps the last three.
    found = Path(tempfile.mkdtemp(prefix="comfymodal-bench-"))
    yield found
    shutil.rmtree(found)


@pytest.fixture
def s3(folder: Path) -> Iterator[Rig]:
    with serve_s3(folder / "served", keeps_hashes=True) as served:
        rig = Rig(folder, served.remote("library"), KEYS, served.bucket / "library")
        served.bucket.joinpath("library").mkdir()
        rig.volume.mkdir(parents=True)
        yield rig


@pytest.fixture
def far_s3(folder: Path) -> Iterator[Rig]:
    """An S3 that is `FAR_S` away."""
    with serve_s3(folder / "served", keeps_hashes=True) as served:
        proxy = FarProxy(served.url)
        rig = Rig(folder, served.remote("library", url=proxy.url), KEYS, served.bucket / "library")
        served.bucket.joinpath("library").mkdir()
        rig.volume.mkdir(parents=True)
        yield rig
        proxy.close()


class FarProxy(StorageProxy):
    def take(self, method: str, path: str) -> Fault | None:
        time.sleep(FAR_S)
        return super().take(method, path)


@pytest.fixture
def b2(folder: Path) -> Iterator[Rig]:
    account = B2Native()
    with serve(account.app()) as served:
        remote = Remote("b2", "b2", "models", "library", served.url)
        rig = Rig(folder, remote, Keys(account.key.key_id, account.key.key), None)
        rig.volume.mkdir(parents=True)
        yield rig


def fill(folder: Path, files: int, size: int) -> None:
    """Different files in fifty folders, old enough for their times to prove something."""
    needed, free = 3 * files * size, shutil.disk_usage(folder).free
    if needed * 1.05 > free:
        pytest.skip(f"{folder} has {free / MIB:.0f} MiB left, {needed / MIB:.0f} are needed; set COMFYMODAL_BENCH_MIB")
    block = random.Random(size).randbytes(min(size, 64 * MIB))
    for number in range(files):
        path = folder / f"folder-{number % 50:02}" / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.write(number.to_bytes(8, "big"))
            for left in range(size - 8, 0, -len(block)):
                stream.write(block[:left])
        os.utime(path, (LONG_AGO, LONG_AGO))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    settle()


def settle() -> None:
    """The server looks again after a second; what was written must not be on its way to the disk meanwhile."""
    os.sync()
    time.sleep(2)


SMALL, LARGER = (5000, 20 << 10), (LARGE_FILES, LARGE)


def test_our_time_outside_rclone(s3: Rig) -> None:
    assert s3.bucket
    fill(s3.bucket, 5000, 20 << 10)
    s3.warm_up()
    tell_outside("first pull", s3.sync("pull"), 5000)
    empty(s3.bucket)
    empty(s3.volume)
    fill(s3.bucket, 20_000, 1 << 10)
    s3.warm_up()
    tell_outside("first pull", s3.sync("pull"), 20_000)
    settle()
    for _ in range(ROUNDS):
        tell_outside("no-op", s3.sync("pull"), 20_000)


@pytest.mark.parametrize(("files", "size"), [SMALL, LARGER], ids=["small", "large"])
@pytest.mark.parametrize("direction", ["pull", "push"])
def test_against_the_guide(s3: Rig, direction: str, files: int, size: int) -> None:
    assert s3.bucket
    source, target = (s3.bucket, s3.volume) if direction == "pull" else (s3.volume, s3.bucket)
    fill(source, files, size)
    s3.warm_up()
    ours: list[Ran] = []
    theirs: list[Ran] = []
    for _ in range(ROUNDS):
        for run, ran in ((s3.sync, ours), (s3.as_in_the_guide, theirs)):
            empty(target)
            # Without our record of the last sync, or it would be a repair.
            shutil.rmtree(s3.volume / ".comfymodal", ignore_errors=True)
            settle()
            ran.append(run(direction))
    compare(f"{direction} of {files} x {size >> 10} KiB, against the guide's flags", ours, theirs)
    print(f"of which outside rclone {statistics.median(each.outside_s for each in ours):.2f} s")


@pytest.mark.parametrize("direction", ["pull", "push"])
def test_against_the_guide_from_afar(far_s3: Rig, direction: str) -> None:
    print(f"\nwith {FAR_S * 1000:.0f} ms before each answer:", end="")
    test_against_the_guide(far_s3, direction, 2000, 20 << 10)


def test_nothing_to_do_against_rclone_check(s3: Rig) -> None:
    assert s3.bucket
    fill(s3.bucket, 20_000, 1 << 10)
    s3.warm_up()
    s3.sync("pull")
    settle()
    there, here = s3.session.address(s3.remote), str(s3.volume)
    ours, theirs = [], []
    for _ in range(2 * ROUNDS):
        ours.append(s3.sync("pull"))
        theirs.append(s3.by_hand("check", there, here, "--exclude", "/.comfymodal/**", "--log-level", "ERROR"))
    compare("a sync of 20,000 files in step, against `rclone check`", ours, theirs)


# rclone reads parts of files from 256 MiB straight from the disk; smaller ones that go up in parts it holds in memory.
@pytest.mark.parametrize(("files", "size"), [LARGER, (8, 240 * MIB)], ids=["large", "held"])
@pytest.mark.parametrize("kind", ["s3", "b2"])
def test_memory(request: pytest.FixtureRequest, kind: str, files: int, size: int) -> None:
    rig: Rig = request.getfixturevalue(kind)
    # The fake of B2 keeps what it is sent in memory.
    size = size if kind == "s3" else min(size, 512 * MIB)
    fill(rig.volume, files, size)
    settle()
    tell_memory(f"push of {files} x {size >> 20} MiB, {kind}", rig.sync("push", is_sampled=True), aim="2048")
    empty(rig.volume)
    tell_memory(f"pull of {files} x {size >> 20} MiB, {kind}", rig.sync("pull", is_sampled=True), aim="512")


def test_memory_of_many_files(s3: Rig) -> None:
    assert s3.bucket
    fill(s3.bucket, 20_000, 1 << 10)
    s3.warm_up()
    tell_memory("pull of 20,000 x 1 KiB, s3", s3.sync("pull", is_sampled=True), aim="512")
    tell_memory("the same again, nothing to do", s3.sync("pull", is_sampled=True), aim="512")


def compare(what: str, ours: list[Ran], theirs: list[Ran]) -> None:
    tell(what, [ran.seconds for ran in ours], [ran.seconds for ran in theirs], aim="1.0 or less")
    tell("its CPU", [ran.cpu_s for ran in ours], [ran.cpu_s for ran in theirs], aim="1.0 or less")


def tell_outside(what: str, ran: Ran, files: int) -> None:
    aim = 2 + files / 1000
    took = ran.outcome["ended_at"] - ran.outcome["started_at"]
    print(f"\n{what} of {files}: {took:.2f} s, outside rclone {ran.outside_s:.2f} s (aim {aim:.0f} s or less)")


def tell_memory(what: str, ran: Ran, *, aim: str) -> None:
    own = (ran.peak - ran.peak_rclone) / MIB
    print(f"\n{what}: {ran.peak / MIB:.0f} MiB at most, all but {own:.0f} of them rclone's (aim {aim} or less)")
