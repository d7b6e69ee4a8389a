"""The sync job with the real rclone, against a real S3 server and our fake of B2's native API."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import TransferError, error_from_dict
from comfymodal.jobs import sync
from comfymodal.storage.ends import End, FolderEnd, RemoteEnd, VolumeEnd, arrange, end_to_dict
from comfymodal.storage.keys import key_names
from comfymodal.storage.rclone.copying import CopyResult, PathResult
from comfymodal.storage.sync import Sync
from tests.doubles.b2_native import B2Native, Key
from tests.doubles.serve_s3 import serve_s3
from tests.doubles.storage_place import FolderPlace
from tests.doubles.storage_proxy import EXPIRED
from tests.doubles.stores import Store, b2_store, s3_store

MIB = 1 << 20


@pytest.fixture
def account() -> B2Native:
    return B2Native()


@pytest.fixture(params=["s3", "b2"])
def store(request: pytest.FixtureRequest, tmp_path: Path, account: B2Native) -> Iterator[Store]:
    if request.param == "b2":
        with b2_store(account) as found:
            yield found
    else:
        with serve_s3(tmp_path / "served") as served, s3_store(served) as found:
            yield found


@dataclass
class Bench:
    """A volume, a bucket, and the syncs between them."""

    place: FolderPlace
    store: Store
    pair: tuple[End, End, bool] | None = None
    runs: int = field(default=0)

    @property
    def models(self) -> Path:
        return self.place.volumes["models"]

    def write(self, path: str, data: bytes) -> None:
        target = self.models / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    @property
    def seen(self) -> dict[str, bytes]:
        """What lies on the volume under whole names, but our own folder."""
        return {path: data for path, data in self.files.items() if not path.startswith(".comfymodal/")}

    @property
    def files(self) -> dict[str, bytes]:
        found = {path.relative_to(self.models).as_posix(): path for path in self.models.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items()}

    def pull(self, **more: Any) -> dict[str, Any]:
        return self.run(RemoteEnd(self.store.remote), VolumeEnd("models"), **more)

    def push(self, **more: Any) -> dict[str, Any]:
        return self.run(VolumeEnd("models"), RemoteEnd(self.store.remote), **more)

    def both(self, **more: Any) -> dict[str, Any]:
        return self.run(RemoteEnd(self.store.remote), VolumeEnd("models"), is_two_way=True, **more)

    def run(self, source: End, target: End, *, is_two_way: bool = False, **more: Any) -> dict[str, Any]:
        ends = arrange(source, target, is_two_way=is_two_way)
        self.runs += 1
        job = {
            "version": 1,
            "kind": "sync",
            "run_id": f"run-{self.runs}",
            "mode": more.pop("mode", "run"),
            "is_verify": more.pop("is_verify", False),
            "pair": {"name": "models", "from": str(source), "to": str(target)},
            "here": end_to_dict(ends.here),
            "there": end_to_dict(ends.there),
            "direction": ends.direction,
            "approved": more.pop("approved", None),
            "limits": more.pop("limits", {}),
            "host": "test",
            "rules": more,
        }
        return sync.run(json.loads(json.dumps(job)), self.place)


@pytest.fixture
def bench(tmp_path: Path, store: Store) -> Bench:
    return Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)


class Folders:
    """A volume and a folder of this machine; no bucket is needed."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(FolderPlace(folder / "volumes", {"PATH": os.environ["PATH"]}), None)  # type: ignore[arg-type]
        self.there = folder / "mine"
        self.there.mkdir()

    @property
    def here(self) -> Path:
        return self.bench.models

    def write_there(self, path: str, data: bytes) -> None:
        (self.there / path).parent.mkdir(parents=True, exist_ok=True)
        (self.there / path).write_bytes(data)

    def run(self, **more: Any) -> dict[str, Any]:
        return self.bench.run(FolderEnd(str(self.there)), VolumeEnd("models"), **more)


def environ_of(store: Store) -> dict[str, str]:
    id_name, key_name = key_names(store.remote)[-1]
    return {"PATH": os.environ["PATH"], id_name: store.keys.key_id, key_name: store.keys.key}


def some_bytes(size: int, seed: str = "") -> bytes:
    return random.Random(f"{seed}{size}").randbytes(size)


def results(outcome: Mapping[str, Any]) -> dict[str, str]:
    return {path["path"]: path["result"] for path in outcome["paths"]}


