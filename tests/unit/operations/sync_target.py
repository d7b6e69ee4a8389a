"""A target whose jobs end at once, each with the next outcome a test gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.errors import ComfymodalError, ServiceError
from comfymodal.operations.context import Context, open_context
from comfymodal.operations.desk import Question
from comfymodal.targets.base import EngineFacts, KnownNodes, Look, OnEvent, Setup

REMOTES = """
remotes:
  store: {type: s3, bucket: models, endpoint: "http://127.0.0.1:9", region: us-east-1}
  b2: {type: b2, bucket: models, secret: my-b2}
"""

PAIRS = """
sync:
  models: {from: "store:comfy", to: "models:/", exclude: ["*.ckpt"]}
  loras-up: {from: "models:/loras", to: "b2:comfy/loras"}
  library: {from: "store:comfy", to: "models:/", two_way: true}
  renders: {from: "outputs:/", to: "store:renders"}
"""

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDFORTESTS", "AWS_SECRET_ACCESS_KEY": "secret-for-tests"}


def plan(*paths: Mapping[str, Any], here_files: int = 10, there_files: int = 10) -> dict[str, Any]:
    """What a job says of a plan with these paths, as `storage.sync.summary_of` does."""
    counts: dict[str, int] = {}
    for each in paths:
        counts[each["action"]] = counts.get(each["action"], 0) + 1
    copies = [each for each in paths if each.get("direction")]
    return {
        "here_files": here_files,
        "there_files": there_files,
        "counts": counts,
        "copy_files": len(copies),
        "copy_bytes": sum(each["size_bytes"] for each in copies),
        "notices": [],
        "is_in_step": set(counts) <= {"same", "adopt"},
    }


def path(name: str, action: str, size: int = 100, **more: Any) -> dict[str, Any]:
    direction = "pull" if action in ("new", "changed") else None
    return {
        "path": name,
        "action": action,
        "size_bytes": size,
        "why": f"it is {action}",
        "direction": direction,
        **more,
    }


def outcome(*paths: Mapping[str, Any], status: str = "succeeded", **more: Any) -> dict[str, Any]:
    copied = [each for each in paths if each.get("result") == "copied"]
    given = {
        "status": status,
        "plan": plan(*paths),
        "paths": list(paths),
        "copied_files": len(copied),
        "copied_bytes": sum(each["size_bytes"] for each in copied),
        "rclone_s": 2.0 if copied else 0.0,
        "error": None,
    }
    return {**given, **more}


def failed(error: ComfymodalError, status: str = "failed") -> dict[str, Any]:
    return outcome(status=status, error=error.to_dict(), plan=None)


@dataclass
class SyncTarget:
    """Fulfils `targets.base.Target`."""

    endings: list[Mapping[str, Any] | ComfymodalError] = field(default_factory=list)
    """An error is raised when its job is handed over."""
    name: str = "local"
    jobs: list[Mapping[str, Any]] = field(default_factory=list)
    look_every_s: float = 0.0
    models_root: str | None = None
    setup: Setup | None = None
    set_up_kinds: list[str] = field(default_factory=list)

    def needed_setup(self, kind: str = "render") -> Setup | None:
        return self.setup

    def set_up(self, on_event: OnEvent, kind: str = "render") -> None:
        self.set_up_kinds.append(kind)
        self.setup = None

    def submit(self, job: Mapping[str, Any]) -> str:
        self.jobs.append(job)
        ending = self.endings[len(self.jobs) - 1]
        if isinstance(ending, ComfymodalError):
            raise ending
        return f"call-{len(self.jobs)}"

    def look(self, run_id: str, call_id: str, *, after: int) -> Look:
        if not call_id:
            return Look(0, (), None, is_alive=False)
        ending = self.endings[int(call_id.removeprefix("call-")) - 1]
        assert not isinstance(ending, ComfymodalError)
        return Look(1, (), {"ended_at": time.time(), **ending}, is_alive=False)

    def find_call(self, run_id: str) -> str | None:
        numbers = (number for number, job in enumerate(self.jobs, 1) if job["run_id"] == run_id)
        return next((f"call-{number}" for number in numbers), None)

    def job_of(self, run_id: str) -> Mapping[str, Any] | None:
        return next((job for job in self.jobs if job["run_id"] == run_id), None)

    def engine_facts(self, on_event: OnEvent) -> EngineFacts:
        raise AssertionError("a sync needs no engine")

    def object_info(self, class_types: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        raise AssertionError("a sync needs no engine")

    def known_classes(self) -> Sequence[str]:
        raise AssertionError("a sync needs no engine")

    def model_files(self) -> Mapping[str, Sequence[str]]:
        raise AssertionError("a sync needs no engine")

    def look_again_for_models(self, on_event: OnEvent) -> bool:
        raise AssertionError("a sync needs no engine")

    def known_nodes(self, *, may_ask: bool) -> KnownNodes | None:
        raise AssertionError("a sync needs no engine")

    def put_input(self, source: Path, name: str) -> None:
        raise AssertionError("there are no inputs")

    def cancel(self, run_id: str, call_id: str, *, at_once: bool = False) -> None:
        raise AssertionError("nobody cancels")

    def results(self, run_id: str) -> Mapping[int, Mapping[str, Any]]:
        raise AssertionError("a sync leaves no manifest")

    def files(self, role: str, folder: str) -> Mapping[str, int]:
        raise AssertionError("nobody looks")

    def fetch(self, role: str, path: str, destination: Path, on_bytes: Callable[[int], None]) -> None:
        raise AssertionError("a sync leaves nothing to fetch")


@dataclass
class Clerk:
    """Fulfils `operations.desk.Desk`, and remembers."""

    answer: bool = True
    events: list[Mapping[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    questions: list[Question | Setup] = field(default_factory=list)

    def event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def agree(self, setup: Setup) -> bool:
        self.questions.append(setup)
        return self.answer

    def confirm(self, question: Question) -> bool:
        self.questions.append(question)
        return self.answer

    def of_type(self, kind: str) -> list[Mapping[str, Any]]:
        return [event for event in self.events if event["type"] == kind]


def project_context(
    folder: Path, text: str = REMOTES + PAIRS, *, target: str = "local", keys: Mapping[str, str] | None = None
) -> Context:
    """A project of this text on one of the two targets; with keys in the environment unless others are given."""
    (folder / "comfymodal.yaml").write_text(f"version: 1\nproject: syncs\ntarget: {target}\n{text}")
    home = {"HOME": str(folder), "COMFYMODAL_STATE_DIR": str(folder / "state")}
    return open_context(None, environ={**home, **(KEYS if keys is None else keys)}, cwd=folder)


def context_of(target: SyncTarget, folder: Path, text: str = REMOTES + PAIRS) -> Context:
    """The same, with this target for all its jobs."""
    context = project_context(folder, text, target=target.name)
    context.target = target
    context.reopen = lambda flags: context
    return context


OFFLINE = ServiceError("nobody answers")
