"""A ComfyUI of our own that stays warm between commands: found by its file, started when needed, never twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.comfyui.boot_failure import hint_for, reason_in
from comfymodal.comfyui.server import Launch, answers, last_lines, read_end, read_from, tail
from comfymodal.comfyui.supervisor import (
    ENGINE_FILE,
    EXIT_FILE,
    LAUNCH_FILE,
    LOG_FILE,
    STOP_FILE,
    STOP_PATIENCE_S,
    SUPERVISOR_LOG_FILE,
    USED_FILE,
)
from comfymodal.comfyui.words import exit_words
from comfymodal.errors import EngineDiedError, NotReadyError
from comfymodal.files import read_json, write_json
from comfymodal.processes import ProcessIdentity, spawn_module

OnEvent = Callable[[Mapping[str, Any]], None]

HEALTH_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class WarmEngine:
    """A running ComfyUI that we started; fulfils `jobs.contract.Engine`."""

    folder: Path
    url: str
    process: ProcessIdentity

    def death(self) -> str | None:
        if self.process.is_alive():
            return None
        exit_note = self._wait_for_exit_note()
        code = exit_note.get("code")
        ended = f"with {exit_words(code)}" if isinstance(code, int) else "without a word"
        log = str(exit_note.get("log") or last_lines(self.folder / LOG_FILE))
        return f"ComfyUI (pid {self.process.pid}) ended {ended}; its log ends with:\n{log}"

    def folder_of(self, kind: str) -> Path | None:
        return self.folder / kind if kind in ("output", "temp") else None

    def log_position(self) -> int:
        try:
            return (self.folder / LOG_FILE).stat().st_size
        except OSError:
            return 0

    def log_since(self, position: int) -> str:
        return read_from(self.folder / LOG_FILE, position)

    def touch(self) -> None:
        """Begin the idle time anew."""
        (self.folder / USED_FILE).touch()

    def _wait_for_exit_note(self) -> dict[str, Any]:
        # The supervisor writes it within milliseconds of the end, unless it was killed too.
        for _ in range(20):
            if (note := read_json(self.folder / EXIT_FILE)) is not None:
                return note
            time.sleep(0.05)
        return {}


def engine_folder(state: Path, launch: Launch) -> Path:
    """Where the engine of this launch keeps its files; another command line is another engine."""
    identity = [launch.argv, launch.arguments, launch.models]
    return state / "engines" / f"{launch.name}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]}"


def find_warm(folder: Path) -> WarmEngine | None:
    """The living engine of this folder, ready or still booting no matter; a stale file counts as none."""
    note = read_json(folder / ENGINE_FILE) or {}
    identity = ProcessIdentity.from_dict(note.get("process"))
    if identity is None or not identity.is_alive() or not note.get("is_ready"):
        return None
    return WarmEngine(folder, str(note["url"]), identity)


def ensure_warm(launch: Launch, *, state: Path, on_event: OnEvent) -> WarmEngine:
    """Return the engine of this launch, started if it was not running.

    Raises `EngineDiedError` when it does not come up (with the end of its log), or hangs.
    """
    folder = engine_folder(state, launch)
    if (engine := find_warm(folder)) is None:
        engine = _start_once(launch, folder, on_event)
    elif not answers(engine.url, timeout_s=HEALTH_TIMEOUT_S):
        raise EngineDiedError(
            engine.death() or f"ComfyUI (pid {engine.process.pid}) at {engine.url} runs but does not answer",
            hint="run the command again; if it stays so, end that process",
        )
    _keep_supervised(folder)
    engine.touch()
    return engine


def stop_warm(folder: Path) -> None:
    """Stop the engine of this folder and its supervisor; nothing happens when there is none."""
    note = read_json(folder / ENGINE_FILE) or {}
    identities = [ProcessIdentity.from_dict(note.get(key)) for key in ("supervisor", "process")]
    supervisor = identities[0]
    if supervisor and supervisor.is_alive():
        (folder / STOP_FILE).touch()
        give_up_at = time.monotonic() + 2 * STOP_PATIENCE_S
        while supervisor.is_alive() and time.monotonic() < give_up_at:
            time.sleep(0.05)
    for identity in identities:
        if identity:
            identity.terminate(patience_s=STOP_PATIENCE_S)
    (folder / ENGINE_FILE).unlink(missing_ok=True)


def _start_once(launch: Launch, folder: Path, on_event: OnEvent) -> WarmEngine:
    import filelock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "start.lock", timeout=launch.boot_timeout_s + STOP_PATIENCE_S)
        with lock:
            # Another command may have started it while this one waited for the lock.
            if (engine := find_warm(folder)) is not None:
                return engine
            return _start(launch, folder, on_event)
    except filelock.Timeout as exc:
        raise EngineDiedError("another command has been starting ComfyUI for too long", hint=str(folder)) from exc
    except OSError as exc:
        raise NotReadyError(f"cannot keep a ComfyUI under {folder}: {exc.strerror or exc}") from exc


def _start(launch: Launch, folder: Path, on_event: OnEvent) -> WarmEngine:
    began = time.monotonic()
    supervisor, is_ours = _living_supervisor(folder), False
    on_event({"type": "engine_starting", "name": launch.name, "log": str(folder / LOG_FILE)})
    while (engine := find_warm(folder)) is None:
        seconds = time.monotonic() - began
        if seconds > launch.boot_timeout_s + STOP_PATIENCE_S:
            raise _boot_failure(folder, launch, seconds=seconds)
        if supervisor is None or not supervisor.is_alive():
            # One that was there before may have been on its way out, because its engine had just died.
            if is_ours:
                raise _boot_failure(folder, launch, seconds=seconds)
            supervisor, is_ours = _spawn_supervisor(launch, folder), True
        time.sleep(0.05)
    on_event({"type": "engine_ready", "name": launch.name, "url": engine.url, "seconds": time.monotonic() - began})
    return engine


def _living_supervisor(folder: Path) -> ProcessIdentity | None:
    # The command that began a boot may have been killed; its supervisor boots on.
    identity = ProcessIdentity.from_dict((read_json(folder / ENGINE_FILE) or {}).get("supervisor"))
    return identity if identity and identity.is_alive() else None


def _spawn_supervisor(launch: Launch, folder: Path) -> ProcessIdentity:
    # A supervisor killed during a boot leaves a ComfyUI nobody watches: end it before starting another.
    orphan = ProcessIdentity.from_dict((read_json(folder / ENGINE_FILE) or {}).get("process"))
    if orphan:
        orphan.terminate(patience_s=STOP_PATIENCE_S)
    for name in (EXIT_FILE, STOP_FILE, ENGINE_FILE):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / LAUNCH_FILE, launch.to_dict())
    process = spawn_module("comfymodal.comfyui.supervisor", [str(folder)], log=folder / SUPERVISOR_LOG_FILE)
    return ProcessIdentity.of(process.pid) or ProcessIdentity(process.pid, 0.0)


def _boot_failure(folder: Path, launch: Launch, *, seconds: float) -> EngineDiedError:
    code = (read_json(folder / EXIT_FILE) or {}).get("code")
    text = read_end(folder / LOG_FILE) or read_end(folder / SUPERVISOR_LOG_FILE)
    # A signal is a reason by itself, and what the log holds is another story.
    reason = reason_in(text) if not isinstance(code, int) or code > 0 else None
    how = f"ended with {exit_words(code)} while starting" if isinstance(code, int) else "ended while starting"
    if (folder / STOP_FILE).exists():
        how, reason = "was stopped while starting", None
    elif seconds > launch.boot_timeout_s:
        how = f"did not answer within {launch.boot_timeout_s:.0f} s (comfyui.boot_timeout)"
    told = f"its log ends with:\n{tail(text)}" if text else "it wrote no log"
    known = hint_for(reason, python=launch.argv[0])
    return EngineDiedError(
        f"ComfyUI {how}{f': {reason}' if reason else ''}; {told}",
        hint=f"{f'{known}; ' if known else ''}the whole log: comfymodal engine logs",
        reason=reason,
        log=str(folder / LOG_FILE),
    )


def _keep_supervised(folder: Path) -> None:
    note = read_json(folder / ENGINE_FILE) or {}
    supervisor = ProcessIdentity.from_dict(note.get("supervisor"))
    if supervisor is None or not supervisor.is_alive():
        spawn_module("comfymodal.comfyui.supervisor", [str(folder)], log=folder / SUPERVISOR_LOG_FILE)
