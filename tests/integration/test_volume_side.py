"""A folder and a Modal volume in step: the sync job with Modal's stock client against the control plane double."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modal
import pytest
from modal.client import _Client

from comfymodal.errors import BusyError, NotFoundError
from comfymodal.jobs import sync
from comfymodal.storage.actions import Action
from comfymodal.storage.ends import ApiEnd, End, FolderEnd, arrange, end_from_dict, end_to_dict
from comfymodal.storage.side import Mover, Side
from comfymodal.storage.trash import TRASH
from comfymodal.targets.modal import volume_download, volume_lease, volume_upload
from comfymodal.targets.modal.leases import LEASES
from comfymodal.targets.modal.volume_lease import hold_from_here
from comfymodal.targets.modal.volume_side import open_side
from tests.doubles.modal_cloud.client import ModalCloud
from tests.doubles.storage_place import FolderPlace

MIB = 1 << 20


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalCloud]:
    # No container is ever started, so any Python will do.
    made = ModalCloud.start(tmp_path_factory.mktemp("cloud"), container_python=Path(sys.executable), is_flat=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environ.items():
            patch.setenv(name, value)
        # The client of the environment is made once a process.
        _Client._set_env_client(None)
        yield made
        _Client._set_env_client(None)
    made.stop()


class ApiPlace(FolderPlace):
    def side_of(self, volume: Mapping[str, Any]) -> tuple[Side, Mover]:
        end = end_from_dict(volume)
        assert isinstance(end, ApiEnd)
        return open_side(end)


@dataclass
class Bench:
    """A folder, a folder of a volume, and the syncs between them."""

    place: ApiPlace
    cloud: ModalCloud
    folder: Path
    volume: str
    path: str = "some/models"
    runs: int = field(default=0)

    @property
    def end(self) -> ApiEnd:
        return ApiEnd("models", self.volume, None, self.path)

    @property
    def root(self) -> Path:
        """The volume as Modal keeps it."""
        return self.cloud.volume_folder(self.volume)

    @property
    def there(self) -> dict[str, bytes]:
        """What lies in the pair's folder of the volume."""
        return files_of(self.root / self.path)

    @property
    def here(self) -> dict[str, bytes]:
        return {path: data for path, data in files_of(self.folder).items() if not path.startswith(".comfymodal/")}

    def write(self, path: str, data: bytes, age_s: float = 60) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        then = time.time() - age_s
        os.utime(target, (then, then))
        return target

    def write_there(self, path: str, data: bytes, age_s: float = 30) -> Path:
        """As a container does that has the volume mounted."""
        target = self.root / self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(data)
        then = time.time() - age_s
        os.utime(target, (then, then))
        return target

    def trash_there(self) -> dict[str, bytes]:
        """By path from the volume's root, without the stamp."""
        return {path.partition("/")[2]: data for path, data in files_of(self.root / TRASH).items()}

    def push(self, **more: Any) -> dict[str, Any]:
        return self.run(FolderEnd(str(self.folder)), self.end, **more)

    def pull(self, **more: Any) -> dict[str, Any]:
        return self.run(self.end, FolderEnd(str(self.folder)), **more)

    def both(self, **more: Any) -> dict[str, Any]:
        return self.run(FolderEnd(str(self.folder)), self.end, is_two_way=True, **more)

    def run(
        self, source: End, target: End, *, is_two_way: bool = False, approved: Any = None, **rules: Any
    ) -> dict[str, Any]:
        ends = arrange(source, target, is_two_way=is_two_way)
        self.runs += 1
        outcome = sync.run(
            {
                "version": 1,
                "kind": "sync",
                "run_id": f"run-{self.runs}",
                "mode": "run",
                "is_verify": False,
                "pair": {"name": "pair", "from": str(source), "to": str(target)},
                "here": end_to_dict(ends.here),
                "there": end_to_dict(ends.there),
                "direction": ends.direction,
                "rules": {
                    "delete": False,
                    "prefer": None,
                    "allow_empty": False,
                    "include": [],
                    "exclude": [],
                    **rules,
                },
                "limits": {"transfers": None, "bwlimit": None},
                "approved": approved,
                "host": "desk",
                "mounts": [],
                "secrets": [],
                "deadline_s": None,
                "origin": {"title": "test", "created_at": 0.0},
            },
            self.place,
        )
        assert isinstance(outcome, dict)
        return outcome


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results(outcome: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["path"]: (each["action"], each["result"]) for each in outcome["paths"]}


