"""A ComfyUI that is a child of this process, as in a container: started, waited for, ended with it.

Standard library only: containers have nothing else. On the operator's machine `warm` keeps one between commands.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from comfymodal.comfyui import boot
from comfymodal.comfyui.boot_failure import hint_for, reason_in
from comfymodal.comfyui.logs import follow_lines
from comfymodal.comfyui.server import Launch, answers, build_argv, free_port, last_lines, read_from, start, tail
from comfymodal.comfyui.words import exit_words
from comfymodal.errors import EngineDiedError
from comfymodal.files import write_text

GO_FILE = "go.json"
LOG_FILE = "log.txt"
HEALTH_TIMEOUT_S = 60.0
STOP_PATIENCE_S = 10.0
SHOWN_LINES = 30


@dataclass(frozen=True, slots=True)
class ChildEngine:
    """Fulfils `jobs.contract.Engine`."""

    folder: Path
    url: str
    process: subprocess.Popen[bytes]

    def death(self) -> str | None:
        code = self.process.poll()
        if code is None:
            return None
        return f"ComfyUI ended with {exit_words(code)}; its log ends with:\n{last_lines(self.log)}"

    def folder_of(self, kind: str) -> Path | None:
        return self.folder / kind if kind in ("output", "temp") else None

    def log_position(self) -> int:
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    def log_since(self, position: int) -> str:
        return read_from(self.log, position)

    @property
    def log(self) -> Path:
        return self.folder / LOG_FILE

    def require_answer(self) -> None:
        """Raises `EngineDiedError` when it is dead or hangs."""
        if (death := self.death()) is not None:
            raise EngineDiedError(death)
        if not answers(self.url, timeout_s=HEALTH_TIMEOUT_S):
            raise EngineDiedError(f"ComfyUI runs but does not answer; its log ends with:\n{last_lines(self.log)}")

    def stop(self) -> None:
        """End it; nothing happens when it has ended."""
        self.process.terminate()
        try:
            self.process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, slots=True)
class HeldChild:
    """ComfyUI's Python with everything slow imported, waiting for its command line; see `boot`."""

    folder: Path
    process: subprocess.Popen[bytes]


def hold_child(launch: Launch, folder: Path) -> HeldChild:
    """Start one and return when it waits, or has ended. What it is to run is decided by `start_child`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG_FILE
    argv = [launch.argv[0], boot.__file__, "--hold", str(folder / GO_FILE)]
    process = start(argv, cwd=launch.cwd, log=log)
    give_up_at = time.monotonic() + launch.boot_timeout_s
    while process.poll() is None and "held until" not in read_from(log, 0) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return HeldChild(folder, process)


def start_child(launch: Launch, folder: Path, held: HeldChild | None = None) -> ChildEngine:
    """Start ComfyUI, or let a held one go, and wait until it answers, for as long as it lives.

    Its lines go to this process's output too. Raises `EngineDiedError` with the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = folder / LOG_FILE
    log.touch()
    argv = build_argv(launch, folder=folder, port=port)
    if held is None:
        process = start(argv, cwd=launch.cwd, log=log)
    else:
        process = held.process
        # Without the interpreter, which runs already.
        write_text(folder / GO_FILE, json.dumps(argv[1:]))
    engine = ChildEngine(folder, f"http://127.0.0.1:{port}", process)
    threading.Thread(target=_repeat, args=(engine,), name="log", daemon=True).start()
    try:
        _wait_ready(engine, launch)
    except BaseException:
        engine.stop()
        raise
    return engine


def _wait_ready(engine: ChildEngine, launch: Launch) -> None:
    give_up_at = time.monotonic() + launch.boot_timeout_s
    while time.monotonic() < give_up_at:
        if (code := engine.process.poll()) is not None:
            text = read_from(engine.log, 0)
            reason = reason_in(text) if code > 0 else None
            raise EngineDiedError(
                f"ComfyUI ended with {exit_words(code)} while starting{f': {reason}' if reason else ''}; "
                f"its log ends with:\n{tail(text, count=SHOWN_LINES)}",
                hint=hint_for(reason, python=launch.argv[0]),
                reason=reason,
            )
        if answers(engine.url, timeout_s=5.0):
            return
        time.sleep(0.05)
    raise EngineDiedError(
        f"ComfyUI did not answer within {launch.boot_timeout_s:.0f} s (comfyui.boot_timeout); its log ends with:\n"
        f"{last_lines(engine.log, count=SHOWN_LINES)}"
    )


def _repeat(engine: ChildEngine) -> None:
    # From the file, not from a pipe: a reader that falls behind must never hold ComfyUI up.
    for line in follow_lines(engine.log, is_alive=lambda: engine.process.poll() is None, from_start=True):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
