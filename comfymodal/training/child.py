"""A trainer as a child: its own process group, its output as bytes, its whole family ended with it. POSIX only."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

from comfymodal.training.trainer import Launch

_READ_BYTES = 1 << 16
_EOF_PATIENCE_S = 5.0
"""After the whole group was killed its pipe ends at once; whoever left the group is not waited for."""


@dataclass(slots=True)
class Child:
    """`code` is None while it lives."""

    process: subprocess.Popen[bytes]
    _chunks: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    _is_at_end: bool = False

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def read(self, timeout_s: float) -> bytes:
        """What it printed since, after at most `timeout_s`; empty when that is nothing."""
        if self._is_at_end:
            time.sleep(timeout_s)
            return b""
        data = []
        with contextlib.suppress(queue.Empty):
            chunk = self._chunks.get(timeout=timeout_s)
            while chunk is not None:
                data.append(chunk)
                chunk = self._chunks.get_nowait()
            self._is_at_end = True
        return b"".join(data)

    def read_rest(self) -> bytes:
        """All that is left of a dead one's output."""
        data, give_up_at = [], time.monotonic() + _EOF_PATIENCE_S
        while not self._is_at_end and time.monotonic() < give_up_at:
            data.append(self.read(0.05))
        return b"".join(data)

    def kill(self) -> None:
        """End it and all it started; loaders of data outlive the trainer that is killed alone. Nothing when gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(launch: Launch) -> Child:
    """Start the trainer. Raises `OSError` when there is no such program."""
    process = subprocess.Popen(
        list(launch.argv),
        cwd=launch.cwd,
        env=dict(launch.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Bars come on stderr, and only in one stream is it known what came first.
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # A parent started with `&` or nohup ignores SIGINT, and its children would with it. Only then: between fork
        # and exec of a process with threads nothing is quite safe.
        preexec_fn=_heed_interrupts if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else None,  # noqa: PLW1509
    )
    child = Child(process)
    threading.Thread(target=_read, args=(child,), name="trainer output", daemon=True).start()
    return child


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read(child: Child) -> None:
    stream = child.process.stdout
    assert stream is not None
    with stream:
        while chunk := os.read(stream.fileno(), _READ_BYTES):
            child._chunks.put(chunk)
    child._chunks.put(None)
