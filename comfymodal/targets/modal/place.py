"""A Modal container as a place for jobs: volumes are mounts, events go to the board, commits are explicit.

Runs in the container only. A network fault between it and Modal must not end a render, so deliveries are tried again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal
import modal.exception as me

from comfymodal.errors import ComfymodalError, NotReadyError, TransferError
from comfymodal.files import append_json_line, write_json
from comfymodal.jobs.contract import EVENTS_FILE, OUTCOME_FILE, Control, Engine, heard, run_folder
from comfymodal.targets.courier import Courier
from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.leases import Lease, hold

if TYPE_CHECKING:
    from comfymodal.storage.side import Mover, Side

DELIVER_EVERY_S = 0.5

BEAT_EVERY_S = 10.0
"""The board is written to at least so often: until its last word a container that was lost has cost money."""

COMMIT_ATTEMPTS = 4
_OUTAGE = (me.ConnectionError, me.ServiceError, me.InternalError, me.ResourceExhaustedError)

TOLD_BYTES = 64 * 1024
"""What of an outcome is larger is read from the outputs volume."""

LONG_PARTS = ("paths", "result")
"""What of an outcome may be long: a line per file."""

LONGEST_IMPORT_S = 120.0
"""Until our code runs; a process that was restored from a snapshot is as old as that."""

TAKEN_OVER = "Modal took the run's container away; another one goes on: what is finished is kept, the rest starts anew"


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume as it is mounted here; `name` and `version` (None where nobody asked) are Modal's."""

    path: Path
    name: str
    version: int | None = None


