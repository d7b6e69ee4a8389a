"""One run of rclone as a child process: its log read line by line, stopped on request, and ended with us.

When we are killed, rclone ends too: its log goes to a pipe whose other end dies with us, and it writes there each
second (`--stats 1s`), which the system answers with SIGPIPE. Commands that only read end when they are done.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from comfymodal.errors import NotReadyError, TransferError
from comfymodal.storage.rclone.log import LogLine, parse_line
from comfymodal.storage.rclone.session import Session

POLL_S = 0.25
STOP_PATIENCE_S = 15.0
"""On SIGINT rclone removes what is half-written and gives up unfinished uploads; that takes a moment."""
KEPT_LINES = 500

Control = Callable[[], str | None]
"""Says `stop` (or anything but None) when the operator wants an end."""


def _no_control() -> str | None:
    return None


def _ignore(_: LogLine) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears the lines of the log, and who is asked twice a second whether to stop."""

    on_line: Callable[[LogLine], None] = _ignore
    control: Control = _no_control


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    """Negative for a signal."""
    output: bytes
    lines: tuple[LogLine, ...]
    """The end of the log without its statistics."""
    is_stopped: bool
    """We asked it to end."""


@dataclass(slots=True)
class _Pipes:
    process: subprocess.Popen[bytes]
    lines: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    output: list[bytes] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)


def run(session: Session, arguments: Sequence[str], *, stdin: bytes = b"", listener: Listener | None = None) -> Ended:
    """Run rclone to its end. No key is among `arguments`, and none is in what is returned.

    Raises `NotReadyError` when it cannot be started, `TransferError` when there is no room for `stdin` in the
    temporary folder. Whatever a callback raises ends rclone first.
    """
    listener = listener or Listener()
    pipes = _start(session, arguments, stdin)
    try:
        return _follow(session, pipes, listener)
    finally:
        if pipes.process.poll() is None:
            _stop(pipes.process)
        for thread in pipes.threads:
            thread.join(STOP_PATIENCE_S)
        for stream in (pipes.process.stdout, pipes.process.stderr):
            if stream:
                stream.close()


def _start(session: Session, arguments: Sequence[str], stdin: bytes) -> _Pipes:
    try:
        # A file without a name and not a pipe: if we are killed while rclone reads it, a list of paths must not end
        # in the middle of one.
        with tempfile.TemporaryFile() as source:
            source.write(stdin)
            source.seek(0)
            process = _spawn([str(session.rclone.path), *arguments], session.environ, source)
    except OSError as exc:
        raise TransferError(f"cannot write to {tempfile.gettempdir()}: {exc.strerror or exc}") from exc
    assert process.stdout
    assert process.stderr
    pipes = _Pipes(process)
    pipes.threads = [
        threading.Thread(target=_read_all, args=(process.stdout, pipes.output), name="rclone", daemon=True),
        threading.Thread(target=_read_lines, args=(process.stderr, pipes.lines), name="rclone", daemon=True),
    ]
    for thread in pipes.threads:
        thread.start()
    return pipes


def _spawn(argv: Sequence[str], environ: Mapping[str, str], source: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            env=dict(environ),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C in the terminal is ours to handle: rclone is told once, by us.
            start_new_session=sys.platform != "win32",
        )
    except OSError as exc:
        raise NotReadyError(f"cannot start {argv[0]}: {exc.strerror or exc}") from exc


def _follow(session: Session, pipes: _Pipes, listener: Listener) -> Ended:
    kept: deque[LogLine] = deque(maxlen=KEPT_LINES)
    is_stopped, asked_at = False, 0.0
    while True:
        with contextlib.suppress(queue.Empty):
            raw = pipes.lines.get(timeout=POLL_S)
            if raw is None:
                break
            line = parse_line(session.hide(raw.decode("utf-8", "replace")))
            if line.stats is None and line.message:
                kept.append(line)
            listener.on_line(line)
        if not is_stopped and time.monotonic() - asked_at >= POLL_S:
            asked_at = time.monotonic()
            if listener.control() is not None:
                is_stopped = True
                threading.Thread(target=_stop, args=(pipes.process,), name="rclone-stop", daemon=True).start()
    code = pipes.process.wait()
    pipes.threads[0].join()
    return Ended(code, b"".join(pipes.output), tuple(kept), is_stopped)


def _stop(process: subprocess.Popen[bytes]) -> None:
    _interrupt(process)
    try:
        process.wait(STOP_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.terminate()
        else:
            process.send_signal(signal.SIGINT)


def _read_all(stream: IO[bytes], into: list[bytes]) -> None:
    while chunk := stream.read(1 << 16):
        into.append(chunk)


def _read_lines(stream: IO[bytes], into: queue.SimpleQueue[bytes | None]) -> None:
    try:
        for line in stream:
            into.put(line)
    finally:
        into.put(None)