def exit_code(outcome: Mapping[str, Any]) -> int:
    return 0 if outcome["error"] is None else error_from_dict(outcome["error"]).exit_code


ODD = {
    "plain.safetensors": some_bytes(5000, "a"),
    "empty": b"",
    "loras/ünï côde.safetensors": some_bytes(3000, "b"),
    "-dash": some_bytes(10, "c"),
    "d/e/f/g.bin": some_bytes(70_000, "d"),
    "100%[x]{a,b}*.bin": some_bytes(100, "e"),
    "Case.bin": b"upper",
    "case.bin": b"lower",
}


def test_a_pull_brings_everything_and_the_next_one_nothing(bench: Bench) -> None:
    for path, data in ODD.items():
        bench.store.put(path, data)
    done = bench.pull()
    assert (done["status"], done["error"]) == ("succeeded", None)
    assert bench.seen == ODD
    assert set(results(done).values()) == {"copied"}
    assert all(path["verified"] for path in done["paths"] if path["size_bytes"])
    again = bench.pull()
    assert set(results(again).values()) == {"same"}
    assert (again["copied_files"], again["plan"]["is_in_step"]) == (0, True)
    # The data was durable before the record spoke of it.
    assert bench.place.commits[0] == "models"


def test_a_push_brings_everything_and_the_next_one_nothing(bench: Bench) -> None:
    for path, data in ODD.items():
        bench.write(path, data)
    done = bench.push()
    assert (done["status"], done["error"]) == ("succeeded", None)
    assert bench.store.seen == ODD
    again = bench.push()
    assert set(results(again).values()) == {"same"}


def test_what_a_copy_replaces_is_in_the_trash(bench: Bench) -> None:
    bench.store.put("a.bin", b"first")
    bench.pull()
    bench.store.put("a.bin", b"second, longer")
    done = bench.pull()
    assert results(done) == {"a.bin": "copied"}
    assert bench.seen == {"a.bin": b"second, longer"}
    (kept,) = [data for path, data in bench.files.items() if "/trash/" in path]
    assert kept == b"first"
    bench.write("a.bin", b"third, here")
    assert results(bench.pull()) == {"a.bin": "conflict"}
    # The same two places have one past, whichever way their files go.
    assert results(bench.push()) == {"a.bin": "copied"}
    assert bench.store.seen == {"a.bin": b"third, here"}
    assert b"second, longer" in bench.store.files().values()


def test_changes_on_both_sides_travel_both_ways_and_meet_as_a_conflict(bench: Bench) -> None:
    bench.store.put("there.bin", b"from there")
    bench.write("here.bin", b"from here")
    bench.store.put("both.bin", b"same")
    bench.write("both.bin", b"same")
    done = bench.both()
    assert results(done) == {"there.bin": "copied", "here.bin": "copied", "both.bin": "same"}
    assert bench.seen == bench.store.seen
    bench.store.put("both.bin", b"changed there")
    bench.write("both.bin", b"changed, but here")
    done = bench.both()
    assert results(done)["both.bin"] == "conflict"
    assert (done["status"], exit_code(done)) == ("partial", 6)
    assert bench.seen["both.bin"] == b"changed, but here"
    done = bench.both(prefer="both")
    assert done["status"] == "succeeded", done
    assert bench.seen == bench.store.seen
    assert {b"changed there", b"changed, but here"} <= set(bench.seen.values())


def test_nothing_is_deleted_that_nobody_agreed_to(bench: Bench) -> None:
    for number in range(10):
        bench.store.put(f"{number}.bin", bytes([number]) * 100)
    bench.both()
    (bench.models / "3.bin").unlink()
    (bench.models / "4.bin").unlink()
    done = bench.both(delete=True)
    assert results(done)["3.bin"] == "skipped"
    done = bench.both(delete=True, approved={"there": ["3.bin"]})
    assert (results(done)["3.bin"], results(done)["4.bin"]) == ("deleted", "skipped")
    assert set(bench.store.seen) == {f"{number}.bin" for number in range(10)} - {"3.bin"}
    assert bytes([3]) * 100 in bench.store.files().values(), "it is in the trash"
    for number in range(5, 9):
        (bench.models / f"{number}.bin").unlink()
    many = {"there": [f"{number}.bin" for number in range(4, 9)]}
    refused = bench.both(delete=True, approved=many)
    assert (refused["status"], exit_code(refused)) == ("failed", 3)
    done = bench.both(delete=True, approved={**many, "force": True})
    assert done["status"] == "succeeded"
    assert len(bench.store.seen) == 4


