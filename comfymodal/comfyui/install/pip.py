"""Run Python and pip in the engine's private environment: a clean environment, progress, one error per cause."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.errors import ComfymodalError, NotReadyError, ServiceError

TICK_S = 2.0
END_PATIENCE_S = 10.0
FULL_BYTES = 1_000_000

# What says where pip finds things and how it gets there. Every other PIP_* setting says how to install
# (target, user, constraint, no-deps ...) and would break a private environment.
_KEPT_PIP_SETTINGS = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST", "PIP_CERT"),
    *("PIP_CLIENT_CERT", "PIP_PROXY", "PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES", "PIP_RESUME_RETRIES"),
    *("PIP_CACHE_DIR", "PIP_NO_CACHE_DIR", "PIP_CONFIG_FILE", "PIP_KEYRING_PROVIDER", "PIP_USE_FEATURE"),
    *("PIP_USE_DEPRECATED",),
)
_GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")

_NETWORK = re.compile(
    r"Retrying \(|Max retries exceeded|Connection broken|ConnectionError|ReadTimeout|Read timed out|ProxyError|SSLError"
    r"|HTTP error \d|HTTPError|incomplete-download|NameResolutionError|Could not fetch URL|IncompleteRead",
)
_FULL = re.compile(r"No space left on device|\[Errno 28\]|\[WinError 112\]|Disk quota exceeded")

# The child ends itself, and what it started, when our end of its standard input closes: also when we were killed
# and could not end it. Two pips in one folder, an orphan and its successor, would ruin it.
_GUARD = """
import os, runpy, signal, subprocess, sys, threading
def end():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL) if hasattr(os, "killpg") else os._exit(1)
threading.Thread(target=end, daemon=True).start()
kind, name = sys.argv[1:3]
sys.argv[:] = sys.argv[2:]
if kind == "-m":
    del sys.path[0]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
elif kind == "--":
    sys.exit(subprocess.call(sys.argv))