class ModalPlace:
    """Fulfils `jobs.contract.StoragePlace`. `mounts` are by role, `about` is what every snapshot says.

    `before` is the snapshot of the container that had this run before, None for the first.
    """

    def __init__(
        self,
        run_id: str,
        *,
        mounts: Mapping[str, Mount],
        board: Board,
        before: Mapping[str, Any] | None,
        about: Mapping[str, Any],
        get_engine: Callable[[], Engine],
    ) -> None:
        self.volumes: Mapping[str, Path] = {role: mount.path for role, mount in mounts.items()}
        self.environ: Mapping[str, str] = os.environ
        self.deadline: float | None = None
        self._mounts = mounts
        self._leases: dict[str, Lease] = {}
        # Modal reloads no volume on which a file is open, and that of events is written now and then.
        self._events_file = threading.Lock()
        self._telling = threading.Lock()
        self._unwritten: list[Mapping[str, Any]] = []
        self._run_id, self._board, self._get_engine = run_id, board, get_engine
        self._control: Control | None = None
        self._must_stop = self._must_end = self._is_leaving = False
        seq = int((before or {}).get("seq") or 0)
        self._snapshot: Mapping[str, Any] = {"seq": seq, "events": [], **about}
        self._container = about["container"]
        self._is_due, self._put_at = True, time.monotonic()
        # The first act: from now on the run can be found, and cancelled, by its id alone.
        self._tick()
        self._courier = Courier(self._deliver, every_s=DELIVER_EVERY_S, tick=self._tick, seq=seq)

    def emit(self, event: Mapping[str, Any]) -> None:
        self._courier.emit(event)

    def commit(self, volume: str) -> None:
        name = self._mounts[volume].name
        if any(lease.is_lost for owner, lease in list(self._leases.items()) if self._mount_of(owner)[0] == volume):
            raise TransferError(
                f"the volume {name} was taken over by another command while this one was out of Modal's sight",
                hint="run it again: it goes on with what is missing",
            )
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                with self._events_file:
                    modal.Volume.from_name(name).commit()
            except (modal.Error, RuntimeError) as exc:
                if not isinstance(exc, _OUTAGE) or attempt == COMMIT_ATTEMPTS - 1:
                    raise TransferError(f"cannot commit the volume {name}: {exc}") from exc
                time.sleep(2.0**attempt)
            else:
                return

    def reload(self, volume: str) -> None:
        with self._events_file:
            modal.Volume.from_name(self._mounts[volume].name).reload()

    @contextmanager
    def lease(self, owner: str) -> Iterator[None]:
        role, below = self._mount_of(owner)
        if role is None:
            raise NotReadyError(f"no volume {owner} is mounted where this runs")
        if owner in self._leases:
            # Both ends of a pair may lie on one volume.
            yield
            return
        about = {
            "run_id": self._run_id,
            "project": self._snapshot.get("project"),
            "container_id": self._container["container_id"],
        }
        # No volume has a slash in its name: the lease of a folder is never taken for one of a volume.
        name = f"{self._mounts[role].name}/{below}" if below else self._mounts[role].name
        with hold(name, None, about, self.stop) as lease:
            self._leases[owner] = lease
            try:
                yield
            finally:
                del self._leases[owner]

    def _mount_of(self, owner: str) -> tuple[str | None, str]:
        """Which volume an owner of a lease lies on, and the folder in it; `owner` is a role or an absolute path."""
        if owner in self._mounts:
            return owner, ""
        for role, mount in self._mounts.items():
            if (path := Path(owner)).is_relative_to(mount.path):
                return role, "/".join(path.relative_to(mount.path).parts)
        return None, ""

    def volume_version(self, volume: str) -> int | None:
        return self._mounts[volume].version

    def volume_name(self, volume: str) -> str:
        return self._mounts[volume].name

    def side_of(self, volume: Mapping[str, Any]) -> tuple[Side, Mover]:
        raise NotReadyError(f"the volume {volume.get('name')} is mounted where this runs, or not there at all")

    def control(self) -> Control | None:
        if self._must_end:
            return "abort"
        return "stop" if self._must_stop and self._control != "abort" else self._control

    @property
    def is_leaving(self) -> bool:
        return self._is_leaving

    def stop(self) -> None:
        """As if the operator had asked: the container is being taken away."""
        # A flag of its own: the thread that asks the board may be about to note another word.
        self._must_stop = True

    def end(self) -> None:
        """The same, at once: there is no time left."""
        self._must_end = True

    def engine(self) -> Engine:
        return self._get_engine()

    def take_over(self, message: str = TAKEN_OVER) -> None:
        """Another container had this run before; what it finished is on the volume."""
        self.emit({"type": "container_lost", "message": message})
        self.reload("outputs")

    def tell(self, **about: Any) -> None:
        """Say something else, or something more, in every snapshot from now on."""
        self._change(about)

    def leave_soon(self) -> None:
        """The container is being taken away and another one will go on: end the work, hand the volumes over."""
        # First of all: a trainer begins to save at once, whatever Modal answers meanwhile.
        self._is_leaving = True
        for lease in list(self._leases.values()):
            with _said("cannot tell that this container leaves"):
                lease.announce_leave()
        self.stop()

    def abandon(self) -> None:
        """Say nothing more but how long it took: the run goes on elsewhere."""
        self._courier.close()
        self._put(is_due=True)

    def close(self, outcome: dict[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
        """Keep how it ended where it lasts, then deliver what is left; return what the call is to return."""
        outcome["container"] = {**container, "ended_at": time.time()}
        is_kept = False
        try:
            with self._events_file:
                write_json(run_folder(self.volumes, self._run_id) / OUTCOME_FILE, outcome)
            self.commit("outputs")
            is_kept = True
        except (OSError, ComfymodalError) as exc:
            print(f"comfymodal: cannot keep the outcome: {exc}", flush=True)  # noqa: T201
        told = _abridged(outcome) if is_kept else outcome
        self._courier.close()
        self._change({"outcome": dict(told)})
        self._put()
        return told

    def _deliver(self, seq: int, events: Sequence[Mapping[str, Any]], recent: Sequence[Mapping[str, Any]]) -> None:
        self._change({"seq": seq, "events": list(recent)})
        self._unwritten += events
        folder = run_folder(self.volumes, self._run_id)
        # While a volume is committed or reloaded, which may take long, they wait; the board does not.
        if folder.is_dir() and self._events_file.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    for event in self._unwritten:
                        append_json_line(folder / EVENTS_FILE, event)
                self._unwritten = []
            finally:
                self._events_file.release()

    def _tick(self) -> None:
        self._put()
        if self._control != "abort" and not self._must_stop:
            with _said("cannot ask the board"):
                self._control = heard(self._control, self._board.asked(self._run_id))

    def _change(self, more: Mapping[str, Any]) -> None:
        with self._telling:
            self._snapshot, self._is_due = {**self._snapshot, **more}, True

    def _put(self, *, is_due: bool = False) -> None:
        with self._telling:
            is_due = is_due or self._is_due or time.monotonic() - self._put_at > BEAT_EVERY_S
            snapshot, self._is_due = {**self._snapshot, "at": time.time()}, False
        if not is_due:
            return
        try:
            self._board.write(self._run_id, snapshot)
            self._put_at = time.monotonic()
        except modal.Error as exc:
            self._is_due = True
            _say_failed("cannot write to the board", exc)


def process_began() -> float:
    """When this process started: a container is paid for from about then on, and Python's imports take seconds of it.

    Now, where the system does not tell, or tells what cannot be of a container that has just been started.
    """
    now = time.time()
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return now
    return now - age_s if 0.0 <= age_s <= LONGEST_IMPORT_S else now


def container_facts(
    before: Mapping[str, Any] | None, *, began: float, enter_s: float, is_first: bool
) -> dict[str, Any]:
    """This container for the record. `before` is the snapshot of an earlier one that had the same run.

    `lost_s` is what earlier ones spent on it: until their last word, as none is paid for while the run waits for the
    next.
    """
    now = time.time()
    first_started_at, lost_s = now, 0.0
    if before is not None:
        lost = before["container"]
        first_started_at = float(lost["first_started_at"])
        started_up_s = float(lost["enter_s"]) if lost["is_first"] else 0.0
        own_s = max(0.0, min(float(before.get("at") or now), now) - float(lost["started_at"]))
        lost_s = float(lost["lost_s"]) + own_s + started_up_s
    return {
        "container_id": os.environ.get("MODAL_TASK_ID", ""),
        "container_started_at": began,
        "enter_s": round(enter_s, 3),
        "is_first": is_first,
        "started_at": now,
        "first_started_at": first_started_at,
        "lost_s": round(lost_s, 3),
    }


def _abridged(outcome: dict[str, Any]) -> dict[str, Any]:
    """The outcome without its long parts, if it has any; `is_abridged` says so."""
    if not any(outcome.get(part) for part in LONG_PARTS) or len(json.dumps(outcome)) <= TOLD_BYTES:
        return outcome
    return {**{key: value for key, value in outcome.items() if key not in LONG_PARTS}, "is_abridged": True}


@contextmanager
def _said(doing: str) -> Iterator[None]:
    try:
        yield
    except modal.Error as exc:
        _say_failed(doing, exc)


def _say_failed(doing: str, exc: modal.Error) -> None:
    print(f"comfymodal: {doing}: {exc}", file=sys.stderr, flush=True)  # noqa: T201