def test_a_plan_changes_nothing_and_says_what_would_be(bench: Bench) -> None:
    bench.store.put("a.bin", b"first")
    plan = bench.pull(mode="plan")
    assert [(path["path"], path["action"]) for path in plan["paths"]] == [("a.bin", "new")]
    assert (plan["plan"]["copy_bytes"], plan["plan"]["is_in_step"]) == (5, False)
    assert bench.files == {}
    bench.pull()
    # A file younger than the clock's tick proves nothing by its time.
    time.sleep(2.5)
    bench.pull()
    assert bench.pull(mode="status")["plan"]["is_in_step"]


def test_a_prefix_that_does_not_exist_is_not_an_empty_library(bench: Bench) -> None:
    refused = bench.pull()
    assert (refused["status"], exit_code(refused)) == ("failed", 3)
    assert "empty" in refused["error"]["message"]
    assert bench.pull(allow_empty=True)["status"] == "succeeded"


def test_a_bucket_that_does_not_exist_is_named(bench: Bench) -> None:
    bench.write("a.bin", b"a")
    wrong = RemoteEnd(bench.store.at(bucket="nosuchbucket"))
    for source, target in ((wrong, VolumeEnd("models")), (VolumeEnd("models"), wrong)):
        refused = bench.run(source, target)
        assert (refused["status"], exit_code(refused)) == ("failed", 4), refused
        assert "nosuchbucket" in refused["error"]["message"]


def test_a_wrong_key_is_said_and_shown_nowhere(bench: Bench) -> None:
    id_name, key_name = key_names(bench.store.remote)[-1]
    bench.place.environ = {**bench.place.environ, key_name: "K00wrongwrongwrongwrongwrongwrong"}
    refused = bench.pull()
    assert (refused["status"], exit_code(refused)) == ("failed", 4), refused
    said = json.dumps([refused, bench.place.events])
    assert "K00wrong" not in said
    bench.place.environ = {id_name: "x"}
    assert exit_code(bench.pull()) == 4


def test_damage_on_the_volume_is_found_by_verify_and_repaired_on_request(bench: Bench) -> None:
    data = some_bytes(3 * MIB)
    bench.store.put("a.bin", data)
    bench.pull()
    path = bench.models / "a.bin"
    stat = path.stat()
    path.write_bytes(b"x" + data[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    # Size and time are as they were: only reading it tells.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10_000_000_000))
    found = bench.pull(is_verify=True)
    assert results(found) == {"a.bin": "conflict"}
    done = bench.pull(is_verify=True, prefer="there")
    assert results(done) == {"a.bin": "copied"}
    assert path.read_bytes() == data


def test_a_library_that_rclone_brought_before_us_is_taken_over_unread(tmp_path: Path, account: B2Native) -> None:
    with b2_store(account) as store:
        bench = Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)
        bench.write("a.bin", b"a" * 1000)
        bench.write("b.bin", b"b" * 1000)
        guide = store.session
        argv = [str(guide.rclone.path), "copy", str(bench.models), guide.address(store.remote)]
        subprocess.run(argv, env=dict(guide.environ), check=True)
        bench.write("b.bin", b"c" * 1000)
        done = bench.pull()
        assert results(done) == {"a.bin": "same", "b.bin": "conflict"}
        assert not [event for event in bench.place.events if event.get("name") == "a.bin"], "it was not read"


def test_a_file_that_changes_at_its_source_meanwhile_comes_with_the_next_sync(bench: Bench) -> None:
    bench.store.put("a.bin", some_bytes(100, "one"))

    def change(event: Mapping[str, Any]) -> None:
        if event.get("phase") == "copy":
            bench.store.put("a.bin", some_bytes(100, "two"))

    bench.place.on_event = change
    done = bench.pull()
    bench.place.on_event = lambda event: None
    assert results(done)["a.bin"] == "failed", done
    assert bench.seen == {}
    assert bench.pull()["status"] == "succeeded"
    assert bench.seen == {"a.bin": some_bytes(100, "two")}


def test_names_that_climb_out_or_break_lines_are_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    with b2_store(B2Native()) as store:
        bench = Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)
        store.put("good.bin", b"good")
        store.put("line\nbreak.bin", b"bad")
        store.put("../../../../climbs.bin", b"bad")
        done = bench.pull()
        assert (done["status"], exit_code(done)) == ("partial", 6), done
        assert bench.seen == {"good.bin": b"good"}
        assert not list(tmp_path.rglob("climbs.bin"))


