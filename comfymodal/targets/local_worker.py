"""Starting the local target's worker process, before or when there is a call for it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from comfymodal.processes import ProcessIdentity, spawn_module
from comfymodal.targets.local_call import WORKER_LOG_FILE

WORKER_MODULE = "comfymodal.targets.local_place"


class EarlyWorker:
    """A worker that starts while the command still reads and checks. Ends by itself when it gets no call."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = spawn_module(WORKER_MODULE, [], log=None, takes_input=True)

    def hand_over(self, call: Path) -> ProcessIdentity | None:
        """Give it the call; None when it is gone or has a call already, and a new one is needed."""
        process, self._process = self._process, None
        if process is None or process.stdin is None or (identity := ProcessIdentity.of(process.pid)) is None:
            return None
        with contextlib.suppress(OSError), process.stdin as line:
            line.write(f"{call}\n".encode())
            return identity
        return None


def start_worker(call: Path, early: EarlyWorker | None, environ: Mapping[str, str] | None = None) -> ProcessIdentity:
    """A process that runs the call in this folder, with `environ` as its own if given. Raises `OSError`."""
    identity = early.hand_over(call) if early and environ is None else None
    if identity is None:
        process = spawn_module(WORKER_MODULE, [str(call)], log=call / WORKER_LOG_FILE, environ=environ)
        identity = ProcessIdentity.of(process.pid) or ProcessIdentity(process.pid, 0.0)
    return identity