else:
    sys.path[0] = os.path.dirname(name)
    runpy.run_path(name, run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a child ended, the last lines it wrote, and whether it filled the disk on the way."""

    code: int
    lines: tuple[str, ...]
    filled_disk: bool = False


def clean_environment(environ: Mapping[str, str], *, scratch: Path) -> dict[str, str]:
    """The operator's environment without what would pull a private Python elsewhere; temporary files in `scratch`.

    Proxies, certificates and package indexes stay.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("PIP_", "PYTHON")) and name not in ("VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    }
    kept |= {name: value for name, value in environ.items() if name in _KEPT_PIP_SETTINGS}
    # Set while git runs a hook: every git below would work on that repository.
    kept = {name: value for name, value in kept.items() if name not in _GIT_PLACES}
    # pip unpacks in the temporary folder, and /tmp is often memory: a CUDA build of torch does not fit there.
    kept |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    return kept | {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "GIT_TERMINAL_PROMPT": "0"}


def run_python(
    command: Sequence[str | Path],
    *,
    scratch: Path,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
) -> Finished:
    """Run `[python, "-m", module, ...]` or `[python, script, ...]` to its end; `on_tick` comes every two seconds.

    `[python, "--", program, ...]` runs any program under the same care.
    The child is ended when this raises, KeyboardInterrupt included. Raises `NotReadyError` when it cannot start.
    """
    child = _start(command, scratch)
    filled_disk = False

    def watch(line: str) -> None:
        nonlocal filled_disk
        # pip calls a full disk an interrupted connection, and has tidied up when it ends.
        filled_disk = filled_disk or shutil.disk_usage(scratch).free < FULL_BYTES
        on_line(line)

    try:
        lines = _follow(child, watch, on_tick)
        return Finished(child.wait(), lines, filled_disk)
    finally:
        _end(child)


def _start(command: Sequence[str | Path], scratch: Path) -> subprocess.Popen[str]:
    python, *rest = (str(part) for part in command)
    kind = rest.pop(0) if rest[0] in ("-m", "--") else "script"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        return subprocess.Popen(
            [python, "-c", _GUARD, kind, *rest],
            env=clean_environment(os.environ, scratch=scratch),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            # A group of its own, on every platform: Ctrl-C reaches us only, and we end the child.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise
        raise NotReadyError(f"cannot start {python}: {exc.strerror}") from exc


def _follow(
    child: subprocess.Popen[str], on_line: Callable[[str], None], on_tick: Callable[[], None]
) -> tuple[str, ...]:
    written: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(child, written), daemon=True).start()
    last: deque[str] = deque(maxlen=60)
    next_tick = time.monotonic() + TICK_S
    while True:
        try:
            line = written.get(timeout=max(0.0, next_tick - time.monotonic()))
        except queue.Empty:
            on_tick()
            next_tick = time.monotonic() + TICK_S
            continue
        if line is None:
            return tuple(last)
        if not line.startswith("Progress "):
            last.append(line)
        on_line(line)


def _read(child: subprocess.Popen[str], written: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(OSError), child.stdout or contextlib.nullcontext(()) as lines:
        for line in lines:
            written.put(line.rstrip())
    written.put(None)


def _end(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if child.stdin is not None:
            child.stdin.close()
    try:
        child.wait(timeout=END_PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@dataclass(slots=True)
class Meter:
    """Turns pip's lines into install events: real bytes while it downloads, seconds while it is silent."""

    step: str
    on_event: Callable[[dict[str, Any]], None]
    message: str
    expected_bytes: int | None = None
    _finished_bytes: int = 0
    _file: tuple[int, int] = (0, 0)
    _since: float = field(default_factory=time.monotonic)

    def announce(self, message: str) -> None:
        self.message, self._since = message, time.monotonic()
        self._emit(message)

    def line(self, line: str) -> None:
        if progress := re.match(r"Progress (\d+) of (\d+)$", line):
            self._progress(int(progress[1]), int(progress[2]))
        elif (download := re.match(r"\s*Downloading (\S+)", line)) and not download[1].endswith(".metadata"):
            self.announce(f"downloading {download[1].rsplit('/', 1)[-1]}")
        elif installing := re.match(r"Installing collected packages: (.*)", line):
            # Caches and local folders made the expectation too high: what came is all there is to come.
            self.expected_bytes = None
            self.announce(f"installing {_packages(len(installing[1].split(', ')))}")

    def tick(self) -> None:
        self._emit(f"{self.message} ({time.monotonic() - self._since:.0f} s)")

    def _progress(self, done: int, total: int) -> None:
        before, size = self._file
        if total != size or done < before:
            self._finished_bytes += before
        self._file = (done, total)
        self._emit(self.message)

    def _emit(self, message: str) -> None:
        done = self._finished_bytes + self._file[0]
        known = self._finished_bytes + self._file[1]
        # What is still to come is only known file by file: the expectation is the floor.
        total = max(known, self.expected_bytes or 0) if known or self.expected_bytes else None
        self.on_event(
            {
                "type": "install",
                "step": self.step,
                "message": message,
                "done_bytes": done if total else None,
                "total_bytes": total,
            }
        )


def run_pip(python: Path, arguments: Iterable[str | Path], *, scratch: Path, meter: Meter) -> None:
    """Run the environment's own pip; the operator's configuration (indexes, proxies, find-links) counts.

    Raises OSError (ENOSPC) for a full disk, else what `pip_error` makes of its last lines.
    """
    verb, *rest = (str(argument) for argument in arguments)
    # Wheels only: building from source would need compilers, and fetch build tools nobody pinned.
    common = ["--no-input", "--disable-pip-version-check", "--only-binary", ":all:", "--progress-bar", "raw"]
    finished = run_python(
        [python, "-m", "pip", verb, *common, *rest], scratch=scratch, on_line=meter.line, on_tick=meter.tick
    )
    if finished.code != 0:
        raise disk_full(finished) or pip_error(finished.lines, doing=meter.message)


def disk_full(finished: Finished) -> OSError | None:
    """The error that a failed child met and could only print."""
    is_full = finished.filled_disk or _FULL.search("\n".join(finished.lines))
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if is_full else None


def pip_error(lines: Sequence[str], *, doing: str) -> ComfymodalError:
    """The one error that pip's last lines stand for."""
    text = "\n".join(lines)
    log = [line for line in lines if line.strip() and "is ignored: it is neither" not in line][-12:]
    if "DO NOT MATCH THE HASHES" in text:
        return ServiceError(
            "a downloaded package is not the one this version was tested with (its hash differs)",
            hint="the package index or a proxy serves something else; try again, or check pip's index-url",
            log=log,
        )
    # Without a network pip finds no distribution either; its retries tell the two apart.
    missing = re.search(r"No matching distribution found for (\S+)", text)
    if missing and not _NETWORK.search(text):
        return NotReadyError(
            f"{missing[1]} has no build for this Python and platform on your package index",
            hint="use another Python (3.12 is the safest), or name your own ComfyUI with comfyui.path",
            log=log,
        )
    # pip's newer errors begin with a cross and end with notes and hints.
    cross = "\N{MULTIPLICATION SIGN}"
    reasons = [line for line in log if line.startswith(("ERROR:", cross))] or log or ["no output"]
    reason = reasons[-1].removeprefix("ERROR:").removeprefix(cross).strip()
    if missing:
        reason = "the package index cannot be reached"
    return ServiceError(
        f"{doing} failed: {reason}",
        hint="check the network and `pip config list`, then run the same command: it goes on from here",
        log=log,
    )


def _packages(count: int) -> str:
    return f"{count} package" if count == 1 else f"{count} packages"
