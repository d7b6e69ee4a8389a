"""What `engine` commands return. Field names are the keys of `--json`: adding one is free, renaming is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class InstalledView:
    """An engine's folder. Anything but `installed` only takes space: an install that did not end, or a damaged one."""

    version: str
    state: Literal["installed", "unfinished", "damaged"]
    source: str | None
    device: str | None
    size_bytes: int
    path: str


@dataclass(frozen=True, slots=True)
class RunningView:
    """A ComfyUI that we started. `idle_left_s` is null when it is busy or never stops by itself."""

    name: str
    version: str
    activity: str
    pid: int
    url: str
    port: int | None
    device: str | None
    memory_bytes: int | None
    started_at: str
    uptime_s: float
    idle_stop_s: float | None
    idle_left_s: float | None
    prompts: tuple[str, ...]
    pending: int
    is_supervised: bool
    log: str


@dataclass(frozen=True, slots=True)
class ChosenView:
    """The ComfyUI that `render` would use here, and why this one."""

    how: str
    version: str | None
    url: str | None
    path: str | None


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """`problem` says why there is no `chosen`."""

    chosen: ChosenView | None
    problem: Mapping[str, Any] | None
    installed: tuple[InstalledView, ...]
    running: tuple[RunningView, ...]


@dataclass(frozen=True, slots=True)
class EngineInstallPlanned:
    """What `engine install --dry-run` would do."""

    version: str
    source: str
    repository: str | None
    tag: str | None
    commit: str | None
    torch_build: str
    download_bytes: int
    disk_bytes: int
    path: str


@dataclass(frozen=True, slots=True)
class EngineInstalled:
    engine: InstalledView
    was_there: bool


@dataclass(frozen=True, slots=True)
class EngineStarted:
    """`engine` is null when the ComfyUI that is used here is not ours."""

    how: str
    version: str
    device: str
    url: str | None
    was_running: bool
    engine: RunningView | None


@dataclass(frozen=True, slots=True)
class EnginesStopped:
    """`others` run on: engines of other projects or other settings."""

    stopped: tuple[RunningView, ...]
    others: tuple[RunningView, ...]
    is_dry_run: bool


@dataclass(frozen=True, slots=True)
class EnginesRemoved:
    removed: tuple[InstalledView, ...]
    freed_bytes: int
    is_dry_run: bool


@dataclass(frozen=True, slots=True)
class EngineLog:
    """The end of an engine's log."""

    name: str
    path: str
    lines: tuple[str, ...]
    is_running: bool
