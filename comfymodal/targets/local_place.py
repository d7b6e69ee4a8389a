"""The worker process of the local target: runs one job in a `LocalPlace`, then leaves its outcome behind.

`python -m comfymodal.targets.local_place [CALL_FOLDER]`; without one it waits for it on stdin. It outlives the
command that started it, so a closed terminal, a killed client and a second terminal are the same case as on Modal.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfymodal.comfyui.server import Launch
from comfymodal.comfyui.warm import ensure_warm
from comfymodal.errors import BusyError, NotReadyError
from comfymodal.files import append_json_line, read_json, write_json
from comfymodal.jobs.contract import API_OWNER, EVENTS_FILE, OUTCOME_FILE, Control, Engine, heard, run_folder
from comfymodal.jobs.kinds import run_job
from comfymodal.targets.courier import Courier
from comfymodal.targets.local_call import CALL_FILE, CONTROL_FILE, SNAPSHOT_FILE, WORKER_LOG_FILE

if TYPE_CHECKING:
    from comfymodal.storage.side import Mover, Side

DELIVER_EVERY_S = 0.05
"""Files on this machine cost nothing, so more often than the twice a second of a remote place."""

CONTROL_EVERY_S = 0.1

LOCK_FILE = ".comfymodal/lock"
"""Under a volume's folder; whoever holds it is the only one who writes there."""

LEASE_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class ForeignEngine:
    """A server that is not ours: its process and its log are out of reach."""

    url: str

    def death(self) -> str | None:
        return None

    def folder_of(self, kind: str) -> Path | None:
        return None

    def log_position(self) -> int:
        return 0

    def log_since(self, position: int) -> str:
        return ""


class LocalPlace:
    """Fulfils `jobs.contract.StoragePlace` with folders and files."""

    deadline: float | None = None
    environ: Mapping[str, str] = os.environ
    is_leaving = False
    """A worker is told so by a signal, and jobs take those themselves."""

    def __init__(self, call: Path, data: Mapping[str, Any]) -> None:
        self.volumes: Mapping[str, Path] = {role: Path(path) for role, path in data["volumes"].items()}
        self._call = call
        self._state = Path(data["state"])
        self._engine_data = data.get("engine")
        self._run_folder = run_folder(self.volumes, str(data["job"]["run_id"]))
        self._about = {"run_id": data["job"]["run_id"], "host": data["job"].get("host")}
        self._control: Control | None = None
        self._control_read_at = 0.0
        self._has_lost_lease = False
        self._courier = Courier(self._deliver, every_s=DELIVER_EVERY_S)

    def emit(self, event: Mapping[str, Any]) -> None:
        self._courier.emit(event)

    def commit(self, volume: str) -> None:
        """Files on this machine are visible at once."""

    def reload(self, volume: str) -> None:
        """Files on this machine are visible at once."""

    @contextlib.contextmanager
    def lease(self, owner: str) -> Iterator[None]:
        from filelock import FileLock, Timeout

        if owner.startswith(API_OWNER):
            with self._lease_behind_api(owner.removeprefix(API_OWNER)):
                yield
            return
        folder = Path(self.volumes.get(owner, Path(owner)))
        lock = folder / LOCK_FILE
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        try:
            # The system frees it when its holder dies.
            held.acquire(timeout=LEASE_PATIENCE_S)
        except Timeout:
            raise BusyError(
                f"another command of this machine is writing to {folder}", hint="run it again when that one has ended"
            ) from None
        try:
            yield
        finally:
            held.release()

    def _lease_behind_api(self, owner: str) -> contextlib.AbstractContextManager[None]:
        from comfymodal.targets.modal.volume_lease import hold_from_here

        def stop() -> None:
            # A flag of its own: this is another thread, and `control` may be about to note another word.
            self._has_lost_lease = True

        environment, _, name = owner.rpartition("/")
        return hold_from_here(name, environment or None, self._about, self._state, stop)

    def volume_version(self, volume: str) -> int | None:
        """Folders have none."""

    def volume_name(self, volume: str) -> str:
        return os.path.realpath(self.volumes[volume])

    def side_of(self, volume: Mapping[str, Any]) -> tuple[Side, Mover]:
        from comfymodal.targets.modal_client import require_client

        require_client()
        from comfymodal.storage.ends import ApiEnd, end_from_dict
        from comfymodal.targets.modal.volume_side import open_side

        end = end_from_dict(volume)
        assert isinstance(end, ApiEnd)
        return open_side(end)

    def control(self) -> Control | None:
        if self._has_lost_lease:
            return "stop"
        now = time.monotonic()
        if self._control != "abort" and now - self._control_read_at > CONTROL_EVERY_S:
            self._control_read_at = now
            with contextlib.suppress(OSError):
                # Empty is a word that is just being written.
                self._control = heard(self._control, (self._call / CONTROL_FILE).read_text())
        return self._control

    def engine(self) -> Engine:
        if self._engine_data is None:
            raise NotReadyError("the job was submitted without a ComfyUI")
        if self._engine_data["launch"] is not None:
            return ensure_warm(Launch.from_dict(self._engine_data["launch"]), state=self._state, on_event=self.emit)
        if self._engine_data["url"] is None:
            raise NotReadyError("the job names no ComfyUI")
        return ForeignEngine(self._engine_data["url"])

    def close(self) -> None:
        """Deliver what is left."""
        self._courier.close()

    def _deliver(self, seq: int, events: Sequence[Mapping[str, Any]], recent: Sequence[Mapping[str, Any]]) -> None:
        try:
            write_json(self._call / SNAPSHOT_FILE, {"seq": seq, "events": recent})
            if self._run_folder.is_dir():
                for event in events:
                    append_json_line(self._run_folder / EVENTS_FILE, event)
        except OSError as exc:
            # A full disk must not end a render that may still be saved elsewhere; the job reports its own files.
            print(f"cannot deliver events: {exc}", file=sys.stderr)  # noqa: T201


def main(call: Path) -> None:
    data = read_json(call / CALL_FILE)
    if data is None:
        sys.exit(f"no {CALL_FILE} in {call}")
    place = LocalPlace(call, data)
    try:
        outcome = run_job(data["job"], place)
    finally:
        place.close()
    write_json(call / OUTCOME_FILE, outcome)


def wait_for_call() -> None:
    """Be ready before there is anything to do: import what a job needs, then read the call folder from stdin.

    The command that started this process imports and checks meanwhile. When it ends without a call, so does this.
    """
    import aiohttp  # noqa: F401 - 0.15 s that nobody has to wait for

    call = sys.stdin.readline().strip()
    if not call:
        return
    log = os.open(Path(call) / WORKER_LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    main(Path(call))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        wait_for_call()
