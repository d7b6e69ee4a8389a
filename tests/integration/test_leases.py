"""One writer per volume: the stock client against the control plane double, with times that fit a test."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import modal
import pytest
from modal.client import _Client

from comfymodal.errors import BusyError, NotReadyError, TransferError
from comfymodal.targets.modal import leases
from comfymodal.targets.modal import place as places
from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.leases import LEASES, Lease, hold
from comfymodal.targets.modal.place import DELIVER_EVERY_S, ModalPlace, Mount
from tests.doubles.modal_cloud.client import ModalCloud

BEAT_S, DEAD_S = 0.1, 0.6


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


@pytest.fixture(autouse=True)
def _quick(cloud: ModalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_EVERY_S", BEAT_S)
    monkeypatch.setattr(leases, "DEAD_AFTER_S", DEAD_S)
    monkeypatch.setattr(leases, "LEAVING_S", 1.0)
    monkeypatch.setattr(leases, "_POLL_S", 0.02)
    entries().clear()


def entries() -> modal.Dict:
    return modal.Dict.from_name(LEASES, create_if_missing=True)


def entry(volume: str = "models") -> dict[str, Any] | None:
    found = entries().get(volume)
    assert found is None or isinstance(found, dict)
    return found


def about(run_id: str, container_id: str = "ta-1") -> dict[str, str]:
    return {"run_id": run_id, "project": "portraits", "container_id": container_id}


def dead(run_id: str = "r0", *, age_s: float = 10 * DEAD_S, **more: Any) -> Mapping[str, Any]:
    then = time.time() - age_s
    return {**about(run_id), "token": "gone", "since": then, "beat_at": then, **more}


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.02)


def test_a_volume_has_one_writer_and_is_free_afterwards() -> None:
    with hold("models", None, about("r1")):
        first = entry()
        with pytest.raises(BusyError) as refused, hold("models", None, about("r2")):
            pytest.fail("two writers")
        with hold("outputs", None, about("r2")):
            pass
        wait_until(lambda: (entry() or {}).get("beat_at") != (first or {})["beat_at"])
    with hold("models", None, about("r2")):
        second = entry()

    assert refused.value.message.startswith("the volume models is being written to by run r1 of the project portraits")
    assert refused.value.exit_code == 5
    assert (second or {})["run_id"] == "r2"
    assert entry() is None


def test_it_is_given_back_when_the_work_fails() -> None:
    with pytest.raises(RuntimeError), hold("models", None, about("r1")):
        raise RuntimeError

    assert entry() is None


def test_one_that_died_is_followed_by_one_of_two_who_want_its_place() -> None:
    entries().put("models", dead())
    taken: list[str] = []
    refused: list[str] = []
    both_asked = threading.Barrier(2)

    def want(run_id: str) -> None:
        both_asked.wait()
        try:
            with hold("models", None, about(run_id)):
                taken.append(run_id)
                time.sleep(0.5)
        except BusyError:
            refused.append(run_id)

    threads = [threading.Thread(target=want, args=(run_id,)) for run_id in ("r1", "r2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken + refused) == ["r1", "r2"]
    assert len(taken) <= 1
    assert entry() is None


def test_one_whose_clock_is_slow_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Lease("models", None, about("r1"))
    slow.take()
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_S / 2):
            slow._entry["beat_at"] = time.time() - 100 * DEAD_S - time.monotonic() % 1
            entries().put("models", slow._entry)

    thread = threading.Thread(target=beat)
    thread.start()
    time.sleep(BEAT_S)
    try:
        with pytest.raises(BusyError), hold("models", None, about("r2")):
            pytest.fail("two writers")
    finally:
        stop.set()
        thread.join()


def test_a_restarted_run_takes_its_own_at_once() -> None:
    entries().put("models", dead("r1", age_s=0.0))
    began = time.monotonic()
    with hold("models", None, about("r1", "ta-2")):
        seconds = time.monotonic() - began
        found = entry()

    assert (found or {})["container_id"] == "ta-2"
    assert seconds < DEAD_S


def test_a_restarted_run_waits_for_the_container_that_is_being_taken_away() -> None:
    order: list[str] = []
    leaving = threading.Event()

    def leave() -> None:
        with hold("models", None, about("r1")) as lease:
            lease.announce_leave()
            leaving.set()
            time.sleep(0.4)
            order.append("first ended")

    thread = threading.Thread(target=leave)
    thread.start()
    leaving.wait()
    with hold("models", None, about("r1", "ta-2")):
        order.append("second began")
    thread.join()

    assert order == ["first ended", "second began"]


def test_who_lost_the_volume_is_told_and_does_not_take_it_from_the_next() -> None:
    lost = threading.Event()
    with hold("models", None, about("r1"), lost.set) as lease:
        entries().put("models", {**about("r2"), "token": "other", "since": time.time(), "beat_at": time.time()})
        assert lost.wait(5)
        assert lease.is_lost

    assert (entry() or {})["run_id"] == "r2"


def test_who_cannot_beat_for_long_has_lost_the_volume(cloud: ModalCloud, capsys: pytest.CaptureFixture[str]) -> None:
    lost = threading.Event()
    with hold("models", None, about("r1"), lost.set):
        cloud.do("fail", rpc="DictGet", status="INVALID_ARGUMENT", times=1000)
        is_lost = lost.wait(5)
        cloud.do("fail", rpc="DictGet", times=0)

    assert is_lost
    assert "cannot keep the lease" in capsys.readouterr().out


def test_a_service_that_cannot_be_asked_is_no_free_volume(cloud: ModalCloud) -> None:
    cloud.do("fail", rpc="DictGet", status="PERMISSION_DENIED", times=1)
    with pytest.raises(NotReadyError) as refused, hold("models", None, about("r1")):
        pytest.fail("not asked")
    cloud.do("fail", rpc="DictGet", times=0)

    assert refused.value.message.startswith("cannot ask who writes to the volume models: ")


@pytest.fixture
def board() -> Board:
    # A new one for each test.
    return Board(f"board-{uuid.uuid4().hex}", None)


@pytest.fixture
def place(tmp_path: Path, board: Board) -> Iterator[ModalPlace]:
    mounts = {role: Mount(tmp_path / role, f"comfy-{role}") for role in ("outputs", "training")}
    told = {"container": {"container_id": "ta-1"}, "project": "portraits"}
    made = ModalPlace("r1", mounts=mounts, board=board, before=None, about=told, get_engine=Mock())
    yield made
    made.abandon()


def test_runs_side_by_side_on_one_volume_have_a_lease_each(place: ModalPlace) -> None:
    folder = place.volumes["training"] / "runs"

    with place.lease(str(folder / "one")), hold("comfy-training/runs/two", None, about("r2")):
        assert entry("comfy-training") is None
        assert (entry("comfy-training/runs/one") or {})["run_id"] == "r1"
        with pytest.raises(BusyError, match="comfy-training/runs/two is being written to by run r2"):
            place.lease(str(folder / "two")).__enter__()
    assert entry("comfy-training/runs/one") is None
    with place.lease(str(place.volumes["training"])):
        assert entry("comfy-training") is not None
    with pytest.raises(NotReadyError):
        place.lease("/elsewhere").__enter__()


def test_a_folder_that_was_lost_is_not_committed(place: ModalPlace) -> None:
    with place.lease(str(place.volumes["training"] / "runs" / "one")):
        entries().put("comfy-training/runs/one", {**about("r9"), "token": "another"})
        wait_until(lambda: place.control() == "stop")
        with pytest.raises(TransferError, match="taken over"):
            place.commit("training")


def test_a_save_may_become_a_stop_and_never_the_other_way_round(place: ModalPlace, board: Board) -> None:
    assert place.control() is None
    board.ask("r1", "save")
    wait_until(lambda: place.control() == "save")
    board.ask("r1", "stop")
    wait_until(lambda: place.control() == "stop")
    board.ask("r1", "save")
    time.sleep(2 * DELIVER_EVERY_S)
    assert place.control() == "stop"


def test_a_container_that_is_taken_away_stops_whatever_it_was_asked(place: ModalPlace, board: Board) -> None:
    place.stop()
    board.ask("r1", "save")
    time.sleep(2 * DELIVER_EVERY_S)
    assert place.control() == "stop"


def test_a_container_that_says_nothing_is_heard_of_all_the_same(
    place: ModalPlace, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "BEAT_EVERY_S", 0.1)
    first = (board.read("r1") or {})["at"]
    wait_until(lambda: (board.read("r1") or {})["at"] > first)
    place.tell(attempt={"number": 2})
    wait_until(lambda: (board.read("r1") or {}).get("attempt") == {"number": 2})
    place.emit({"type": "phase", "phase": "training"})
    wait_until(lambda: bool((board.read("r1") or {})["events"]))

    found = board.read("r1") or {}
    assert (found["seq"], found["attempt"], found["container"]) == (1, {"number": 2}, {"container_id": "ta-1"})
    place.abandon()
    assert (board.read("r1") or {})["at"] >= found["at"]


def test_who_is_left_no_time_ends_at_once(place: ModalPlace) -> None:
    place.stop()
    assert place.control() == "stop"
    place.end()
    assert place.control() == "abort"
