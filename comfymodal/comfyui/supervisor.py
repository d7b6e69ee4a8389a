"""The small process beside a warm ComfyUI: starts it, notes how it ended, stops it when nobody used it for a while.

`python -m comfymodal.comfyui.supervisor FOLDER`; the folder holds `launch.json`. Started by `warm`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.comfyui.ask import get_json
from comfymodal.comfyui.server import Launch, answers, build_argv, free_port, last_lines, read_from, start
from comfymodal.errors import ServiceError
from comfymodal.files import read_json, write_json
from comfymodal.processes import ProcessIdentity

ENGINE_FILE = "engine.json"
EXIT_FILE = "exit.json"
LAUNCH_FILE = "launch.json"
LOG_FILE = "log.txt"
PREVIOUS_LOG_FILE = "log.previous.txt"
STOP_FILE = "stop"
SUPERVISOR_LOG_FILE = "supervisor.txt"
USED_FILE = "used"

BOOT_ATTEMPTS = 3
WATCH_S = 0.5
STOP_PATIENCE_S = 10.0
_PORT_TAKEN = ("address already in use", "only one usage of each socket address", "errno 98", "errno 48")


@dataclass(slots=True)
class Supervised:
    """ComfyUI as a child of this process, or adopted from a supervisor that died."""

    identity: ProcessIdentity
    child: subprocess.Popen[bytes] | None

    def wait(self, seconds: float) -> bool:
        """Whether it ended within `seconds`."""
        if self.child is None:
            time.sleep(seconds)
            return not self.identity.is_alive()
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def main(folder: Path) -> None:
    launch_data = read_json(folder / LAUNCH_FILE)
    if launch_data is None:
        sys.exit(f"no {LAUNCH_FILE} in {folder}")
    launch = Launch.from_dict(launch_data)
    engine = _adopt(folder) or _boot(launch, folder)
    if engine is None:
        sys.exit(1)
    is_ours = True
    try:
        is_ours = _watch(engine, launch, folder)
    finally:
        if is_ours:
            _end(engine, folder)


def _end(engine: Supervised, folder: Path) -> None:
    engine.identity.terminate(patience_s=STOP_PATIENCE_S)
    (folder / ENGINE_FILE).unlink(missing_ok=True)
    # Every output was copied when its prompt ended; a stopped engine remembers none of them.
    for leftover in ("output", "temp", "input"):
        shutil.rmtree(folder / leftover, ignore_errors=True)


def _adopt(folder: Path) -> Supervised | None:
    note = read_json(folder / ENGINE_FILE) or {}
    identity = ProcessIdentity.from_dict(note.get("process"))
    if identity is None or not note.get("is_ready") or not identity.is_alive():
        return None
    write_json(folder / ENGINE_FILE, {**note, "supervisor": _own_identity()})
    return Supervised(identity, None)


def _boot(launch: Launch, folder: Path) -> Supervised | None:
    for leftover in (EXIT_FILE, STOP_FILE):
        (folder / leftover).unlink(missing_ok=True)
    log = folder / LOG_FILE
    for _ in range(BOOT_ATTEMPTS):
        if log.exists():
            log.replace(folder / PREVIOUS_LOG_FILE)
        port = free_port()
        child = start(build_argv(launch, folder=folder, port=port), cwd=launch.cwd, log=log)
        if (engine := _come_up(child, launch, folder, port)) is not None:
            return engine
        if not any(sign in read_from(log, 0).lower() for sign in _PORT_TAKEN):
            break
    _note_exit(folder, child)
    return None


def _come_up(child: subprocess.Popen[bytes], launch: Launch, folder: Path, port: int) -> Supervised | None:
    """Wait until it answers. Whatever else happens here, and a vanished folder is enough, it does not run on alone."""
    engine = None
    try:
        identity = ProcessIdentity.of(child.pid)
        if identity is not None:
            _note_engine(folder, launch, identity, port, is_ready=False)
            if _wait_ready(Supervised(identity, child), folder, launch, f"http://127.0.0.1:{port}"):
                _note_engine(folder, launch, identity, port, is_ready=True)
                engine = Supervised(identity, child)
    finally:
        if engine is None:
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            (folder / ENGINE_FILE).unlink(missing_ok=True)
    return engine


def _wait_ready(engine: Supervised, folder: Path, launch: Launch, url: str) -> bool:
    give_up_at = time.monotonic() + launch.boot_timeout_s
    while time.monotonic() < give_up_at and not (folder / STOP_FILE).exists() and (folder / ENGINE_FILE).exists():
        if engine.wait(0.1):
            return False
        if answers(url, timeout_s=5.0):
            return True
    return False


def _watch(engine: Supervised, launch: Launch, folder: Path) -> bool:
    """Return when the engine is to end or has ended: True, or False when another supervisor has it now."""
    used = folder / USED_FILE
    seen, idle_since = _modified(used), time.monotonic()
    url = str((read_json(folder / ENGINE_FILE) or {}).get("url"))
    _keep_nodes(launch, folder)
    while not engine.wait(WATCH_S):
        # Somebody may also have removed the whole state folder: then nobody can find this engine any more.
        note = read_json(folder / ENGINE_FILE)
        if note is None or (folder / STOP_FILE).exists():
            return True
        if (note.get("supervisor") or {}).get("pid") != os.getpid():
            return False
        # A change of the file's time, not the time itself: clocks jump.
        if (modified := _modified(used)) != seen:
            seen, idle_since = modified, time.monotonic()
        if launch.idle_stop_s is not None and time.monotonic() - idle_since > launch.idle_stop_s:
            if not _is_busy(url):
                return True
            # Noted in the file: `engine status` reads the idle time from it.
            used.touch()
    _note_exit(folder, engine.child)
    return True


def _keep_nodes(launch: Launch, folder: Path) -> None:
    # Every command imports this module; only this process needs that one.
    from comfymodal.comfyui.catalog import keep_when_idle

    note = read_json(folder / ENGINE_FILE) or {}
    asked = {"started_at": float(note.get("started_at") or 0)}
    threading.Thread(
        target=keep_when_idle, args=(str(note.get("url")), launch, folder), kwargs=asked, name="nodes", daemon=True
    ).start()


def _is_busy(url: str) -> bool:
    try:
        return bool(get_json(url, "/prompt").get("exec_info", {}).get("queue_remaining"))
    except ServiceError:
        return False


def _note_engine(folder: Path, launch: Launch, identity: ProcessIdentity, port: int, *, is_ready: bool) -> None:
    write_json(
        folder / ENGINE_FILE,
        {
            "name": launch.name,
            "url": f"http://127.0.0.1:{port}",
            "process": identity.to_dict(),
            "supervisor": _own_identity(),
            "is_ready": is_ready,
            "started_at": time.time(),
        },
    )


def _note_exit(folder: Path, child: subprocess.Popen[bytes] | None) -> None:
    code = child.poll() if child else None
    if not folder.is_dir():
        return
    write_json(folder / EXIT_FILE, {"code": code, "at": time.time(), "log": last_lines(folder / LOG_FILE)})


def _own_identity() -> dict[str, Any] | None:
    identity = ProcessIdentity.of(os.getpid())
    return identity.to_dict() if identity else None


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
