"""What the sync app's containers run: one job that moves files, on whatever volumes its call brought along.

`train_carrier` shares how a container comes to its place and how the work is done beside the main thread.
Imported in a bare container: the standard library and `modal` are all there is.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
import modal.exception

from comfymodal.errors import NotReadyError
from comfymodal.jobs.contract import Engine
from comfymodal.jobs.kinds import run_job
from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.names import ENV_OF_ANY_ROLE
from comfymodal.targets.modal.place import ModalPlace, Mount, container_facts, process_began

LONGEST_S = 24 * 3600.0 - 300.0
"""For the run, however many containers it takes: before Modal's own timeout the job stops by itself."""

_BEGAN = process_began()
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job has come to this container. `before` is the snapshot of the one that had it before, None for the first.

    `container` are the facts of this one.
    """

    place: ModalPlace
    container: Mapping[str, Any]
    before: Mapping[str, Any] | None


def carry(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job to its end; return its outcome. Raises only what Modal is to try again elsewhere.

    `job["modal"]` is what the operator's side knows of this place: `{project, board, volumes}`, where `volumes` are
    `{name, version}` by role.
    """
    arrival = arrive(job)
    place, container = arrival.place, arrival.container
    place.deadline = container["first_started_at"] + min(float(job.get("deadline_s") or LONGEST_S), LONGEST_S)
    if arrival.before is not None:
        place.take_over()
    say(job, f"{job['kind']} begins")
    work = Work(job, place)
    try:
        work.start()
        work.join()
    except modal.exception.InputCancellation:
        place.stop()
        work.join()
        if work.outcome is not None:
            place.close(work.outcome, container)
        raise
    except BaseException:
        # The container is being taken away, and Modal gives the input to another one.
        place.leave_soon()
        work.join()
        place.abandon()
        raise
    outcome = work.require_outcome(place)
    say_end(job, outcome)
    return place.close(outcome, container)


def arrive(job: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> Arrival:
    """Take the job up; from now on it is found on the board. `about` is what every snapshot says beside the rest."""
    number = next(_NUMBERS)
    where, run_id = job["modal"], str(job["run_id"])
    board = Board(where["board"], None)
    before = board.read(run_id)
    container = container_facts(
        before,
        began=_BEGAN,
        enter_s=time.time() - _BEGAN if number == 1 else 0.0,
        is_first=number == 1,
    )
    place = ModalPlace(
        run_id,
        mounts={
            role: Mount(Path(os.environ[ENV_OF_ANY_ROLE[role]]), volume["name"], volume["version"])
            for role, volume in where["volumes"].items()
        },
        board=board,
        before=before,
        about={
            "call_id": modal.current_function_call_id(),
            "container": container,
            "project": where["project"],
            **(about or {}),
        },
        get_engine=_no_engine,
    )
    return Arrival(place, container, before)


def say(job: Mapping[str, Any], words: str) -> None:
    """Into Modal's log, where `comfymodal logs RUN` finds it."""
    print(f"comfymodal: run {job['run_id']}: {words}", flush=True)  # noqa: T201


def say_end(job: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
    error = outcome.get("error") or {}
    say(job, f"{outcome['status']} {error.get('message') or ''}".strip())


class Work:
    """The job in a thread of its own: a cancellation interrupts the main thread wherever it is, and rclone's log,
    a lease and half a batch are not to be left in the middle.
    """

    def __init__(self, job: Mapping[str, Any], place: ModalPlace) -> None:
        self.outcome: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(job, place), name="job", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float = float("inf")) -> bool:
        """Wait for its end; False when that took too long."""
        give_up_at = time.monotonic() + timeout_s
        # Not the thread's own join: once a signal has interrupted that, Python 3.11 takes the thread for ended.
        while self._thread.is_alive() and not self._done.wait(0.5):
            if time.monotonic() > give_up_at:
                return False
        return True

    def require_outcome(self, place: ModalPlace) -> dict[str, Any]:
        """How it ended; what it raised is raised, and the place is left to whoever goes on."""
        if self.outcome is None:
            place.abandon()
            raise self.error or RuntimeError("the job ended without a word")
        return self.outcome

    def _run(self, job: Mapping[str, Any], place: ModalPlace) -> None:
        try:
            self.outcome = run_job(job, place)
        except BaseException as exc:  # noqa: BLE001 - handed to the main thread
            self.error = exc
        finally:
            self._done.set()


def _no_engine() -> Engine:
    raise NotReadyError("there is no ComfyUI where files are moved, and none where trainings run")
