"""Processes that outlive the command that started them; importable by every room, imports nothing of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process id with its creation time, because ids are used again."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The living process with this id; None when there is none."""
        import psutil

        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, process.create_time())
        except (psutil.Error, ValueError, OverflowError):
            # A damaged file may name what is no process id at all.
            return None

    @classmethod
    def from_dict(cls, data: Any) -> ProcessIdentity | None:
        if isinstance(data, dict) and isinstance(data.get("pid"), int) and isinstance(data.get("created"), float):
            return cls(data["pid"], data["created"])
        return None

    def to_dict(self) -> dict[str, Any]:
        return {"pid": self.pid, "created": self.created}

    def is_alive(self) -> bool:
        found = ProcessIdentity.of(self.pid)
        # Creation times are computed from the boot time, which the kernel adjusts by fractions of a second.
        return found is not None and abs(found.created - self.created) < 2.0

    def terminate(self, *, patience_s: float) -> None:
        """Ask the process to end, and after `patience_s` end it. Nothing happens when it is gone."""
        import psutil

        if not self.is_alive():
            return
        try:
            process = psutil.Process(self.pid)
            process.terminate()
            try:
                process.wait(patience_s)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(patience_s)
        except psutil.Error:
            return


def pids_running_from(folder: Path) -> list[int]:
    """Processes whose program lies under `folder`, by the name they were started with."""
    import psutil

    inside = str(folder) + os.sep
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        command: list[str] = process.info["cmdline"] or [""]
        if command[0].startswith(inside):
            found.append(int(process.info["pid"]))
    return found


def memory_bytes(identity: ProcessIdentity) -> int | None:
    """What the process and its children hold in memory; None when it is gone."""
    import psutil

    if not identity.is_alive():
        return None
    try:
        process = psutil.Process(identity.pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.Error:
        return None


def spawn_module(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path | None,
    takes_input: bool = False,
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start one of our modules detached: no terminal, no signals from this one, output to `log` or nowhere.

    `environ` is laid over this process's environment.
    """
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
    else:
        options["start_new_session"] = True
    with Path(log or os.devnull).open("ab") as stream:
        # -P: the folder the operator stands in must not shadow the standard library.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **(environ or {})},
            **options,
        )