def test_a_disk_that_is_full_leaves_nothing_half_written(bench: Bench) -> None:
    import resource

    bench.store.put("a-small.bin", b"small")
    bench.store.put("b-large.bin", some_bytes(4 * MIB))
    bench.pull(include=["a-small.bin"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, before[1]))
    try:
        done = bench.pull()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (done["status"], exit_code(done)) == ("failed", 5), done
    assert bench.seen == {"a-small.bin": b"small"}
    assert bench.pull()["status"] == "succeeded"


def test_a_folder_and_a_volume_are_a_pair_too(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a" * 100)
    ends = FolderEnd(str(folder)), VolumeEnd("models", "loras")
    done = bench.run(*ends)
    assert (done["status"], bench.seen) == ("succeeded", {"loras/a.bin": b"a" * 100})
    assert results(bench.run(*ends)) == {"a.bin": "same"}
    (folder / "a.bin").write_bytes(b"b" * 100)
    assert results(bench.run(*ends)) == {"a.bin": "copied"}
    done = bench.run(VolumeEnd("models", "loras"), VolumeEnd("datasets"))
    assert results(done) == {"a.bin": "copied"}
    assert sorted(bench.place.leased[-2:]) == ["datasets", "models"]


def test_what_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    with b2_store(B2Native()) as store:
        bench = Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)
        store.put("a.bin", b"from there")
        bench.write("b.bin", b"from here")

        def appear(event: Mapping[str, Any]) -> None:
            if event.get("phase") == "copy" and "a.bin" not in bench.seen:
                bench.write("a.bin", b"made here meanwhile")
                store.put("b.bin", b"put there meanwhile")

        bench.place.on_event = appear
        done = bench.both()
        assert (done["status"], results(done)) == ("partial", {"a.bin": "failed", "b.bin": "failed"}), done
        assert (bench.seen["a.bin"], store.seen["b.bin"]) == (b"made here meanwhile", b"put there meanwhile")
        assert results(bench.both()) == {"a.bin": "conflict", "b.bin": "conflict"}


def test_what_is_edited_as_soon_as_it_came_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with b2_store(B2Native()) as store:
        bench = Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)
        store.put("a.bin", b"from there")
        settle = Sync._settle

        def edit(self: Sync, *args: Any) -> None:
            bench.write("a.bin", b"edited at once")
            settle(self, *args)

        monkeypatch.setattr(Sync, "_settle", edit)
        assert results(bench.pull()) == {"a.bin": "failed"}
        assert bench.seen == {"a.bin": b"edited at once"}


def test_two_runs_of_one_second_share_no_trash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "stamp_of", lambda now: "20261121T000000Z")
    with b2_store(B2Native()) as store:
        bench = Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)
        for data in (b"one", b"two!", b"three"):
            bench.write("a.bin", data)
            bench.push()
        assert {b"one", b"two!", b"three"} <= set(store.files().values())


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_a_link_to_a_disk_that_is_not_mounted_deletes_nothing(folders: Folders, tmp_path: Path) -> None:
    for number in range(10):
        folders.write_there(f"{number}.bin", b"a" * (number + 1))
    folders.run(is_two_way=True)
    disk = tmp_path / "disk"
    disk.mkdir()
    (folders.here / "3.bin").rename(disk / "3.bin")
    (folders.here / "3.bin").symlink_to(disk / "3.bin")
    assert results(folders.run(is_two_way=True))["3.bin"] == "same"
    disk.rename(tmp_path / "unmounted")
    done = folders.run(is_two_way=True, delete=True, approved={"there": ["3.bin"]})
    assert (done["status"], exit_code(done)) == ("failed", 5), done
    assert "leads nowhere" in done["error"]["message"]
    assert (folders.there / "3.bin").is_file()


def test_files_behind_a_link_are_compared_too(folders: Folders, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "a.bin").write_bytes(b"a")
    folders.here.mkdir(parents=True)
    (folders.here / "loras").symlink_to(disk)
    folders.write_there("loras/a.bin", b"b")
    done = folders.run()
    assert (results(done), exit_code(done)) == ({"loras/a.bin": "conflict"}, 6), done


