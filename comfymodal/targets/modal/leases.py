"""One writer per volume: an entry per volume in a `modal.Dict` of the environment, kept alive while its holder works.

Used in containers and by workers of this machine, so it imports nothing but `modal` and the standard library.
A holder that is killed stops beating; after `DEAD_AFTER_S` the volume is free. A holder that could not beat for so
long, or finds another's name in its entry, has lost the volume and is told: it must write nothing more.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import modal

from comfymodal.errors import BusyError
from comfymodal.targets.modal.errors import translated

LEASES = "comfymodal-leases"
"""The Dict; its keys are names of volumes, so that projects which share a volume share its lease."""

BEAT_EVERY_S = 10.0
DEAD_AFTER_S = 90.0

LEAVING_S = 30.0
"""How long a container that is being taken away may need to end its work; its successor waits for it so long."""

_POLL_S = 1.0

Entry = dict[str, Any]


class Lease:
    """A volume that is ours to write to. `about` says who we are: `{run_id, project, container_id | host}`."""

    def __init__(self, volume: str, environment: str | None, about: Mapping[str, Any]) -> None:
        self._dict = modal.Dict.from_name(LEASES, environment_name=environment, create_if_missing=True)
        self._volume = volume
        # The token tells two containers of one run apart.
        self._entry: Entry = {**about, "token": uuid.uuid4().hex, "since": time.time(), "beat_at": time.time()}
        self._beaten_at = time.monotonic()
        self.is_lost = False

    def take(self) -> None:
        """Raises `BusyError` while somebody else who is alive has it, and Modal's exceptions."""
        found = self._found()
        if found is not None:
            if self._is_predecessor(found):
                self._wait_for(found)
            elif not self._is_dead(found):
                raise _busy(self._volume, found)
            self._remove(found)
        self._beat_now()
        if not self._dict.put(self._volume, self._entry, skip_if_exists=True) or not self._is_settled():
            raise _busy(self._volume, self._found() or {})

    def beat(self) -> bool:
        """Say that we are alive; False when the volume is ours no more. Raises Modal's exceptions."""
        if not self._is_ours(self._found()):
            self.is_lost = True
        else:
            self._beat_now()
            self._dict.put(self._volume, self._entry)
        return not self.is_lost

    def is_overdue(self) -> bool:
        """Whether others may take us for dead by now."""
        return time.monotonic() - self._beaten_at > DEAD_AFTER_S - BEAT_EVERY_S

    def announce_leave(self) -> None:
        """Our container is being taken away: who goes on with the run waits until this one has ended its work."""
        self._entry["leaving_at"] = time.time()
        self.beat()

    def give_back(self) -> None:
        """Raises Modal's exceptions; what is not given back is free after `DEAD_AFTER_S`."""
        if self._is_ours(self._found()):
            self._dict.pop(self._volume, None)

    def _is_settled(self) -> bool:
        """Whether what we have just put there stays ours."""
        if self._is_ours(self._found()):
            return True
        # Another one who wanted the dead one's place took ours out, sees that, and puts it back.
        time.sleep(_POLL_S)
        return self._is_ours(self._found())

    def _found(self) -> Entry | None:
        found = self._dict.get(self._volume)
        return found if isinstance(found, dict) else None

    def _is_ours(self, found: Mapping[str, Any] | None) -> bool:
        return found is not None and found.get("token") == self._entry["token"]

    def _is_predecessor(self, found: Mapping[str, Any]) -> bool:
        """Modal gave us the run's input because it lost the container that had it."""
        return bool(found.get("run_id")) and found.get("run_id") == self._entry.get("run_id")

    def _wait_for(self, found: Mapping[str, Any]) -> None:
        leaving_at = float(found.get("leaving_at") or 0)
        while time.time() - leaving_at < LEAVING_S and self._found() is not None:
            time.sleep(_POLL_S)

    def _is_dead(self, found: Mapping[str, Any]) -> bool:
        beat_at = float(found.get("beat_at") or 0)
        if abs(time.time() - beat_at) < DEAD_AFTER_S:
            return False
        # Its clock may differ from ours: only one whose entry stays as it is, is dead.
        give_up_at = time.monotonic() + 1.5 * BEAT_EVERY_S
        while time.monotonic() < give_up_at:
            time.sleep(_POLL_S)
            if self._found() != found:
                return self._found() is None
        return True

    def _remove(self, found: Mapping[str, Any]) -> None:
        now = self._found()
        if now is None or now.get("token") != found.get("token"):
            return
        removed = self._dict.pop(self._volume, None)
        if isinstance(removed, dict) and removed.get("token") != found.get("token"):
            # Another one took the dead one's place just before us.
            self._dict.put(self._volume, removed, skip_if_exists=True)
            raise _busy(self._volume, removed)

    def _beat_now(self) -> None:
        self._entry["beat_at"], self._beaten_at = time.time(), time.monotonic()


def _ignore() -> None:
    return None


@contextmanager
def hold(
    volume: str, environment: str | None, about: Mapping[str, Any], on_lost: Callable[[], None] = _ignore
) -> Iterator[Lease]:
    """Be the volume's only writer while the block runs; a thread says so every `BEAT_EVERY_S`.

    `on_lost` is called, from that thread, once the volume may be somebody else's. Raises `BusyError`, `ServiceError`.
    """
    with translated(f"cannot ask who writes to the volume {volume}"):
        lease = Lease(volume, environment, about)
        lease.take()
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(lease, done, on_lost), name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        done.set()
        thread.join()
        _give_back(lease, volume)


def _beat(lease: Lease, done: threading.Event, on_lost: Callable[[], None]) -> None:
    while not done.wait(BEAT_EVERY_S):
        try:
            lease.beat()
        except modal.Error as exc:
            print(f"comfymodal: cannot keep the lease: {exc}", flush=True)  # noqa: T201
            lease.is_lost = lease.is_lost or lease.is_overdue()
        if lease.is_lost:
            on_lost()
            return


def _give_back(lease: Lease, volume: str) -> None:
    try:
        lease.give_back()
    except modal.Error as exc:
        words = f"cannot give back the lease of {volume}, it ends by itself in {DEAD_AFTER_S:.0f} s"
        print(f"comfymodal: {words}: {exc}", flush=True)  # noqa: T201


def _busy(volume: str, found: Mapping[str, Any]) -> BusyError:
    who = f"run {found.get('run_id')}" if found.get("run_id") else "another command"
    project = f" of the project {found['project']}" if found.get("project") else ""
    since = time.strftime("%H:%M:%S UTC", time.gmtime(float(found["since"]))) if found.get("since") else "just now"
    return BusyError(
        f"the volume {volume} is being written to by {who}{project} since {since}",
        hint=f"run it again when that one has ended; one that was killed counts as ended after {DEAD_AFTER_S:.0f} s",
        volume=volume,
        run_id=found.get("run_id"),
    )