@pytest.fixture(params=[1, 2])
def bench(request: pytest.FixtureRequest, cloud: ModalCloud, tmp_path: Path) -> Bench:
    return make_bench(cloud, tmp_path, request.param)


@pytest.fixture
def bench2(cloud: ModalCloud, tmp_path: Path) -> Bench:
    return make_bench(cloud, tmp_path, 2)


def make_bench(cloud: ModalCloud, tmp_path: Path, version: int) -> Bench:
    name = f"models-{tmp_path.name}"
    modal.Volume.from_name(name, create_if_missing=True, version=version).hydrate()
    found = Bench(ApiPlace(tmp_path / "place", os.environ), cloud, tmp_path / "folder", name)
    found.folder.mkdir()
    (found.root / found.path).mkdir(parents=True)
    return found


def test_a_folder_is_pushed_a_second_time_there_is_nothing_to_do_and_it_comes_back(
    bench: Bench, tmp_path: Path
) -> None:
    zeros = os.urandom(9 * MIB) + bytes(9 * MIB)
    wanted = {"a b/-x.ckpt": b"x", "ünï/模型.pt": os.urandom(300_000), "empty": b"", "star*": b"s", "zeros.bin": zeros}
    for path, data in wanted.items():
        bench.write(path, data, age_s=1000)
    outcome = bench.push()
    assert outcome["status"] == "succeeded", outcome["error"]
    assert bench.there == wanted
    assert all(each["verified"] for each in outcome["paths"])
    again = bench.push()
    assert again["plan"]["is_in_step"]
    # Times of the sources are known to the volume's note, and so come back with the files.
    elsewhere = Bench(bench.place, bench.cloud, tmp_path / "elsewhere", bench.volume)
    back = elsewhere.pull()
    assert back["status"] == "succeeded", back["error"]
    assert elsewhere.here == wanted
    assert all(each["verified"] for each in back["paths"])
    times = [(root / "empty").stat().st_mtime for root in (bench.folder, elsewhere.folder)]
    assert times[0] == pytest.approx(times[1], abs=0.001)


def test_what_was_not_sent_by_us_is_taken_by_its_size_and_time(bench2: Bench) -> None:
    bench = bench2
    stored = bench.write_there("a.pt", b"1234")
    outcome = bench.pull()
    assert outcome["status"] == "succeeded", outcome["error"]
    assert bench.here == {"a.pt": b"1234"}
    assert int((bench.folder / "a.pt").stat().st_mtime) == int(stored.stat().st_mtime)
    assert [each["verified"] for each in outcome["paths"]] == [False]
    assert bench.pull()["plan"]["is_in_step"]
    bench.write_there("a.pt", b"5678", age_s=10)
    assert results(bench.pull()) == {"a.pt": ("changed", "copied")}
    assert bench.here == {"a.pt": b"5678"}


def test_what_a_push_replaces_or_deletes_is_in_the_trash_of_the_volume(bench: Bench) -> None:
    for path in ("deep/folder/a.pt", "b.pt", *(f"{number}.pt" for number in range(10))):
        bench.write(path, b"old")
    bench.push()
    bench.write("deep/folder/a.pt", b"new one")
    (bench.folder / "b.pt").unlink()
    outcome = bench.push(delete=True, approved={"here": [], "there": ["b.pt"], "force": False})
    assert outcome["status"] == "succeeded", outcome["error"]
    assert bench.there["deep/folder/a.pt"] == b"new one"
    assert "b.pt" not in bench.there
    assert bench.trash_there() == {"some/models/deep/folder/a.pt": b"old", "some/models/b.pt": b"old"}
    assert bench.push()["plan"]["is_in_step"]