def test_a_change_within_one_tick_of_a_coarse_clock_is_seen_in_a_folder(folders: Folders) -> None:
    now = float(int(time.time()))
    for data in (b"one", b"two"):
        folders.write_there("a.bin", data)
        os.utime(folders.there / "a.bin", (now, now))
        assert results(folders.run()) == {"a.bin": "copied"}
    assert (folders.here / "a.bin").read_bytes() == b"two"


def test_edits_at_once_on_either_side_of_two_folders_travel(folders: Folders) -> None:
    folders.here.mkdir(parents=True)
    for number, side in enumerate((folders.here, folders.there, folders.here)):
        (side / "a.bin").write_bytes(b"%d" % number)
        assert results(folders.run(is_two_way=True)) == {"a.bin": "copied"}
    assert (folders.there / "a.bin").read_bytes() == b"2"


def test_another_volume_under_the_same_role_has_no_common_past(folders: Folders, tmp_path: Path) -> None:
    bench, ends = folders.bench, (VolumeEnd("datasets"), VolumeEnd("models"))
    datasets = bench.place.volumes["datasets"]
    datasets.mkdir(parents=True)
    for number in range(10):
        (datasets / f"{number}.bin").write_bytes(b"a")
    assert bench.run(*ends)["status"] == "succeeded"
    other = FolderPlace(tmp_path / "other", bench.place.environ)
    (other.root / "datasets").mkdir(parents=True)
    (other.root / "datasets" / "1.bin").write_bytes(b"a")
    (other.root / "models").symlink_to(bench.models)
    bench.place = other
    plan = bench.run(*ends, mode="plan", delete=True)["plan"]
    assert "delete_here" not in plan["counts"], plan


def test_a_folder_that_is_only_read_needs_no_lease(folders: Folders) -> None:
    folders.write_there("a.bin", b"a")
    folders.run()
    assert folders.bench.place.leased == ["models"]
    folders.run(is_two_way=True)
    assert folders.bench.place.leased[1:] == ["models", str(folders.there)]


def test_folders_of_one_volume_have_one_lease(folders: Folders) -> None:
    bench = folders.bench
    bench.write("a/x.bin", b"x")
    assert bench.run(VolumeEnd("models", "a"), VolumeEnd("models", "b"))["status"] == "succeeded"
    assert bench.run(FolderEnd(str(folders.there)), FolderEnd(str(folders.here / "c")), allow_empty=True)
    assert bench.place.leased == ["models", "models"]


def test_without_hard_links_a_copy_that_does_not_come_leaves_the_old_file(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **more: Any) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    folders.write_there("a.bin", b"first")
    folders.run()
    folders.write_there("a.bin", b"second, longer")
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(
        "comfymodal.storage.mover.copy",
        lambda session, order, **more: CopyResult(
            tuple(PathResult(path, "failed", error="no") for path in order.paths), False, TransferError("no"), 0.0
        ),
    )
    assert results(folders.run()) == {"a.bin": "failed"}
    assert (folders.here / "a.bin").read_bytes() == b"first"


FAULTS: list[tuple[str, dict[str, Any], str, int]] = [
    ("status", {"status": 503, "times": 3}, "succeeded", 0),
    ("status", {"status": 429, "times": 2, "headers": {"Retry-After": "1"}}, "succeeded", 0),
    ("reset", {"times": 3}, "succeeded", 0),
    ("truncate", {"after": MIB, "path": "big.bin"}, "succeeded", 0),
    ("flip", {"after": 1000, "path": "big.bin"}, "succeeded", 0),
]


@pytest.mark.parametrize(("kind", "how", "status", "code"), FAULTS, ids=lambda value: str(value)[:20])
def test_a_fault_on_the_line_is_ridden_out(
    bench: Bench, kind: Any, how: dict[str, Any], status: str, code: int
) -> None:
    wanted = {"big.bin": some_bytes(2 * MIB), "small.bin": b"small"}
    for path, data in wanted.items():
        bench.store.put(path, data)
    bench.store.proxy.add(kind, **how)
    done = bench.pull()
    assert (done["status"], exit_code(done)) == (status, code), done
    assert bench.seen == wanted


def test_one_object_that_may_not_be_read_fails_alone(bench: Bench, account: B2Native) -> None:
    bench.store.put("good.bin", b"good")
    bench.store.put("never.bin", some_bytes(MIB))
    named = "never.bin" if bench.store.remote.kind == "s3" else account.buckets["models"][-1].file_id
    # rclone takes a 403 of B2 for the end of everything: that is how B2 says that a cap is reached.
    bench.store.proxy.add("status", status=403 if "never" in named else 400, times=10_000, path=named)
    done = bench.pull()
    assert (done["status"], exit_code(done)) == ("partial", 6), done
    assert (results(done)["good.bin"], results(done)["never.bin"]) == ("copied", "failed")
    assert bench.seen == {"good.bin": b"good"}


