"""A place whose volumes are folders, for tests that run a storage job in their own process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.errors import NotReadyError
from comfymodal.jobs.contract import Control, Engine
from comfymodal.storage.side import Mover, Side


@dataclass
class FolderPlace:
    """Fulfils `jobs.contract.StoragePlace`. `on_event` hears each event and may raise to end the job there."""

    root: Path
    environ: Mapping[str, str]
    deadline: float | None = None
    word: Control | None = None
    is_leaving: bool = False
    versions: Mapping[str, int] = field(default_factory=dict)
    on_event: Callable[[Mapping[str, Any]], None] = lambda event: None
    events: list[Mapping[str, Any]] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    leased: list[str] = field(default_factory=list)

    @property
    def volumes(self) -> Mapping[str, Path]:
        return {role: self.root / role for role in ("models", "inputs", "outputs", "datasets", "training", "cache")}

    def emit(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)
        self.on_event(event)

    def commit(self, volume: str) -> None:
        self.commits.append(volume)

    def reload(self, volume: str) -> None:
        self.volumes[volume].mkdir(parents=True, exist_ok=True)

    def control(self) -> Control | None:
        return self.word

    @contextlib.contextmanager
    def lease(self, owner: str) -> Iterator[None]:
        self.leased.append(owner)
        yield

    def volume_version(self, volume: str) -> int | None:
        return self.versions.get(volume)

    def volume_name(self, volume: str) -> str:
        return str(self.volumes[volume])

    def side_of(self, volume: Mapping[str, Any]) -> tuple[Side, Mover]:
        raise NotReadyError("there is no Modal here")

    def engine(self) -> Engine:
        raise NotReadyError("there is no engine here")