def test_two_way_carries_both_and_shows_a_conflict(bench2: Bench) -> None:
    bench = bench2
    bench.write("a.pt", b"one")
    bench.write("b.pt", b"one")
    assert bench.both()["status"] == "succeeded"
    bench.write("a.pt", b"from here", age_s=20)
    bench.write_there("b.pt", b"from there", age_s=20)
    outcome = bench.both()
    assert results(outcome) == {"a.pt": ("changed", "copied"), "b.pt": ("changed", "copied")}
    assert bench.here == bench.there == {"a.pt": b"from here", "b.pt": b"from there"}
    bench.write("a.pt", b"mine", age_s=10)
    bench.write_there("a.pt", b"theirs", age_s=10)
    outcome = bench.both()
    assert results(outcome)["a.pt"] == ("conflict", "conflict")
    assert bench.there["a.pt"] == b"theirs"
    outcome = bench.push(prefer="both")
    assert outcome["status"] == "succeeded", outcome["error"]
    assert bench.there["a.pt"] == b"mine"
    assert b"theirs" in bench.there.values()


def test_a_file_that_changed_or_appeared_there_meanwhile_is_left_alone(bench2: Bench) -> None:
    bench = bench2
    bench.write("a.pt", b"old")
    bench.push()
    bench.write("a.pt", b"new", age_s=20)
    bench.write("b.pt", b"new", age_s=20)

    def interfere(event: Mapping[str, Any]) -> None:
        if event["type"] == "plan":
            bench.write_there("a.pt", b"somebody's", age_s=5)
            bench.write_there("b.pt", b"somebody's", age_s=5)

    bench.place.on_event = interfere
    outcome = bench.push()
    assert results(outcome) == {"a.pt": ("changed", "failed"), "b.pt": ("new", "failed")}
    assert set(bench.there.values()) == {b"somebody's"}