@pytest.mark.soak
def test_one_file_that_is_never_whole_fails_alone(bench: Bench, account: B2Native) -> None:
    bench.store.put("good.bin", b"good")
    bench.store.put("never.bin", some_bytes(MIB))
    named = "never.bin" if bench.store.remote.kind == "s3" else account.buckets["models"][-1].file_id
    bench.store.proxy.add("status", status=503, times=10_000, path=named)
    done = bench.pull()
    assert (done["status"], exit_code(done)) == ("partial", 6), done
    assert (results(done)["good.bin"], results(done)["never.bin"]) == ("copied", "failed")
    assert bench.seen == {"good.bin": b"good"}
    bench.store.proxy.faults.clear()
    assert bench.pull()["status"] == "succeeded"
    assert hashlib.sha1(bench.seen["never.bin"]).digest() == hashlib.sha1(some_bytes(MIB)).digest()


@pytest.mark.soak
def test_a_line_that_hangs_is_given_up_and_tried_again(bench: Bench) -> None:
    bench.store.put("a.bin", some_bytes(2 * MIB))
    bench.store.proxy.add("hang", after=MIB, path="a.bin" if bench.store.remote.kind == "s3" else "4_z")
    done = bench.pull()
    assert (done["status"], exit_code(done)) == ("succeeded", 0), done
    assert bench.seen == {"a.bin": some_bytes(2 * MIB)}


@pytest.mark.soak
def test_a_file_above_two_gigabytes_goes_both_ways(tmp_path: Path) -> None:
    with serve_s3(tmp_path / "served") as served, s3_store(served) as store:
        bench = Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)
        bench.write("big.bin", b"begin")
        with (bench.models / "big.bin").open("r+b") as stream:
            stream.seek((2 << 30) + 5)
            stream.write(b"end")
        wanted = hash_of(bench.models / "big.bin")
        assert bench.push()["status"] == "succeeded"
        (bench.models / "big.bin").unlink()
        done = bench.pull()
        assert (done["status"], done["copied_bytes"]) == ("succeeded", (2 << 30) + 8)
        assert hash_of(bench.models / "big.bin") == wanted


def hash_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha1").hexdigest()


def test_a_cap_that_is_reached_ends_the_sync_with_its_own_code(tmp_path: Path, account: B2Native) -> None:
    with b2_store(account) as store:
        bench = Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)
        store.put("a.bin", b"a" * 1000)
        account.caps.add("download")
        done = bench.pull()
        assert (done["status"], exit_code(done)) == ("failed", 5), done
        assert "cap" in done["error"]["message"]
        assert bench.seen == {}
        account.caps.clear()
        assert bench.pull()["status"] == "succeeded"


def test_a_read_only_key_pulls_and_does_not_push(tmp_path: Path, account: B2Native) -> None:
    account.key = Key(capabilities=frozenset({"listBuckets", "listFiles", "readFiles"}))
    with b2_store(account) as store:
        bench = Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)
        store.put("a.bin", b"a")
        assert bench.pull()["status"] == "succeeded"
        bench.write("b.bin", b"b")
        refused = bench.push()
        assert (refused["status"], exit_code(refused)) == ("failed", 4), refused
        assert set(store.files()) == {"a.bin"}


def test_keys_that_expire_on_the_way_keep_what_came(tmp_path: Path) -> None:
    with serve_s3(tmp_path / "served") as served, s3_store(served) as store:
        bench = Bench(FolderPlace(tmp_path / "volumes", environ_of(store)), store)
        wanted = {f"{number}.bin": some_bytes(4 * MIB, str(number)) for number in range(4)}
        for path, data in wanted.items():
            store.put(path, data)
        store.proxy.add("status", status=403, body=EXPIRED, times=10_000, total_after=6 * MIB)
        done = bench.pull(limits={"transfers": 1})
        assert done["status"] in ("partial", "failed"), done
        assert exit_code(done) in (4, 6)
        assert all(wanted[path] == data for path, data in bench.seen.items())
        store.proxy.faults.clear()
        assert bench.pull()["status"] == "succeeded"
        assert bench.seen == wanted
