"""`--retry-oom-on`: one more try on a larger GPU when memory runs out, and only then."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ComfymodalError, OutOfMemoryError, RunFailedError, UsageError
from comfymodal.operations.context import Context, open_context
from comfymodal.operations.desk import Question
from comfymodal.operations.render import RenderRequest, render
from comfymodal.operations.waiting import Waiting
from comfymodal.targets.base import EngineFacts, KnownNodes, Look, OnEvent, Setup

OUT_OF_MEMORY = OutOfMemoryError("node 3 (Sampler) ran out of GPU memory")
FAILED = RunFailedError("node 3 (Sampler) failed")
CLASS = {"input": {"required": {}}, "output": [], "output_node": True, "name": "Save"}


@dataclass
class GpuTarget:
    """Fulfils `targets.base.Target`: each run ends at once, with the next of `endings` (None: well)."""

    endings: list[ComfymodalError | None]
    jobs: list[Mapping[str, Any]] = field(default_factory=list)
    name: str = "modal"
    look_every_s: float = 0.0
    models_root: str | None = None

    def needed_setup(self, kind: str = "render") -> Setup | None:
        return None

    def set_up(self, on_event: OnEvent, kind: str = "render") -> None:
        raise AssertionError("nothing is missing")

    def engine_facts(self, on_event: OnEvent) -> EngineFacts:
        return EngineFacts("0.3.75", "L40S", "a test", None)

    def object_info(self, class_types: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        return dict.fromkeys(class_types, CLASS)

    def known_classes(self) -> Sequence[str]:
        return ["Save"]

    def model_files(self) -> Mapping[str, Sequence[str]]:
        return {}

    def look_again_for_models(self, on_event: OnEvent) -> bool:
        raise AssertionError("nothing is missing")

    def known_nodes(self, *, may_ask: bool) -> KnownNodes | None:
        return None

    def put_input(self, source: Path, name: str) -> None:
        raise AssertionError("there are no inputs")

    def submit(self, job: Mapping[str, Any]) -> str:
        self.jobs.append(job)
        return f"call-{len(self.jobs)}"

    def look(self, run_id: str, call_id: str, *, after: int) -> Look:
        error = self.endings[int(call_id.removeprefix("call-")) - 1]
        status = "failed" if error else "succeeded"
        outcome = {"status": status, "error": error.to_dict() if error else None, "ended_at": time.time()}
        return Look(1, (), outcome, is_alive=False)

    def cancel(self, run_id: str, call_id: str, *, at_once: bool = False) -> None:
        raise AssertionError("nobody cancels")

    def results(self, run_id: str) -> Mapping[int, Mapping[str, Any]]:
        return {}

    def find_call(self, run_id: str) -> str | None:
        return None

    def job_of(self, run_id: str) -> Mapping[str, Any] | None:
        return None

    def files(self, role: str, folder: str) -> Mapping[str, int]:
        raise AssertionError("nobody looks")

    def fetch(self, role: str, path: str, destination: Path, on_bytes: Callable[[int], None]) -> None:
        raise AssertionError("there are no outputs")


@dataclass
class QuietDesk:
    """Fulfils `operations.desk.Desk`."""

    warnings: list[str] = field(default_factory=list)

    def event(self, event: Mapping[str, Any]) -> None:
        pass

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def agree(self, setup: Setup) -> bool:
        return True

    def confirm(self, question: Question) -> bool:
        return True


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps({"1": {"class_type": "Save", "inputs": {}}}))
    return path


def context_of(target: GpuTarget, tmp_path: Path) -> Context:
    (tmp_path / "comfymodal.yaml").write_text("version: 1\nproject: memory\ntarget: modal\n")
    environ = {"HOME": str(tmp_path), "COMFYMODAL_STATE_DIR": str(tmp_path / "state")}
    context = open_context(None, environ=environ, cwd=tmp_path)
    context.target = target
    context.reopen = lambda flags: context
    return context


def gpus(target: GpuTarget) -> list[str | None]:
    return [job["gpu"] for job in target.jobs]


def test_out_of_memory_is_tried_once_more_on_the_larger_gpu(tmp_path: Path, workflow: Path) -> None:
    target, desk = GpuTarget([OUT_OF_MEMORY, None]), QuietDesk()
    context = context_of(target, tmp_path)
    done = render(RenderRequest(workflow, retry_oom_on="H100"), context, desk)
    again, first = context.ledger.newest(limit=2)

    assert (done.exit_code, done.run.status) == (0, "succeeded")
    assert gpus(target) == [None, "H100"]
    assert [job["prompts"][0]["graph"] for job in target.jobs] == [{"1": {"class_type": "Save", "inputs": {}}}] * 2
    assert (first.status, again.again_of, again.id) == ("failed", first.id, done.run.id)
    # The second is priced as what it runs on, and nothing stays reserved.
    assert (first.rate or {})["gpu"] == "L40S"
    assert (again.rate or {})["gpu"] == "H100"
    assert context.ledger.reserved() == 0
    assert desk.warnings[-1] == f"{OUT_OF_MEMORY.message}; once more on H100"


def test_a_second_time_out_of_memory_is_the_end(tmp_path: Path, workflow: Path) -> None:
    target = GpuTarget([OUT_OF_MEMORY, OUT_OF_MEMORY, None])
    done = render(RenderRequest(workflow, retry_oom_on="H100"), context_of(target, tmp_path), QuietDesk())

    assert (done.exit_code, (done.error or {})["code"]) == (1, "out_of_memory")
    assert gpus(target) == [None, "H100"]


@pytest.mark.parametrize(
    ("ending", "retry_oom_on"),
    [
        pytest.param(OUT_OF_MEMORY, None, id="nobody asked for it"),
        pytest.param(FAILED, "H100", id="another failure"),
        pytest.param(None, "H100", id="no failure"),
    ],
)
def test_nothing_else_is_tried_again(
    tmp_path: Path, workflow: Path, ending: ComfymodalError | None, retry_oom_on: str | None
) -> None:
    target = GpuTarget([ending, None])
    done = render(RenderRequest(workflow, retry_oom_on=retry_oom_on), context_of(target, tmp_path), QuietDesk())

    assert done.exit_code == (0 if ending is None else 1)
    assert gpus(target) == [None]


def test_a_detached_render_is_not_waited_for(tmp_path: Path, workflow: Path) -> None:
    target = GpuTarget([OUT_OF_MEMORY, None])
    request = RenderRequest(workflow, retry_oom_on="H100", waiting=Waiting(is_detached=True))
    done = render(request, context_of(target, tmp_path), QuietDesk())

    assert (done.exit_code, done.run.status) == (0, "running")
    assert gpus(target) == [None]


def test_a_gpu_that_modal_does_not_have_is_refused_before_the_first_try(tmp_path: Path, workflow: Path) -> None:
    target = GpuTarget([None])
    with pytest.raises(UsageError, match="H10 is not a GPU of Modal"):
        render(RenderRequest(workflow, retry_oom_on="H10"), context_of(target, tmp_path), QuietDesk())

    assert target.jobs == []