def test_a_file_that_changes_while_it_is_sent_is_not_left_there(bench2: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench2
    bench.write("a.pt", b"before")
    bench.write("b.pt", b"still")
    upload = volume_upload._upload

    async def upload_and_change(*arguments: Any) -> None:
        await upload(*arguments)
        bench.write("a.pt", b"after!", age_s=0)

    monkeypatch.setattr(volume_upload, "_upload", upload_and_change)
    outcome = bench.push()
    assert results(outcome) == {"a.pt": ("new", "failed"), "b.pt": ("new", "copied")}
    assert bench.there == {"b.pt": b"still"}
    monkeypatch.undo()
    assert bench.push()["status"] == "succeeded"
    assert bench.there == {"a.pt": b"after!", "b.pt": b"still"}


def test_one_file_that_cannot_be_written_spoils_no_other(bench2: Bench) -> None:
    bench = bench2
    bench.write("a.pt", b"a")
    bench.write("b.pt", b"b")
    (bench.root / bench.path / "b.pt").mkdir()
    outcome = bench.push()
    assert results(outcome) == {"a.pt": ("new", "copied"), "b.pt": ("new", "failed")}
    assert outcome["status"] == "partial"


def test_a_kill_between_a_batch_and_its_record_costs_nothing(bench2: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench2
    monkeypatch.setattr(volume_upload, "BATCH_FILES", 2)
    names = [f"{number}.pt" for number in range(5)]
    for name in names:
        bench.write(name, name.encode())

    class KilledError(BaseException):
        pass

    def kill(event: Mapping[str, Any]) -> None:
        if event == {"type": "phase", "phase": "commit"}:
            raise KilledError

    bench.place.on_event = kill
    with pytest.raises(KilledError):
        bench.push()
    assert set(bench.there) == set(names)
    bench.place.on_event = lambda event: None
    outcome = bench.push()
    assert results(outcome) == {name: ("adopt", "same") for name in names}
    assert bench.push()["plan"]["counts"] == {"same": 5}


def test_a_batch_that_arrived_without_an_answer_counts(bench2: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = volume_upload._upload

    async def upload_and_lose(*arguments: Any) -> None:
        await upload(*arguments)
        raise modal.exception.ConnectionError("the line is cut")

    monkeypatch.setattr(volume_upload, "_upload", upload_and_lose)
    bench2.write("a.pt", b"a")
    outcome = bench2.push()
    assert outcome["status"] == "succeeded", outcome["error"]
    assert bench2.there == {"a.pt": b"a"}


def test_an_sdk_that_tells_no_progress_uploads_too(bench2: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(modal.volume, "AbstractVolumeUploadContextManager")
    bench2.write("a.pt", b"a")
    assert bench2.push()["status"] == "succeeded"
    assert bench2.there == {"a.pt": b"a"}


def test_a_lost_answer_and_a_service_that_fails_for_a_while(bench2: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench2
    monkeypatch.setattr(volume_upload, "PAUSES_S", (0.0, 0.0))
    bench.write("a.pt", b"a")
    bench.cloud.do("lose_answer", rpc="VolumePutFiles2")
    assert bench.push()["status"] == "succeeded"
    bench.write("b.pt", b"b")
    bench.cloud.do("fail", rpc="VolumePutFiles2", status="RESOURCE_EXHAUSTED", times=2)
    outcome = bench.push()
    assert outcome["status"] == "succeeded", outcome["error"]
    assert bench.there == {"a.pt": b"a", "b.pt": b"b"}


def test_a_service_that_fails_on_and_on_ends_the_sync(bench2: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench2
    monkeypatch.setattr(volume_upload, "PAUSES_S", ())
    monkeypatch.setattr(volume_upload, "BATCH_FILES", 1)
    bench.write("a.pt", b"a")
    bench.write("b.pt", b"b")
    bench.cloud.do("fail", rpc="VolumePutFiles2", status="RESOURCE_EXHAUSTED", times=1)
    outcome = bench.push()
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "service_failed")
    assert bench.there == {}
    assert bench.push()["copied_files"] == 2


def test_a_stop_ends_a_batch_and_the_next_sync_goes_on(bench2: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench2
    monkeypatch.setattr(volume_upload, "BATCH_FILES", 1)
    bench.write("a.pt", b"a")
    bench.write("b.pt", os.urandom(MIB))
    upload = volume_upload._upload

    async def upload_slowly(*arguments: Any) -> None:
        if bench.there:
            bench.place.word = "stop"
            await asyncio.sleep(30)
        await upload(*arguments)

    monkeypatch.setattr(volume_upload, "_upload", upload_slowly)
    outcome = bench.push()
    assert outcome["status"] == "cancelled"
    assert outcome["copied_files"] == 1
    assert set(bench.there) == {"a.pt"}
    monkeypatch.undo()
    bench.place.word = None
    assert bench.push()["copied_files"] == 1
    assert set(bench.there) == {"a.pt", "b.pt"}


def test_a_download_that_was_stopped_goes_on_at_its_block(bench2: Bench) -> None:
    bench = bench2
    data = os.urandom(20 * MIB)
    bench.write_there("a.pt", data)
    bench.cloud.do("slow_blocks", bytes_per_s=12 * MIB)

    def stop(event: Mapping[str, Any]) -> None:
        if event["type"] == "transfer" and event["done_bytes"]:
            bench.place.word = "stop"

    bench.place.on_event = stop
    try:
        outcome = bench.pull()
    finally:
        bench.cloud.do("slow_blocks", bytes_per_s=0)
    assert outcome["status"] == "cancelled"
    (partial,) = bench.folder.glob("a.pt.*.partial")
    assert 0 < partial.stat().st_size < len(data)
    bench.place.word, bench.place.on_event = None, lambda event: None
    asked = len(bench.cloud.requests("VolumeGetFile2"))
    assert bench.pull()["status"] == "succeeded"
    assert bench.here == {"a.pt": data}
    (body,) = [
        entry["body"] for entry in bench.cloud.requests("VolumeGetFile2")[asked:] if "a.pt" in entry["body"]["path"]
    ]
    assert int(body["start"]) in (8 * MIB, 16 * MIB)


def test_a_download_whose_source_changed_begins_anew(bench2: Bench) -> None:
    bench = bench2
    bench.write_there("a.pt", b"x" * 10 * MIB)
    bench.folder.joinpath("a.pt.00000000.partial").write_bytes(b"y" * 9 * MIB)
    assert bench.pull()["status"] == "succeeded"
    assert bench.here["a.pt"] == b"x" * 10 * MIB


def test_what_is_written_here_while_its_successor_comes_is_left_alone(
    bench2: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench2.write_there("a.bin", b"first")
    bench2.pull()
    bench2.write_there("a.bin", b"second, longer")
    bench2.write_there("new.bin", b"new there")
    bring = volume_download._bring

    def bring_and_write(work: Any, action: Action, partial: Path) -> None:
        bring(work, action, partial)
        bench2.write(action.path, b"written here", age_s=0)

    monkeypatch.setattr(volume_download, "_bring", bring_and_write)
    done = bench2.pull()
    assert {path: result for path, (_, result) in results(done).items()} == {"a.bin": "failed", "new.bin": "failed"}
    assert {path: bench2.here[path] for path in ("a.bin", "new.bin")} == dict.fromkeys(
        ("a.bin", "new.bin"), b"written here"
    )


def test_what_arrives_is_compared_with_what_was_sent(bench2: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench2
    monkeypatch.setattr(volume_download, "PAUSE_S", 0.0)
    bench.write("a.pt", b"right")
    bench.push()
    shutil.rmtree(bench.folder)
    stored = bench.root / bench.path / "a.pt"
    time_ns = stored.stat().st_mtime_ns
    stored.write_bytes(b"wrong")
    os.utime(stored, ns=(time_ns, time_ns))
    outcome = bench.pull()
    assert results(outcome) == {"a.pt": ("new", "failed")}
    assert bench.here == {}


def test_our_own_files_and_half_written_ones_are_no_part_of_it(bench2: Bench) -> None:
    bench = bench2
    bench.path = ""
    bench.write_there("a.pt", b"a")
    bench.write_there("b.pt.0123abcd.partial", b"b")
    bench.write_there(".comfymodal/bases/x.json", b"{}")
    bench.write_there("some/other.txt", b"o")
    side, _ = open_side(bench.end)
    assert set(side.list_files(lambda: None)) == {"a.pt", "some/other.txt"}
    assert bench.pull()["status"] == "succeeded"
    assert set(bench.here) == {"a.pt", "some/other.txt"}


def test_what_is_not_there_is_said(bench2: Bench) -> None:
    with pytest.raises(NotFoundError, match="no Modal volume") as missing:
        open_side(ApiEnd("models", "nowhere", None))
    assert missing.value.hint is not None
    bench2.path = "nothing/here"
    assert bench2.pull()["error"]["code"] == "not_found"
    bench2.path = "some/models"
    bench2.write("a.pt", b"a")
    bench2.push()
    bench2.path = "some/models/a.pt"
    assert bench2.pull()["error"]["code"] == "not_found"


def test_a_volume_that_is_made_anew_is_another_place(bench2: Bench) -> None:
    before, _ = open_side(bench2.end)
    again, _ = open_side(bench2.end)
    assert before.identity == again.identity
    modal.Volume.objects.delete(bench2.volume)
    modal.Volume.from_name(bench2.volume, create_if_missing=True).hydrate()
    after, _ = open_side(bench2.end)
    assert after.identity != before.identity


def test_the_trash_takes_one_name_twice(bench2: Bench) -> None:
    bench = bench2
    side, _ = open_side(bench.end)
    for data in (b"one", b"three"):
        bench.write_there("a.pt", data)
        state = side.find_files(["a.pt"])["a.pt"]
        refused = side.put_away([Action("a.pt", "delete_there", state.size, "", there=state)], "20260101T000000Z")
        assert refused == {}
    assert set(files_of(bench.root / TRASH)) == {
        "20260101T000000Z/some/models/a.pt",
        "20260101T000000Z-2/some/models/a.pt",
    }
    bench.write_there("b.pt", b"b")
    side.withdraw("b.pt", "20260101T000000Z")
    assert bench.there == {}


def test_one_writer_from_this_machine_and_a_killed_one_is_in_nobodys_way(
    bench2: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_lease, "PATIENCE_S", 0.0)
    leases, volume = modal.Dict.from_name(LEASES, create_if_missing=True), bench2.volume

    def hold(run_id: str = "r1") -> AbstractContextManager[None]:
        return hold_from_here(volume, None, {"run_id": run_id}, tmp_path / "state", lambda: None)

    with hold():
        left = leases.get(volume)
        with pytest.raises(BusyError, match="this machine"), hold("r2"):
            pytest.fail("two writers")
    assert leases.get(volume) is None
    leases.put(volume, left)  # as after a kill: the lock is free, the entry is there
    with hold():
        assert leases.get(volume)["token"] != left["token"]
    leases.put(volume, {**left, "desk": "another machine"})
    with pytest.raises(BusyError, match="run r1"), hold("r2"):
        pytest.fail("two writers")
