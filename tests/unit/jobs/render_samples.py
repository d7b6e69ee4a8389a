"""A place made of folders, and jobs for it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.jobs.contract import Control, Engine

RUN_ID = "261121-093012-abcd"
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}, "_meta": {"title": "Save"}},
}


@dataclass
class TestEngine:
    """`death_note` is what `death` says; `folder` holds the server's files where this place can read them."""

    __test__ = False

    url: str
    death_note: str | None = None
    log: str = "got prompt\n"
    folder: Path | None = None

    def folder_of(self, kind: str) -> Path | None:
        return self.folder / kind if self.folder and kind in ("output", "temp") else None

    def death(self) -> str | None:
        return self.death_note

    def log_position(self) -> int:
        return 0

    def log_since(self, position: int) -> str:
        return self.log


@dataclass
class FolderPlace:
    """Fulfils `jobs.contract.Place`; keeps what was emitted. `wish` answers `control` from the events so far."""

    root: Path
    comfy: Engine | Exception
    wish: Callable[[list[dict[str, Any]]], Control | None] = lambda events: None
    deadline: float | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    commits: int = 0

    @property
    def volumes(self) -> Mapping[str, Path]:
        return {role: self.root / role for role in ("models", "inputs", "outputs")}

    @property
    def folder(self) -> Path:
        return self.root / "outputs" / "runs" / RUN_ID

    def emit(self, event: Mapping[str, Any]) -> None:
        self.events.append(dict(event))

    def commit(self, volume: str) -> None:
        self.commits += 1

    def reload(self, volume: str) -> None: ...

    def control(self) -> Control | None:
        return self.wish(self.events)

    def engine(self) -> Engine:
        if isinstance(self.comfy, Exception):
            raise self.comfy
        return self.comfy

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]


def prompt_ids(count: int) -> list[str]:
    return [str(uuid.UUID(int=number + 1)) for number in range(count)]


def build_job(count: int = 1, *, graph: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    prompts = [{"prompt_id": prompt_id, "graph": graph or GRAPH, "extra_data": {}} for prompt_id in prompt_ids(count)]
    return {"version": 1, "kind": "render", "run_id": RUN_ID, "prompts": prompts, "inputs": [], **more}


def statuses(outcome: Mapping[str, Any]) -> list[str]:
    return [prompt["status"] for prompt in outcome["prompts"]]
