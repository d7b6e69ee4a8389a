"""The ComfyUIs that we started and that still run: what each does, holds and waits for. Changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from comfymodal.comfyui.ask import get_json
from comfymodal.comfyui.supervisor import ENGINE_FILE, LAUNCH_FILE, LOG_FILE, USED_FILE
from comfymodal.errors import ServiceError
from comfymodal.files import read_json
from comfymodal.processes import ProcessIdentity

ASK_TIMEOUT_S = 3.0

Activity = Literal["starting", "idle", "busy", "silent"]
"""`silent` does not answer: it hangs, or Python is held up by a model that loads."""


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """A living ComfyUI of ours. `idle_stop_s` None: it never stops by itself."""

    name: str
    folder: Path
    url: str
    process: ProcessIdentity
    supervisor: ProcessIdentity | None
    is_ready: bool
    ready_at: float
    idle_stop_s: float | None

    @property
    def log(self) -> Path:
        return self.folder / LOG_FILE

    def idle_left_s(self, now: float) -> float | None:
        """Seconds until it stops if nobody uses it; None when it never does. `now` is the clock's time."""
        if self.idle_stop_s is None:
            return None
        try:
            used_at = (self.folder / USED_FILE).stat().st_mtime
        except OSError:
            used_at = 0.0
        idle_s = max(0.0, now - max(used_at, self.ready_at))
        return max(0.0, self.idle_stop_s - idle_s)


@dataclass(frozen=True, slots=True)
class Doing:
    """What an engine answered: the prompts it runs and how many wait."""

    activity: Activity
    running: tuple[str, ...] = ()
    pending: int = 0
    device: str | None = None


def list_running(state: Path) -> tuple[RunningEngine, ...]:
    """Every living engine under a state folder, by name; a file of a dead one counts as none."""
    folders = sorted(path.parent for path in (state / "engines").glob(f"*/{ENGINE_FILE}"))
    return tuple(engine for folder in folders if (engine := read_running(folder)) is not None)


def read_running(folder: Path) -> RunningEngine | None:
    """The living engine of this folder, ready or still starting."""
    note = read_json(folder / ENGINE_FILE) or {}
    process = ProcessIdentity.from_dict(note.get("process"))
    if process is None or not process.is_alive():
        return None
    supervisor = ProcessIdentity.from_dict(note.get("supervisor"))
    idle_stop_s = (read_json(folder / LAUNCH_FILE) or {}).get("idle_stop_s")
    return RunningEngine(
        name=str(note.get("name")),
        folder=folder,
        url=str(note.get("url")),
        process=process,
        supervisor=supervisor if supervisor and supervisor.is_alive() else None,
        is_ready=bool(note.get("is_ready")),
        ready_at=float(note.get("started_at") or time.time()),
        idle_stop_s=float(idle_stop_s) if isinstance(idle_stop_s, (int, float)) else None,
    )


def ask(engine: RunningEngine) -> Doing:
    """Ask what it is doing; a few milliseconds, or three seconds when it does not answer."""
    if not engine.is_ready:
        return Doing("starting")
    try:
        stats = get_json(engine.url, "/system_stats", timeout_s=ASK_TIMEOUT_S)
        device = str(((stats.get("devices") or [{}])[0]).get("name"))
        queued = get_json(engine.url, "/prompt", timeout_s=ASK_TIMEOUT_S).get("exec_info") or {}
        if not queued.get("queue_remaining"):
            return Doing("idle", device=device)
        # It holds every waiting graph whole: asked only when there is one.
        queue = get_json(engine.url, "/queue", timeout_s=ASK_TIMEOUT_S)
    except ServiceError:
        return Doing("silent")
    running = tuple(str(item[1]) for item in _items(queue, "queue_running"))
    return Doing("busy", running, len(_items(queue, "queue_pending")), device)


def _items(queue: Any, key: str) -> list[Any]:
    found = queue.get(key)
    return [item for item in found if isinstance(item, list) and len(item) > 1] if isinstance(found, list) else []
