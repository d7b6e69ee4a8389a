"""A training as a job: what it trains, where its files lie, on what it runs."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfymodal.costs.rates import parse_gpu
from comfymodal.errors import UsageError
from comfymodal.jobs.contract import RUNS_FOLDER, VERSION
from comfymodal.operations.context import Context
from comfymodal.operations.train_check import CheckedRun
from comfymodal.operations.train_gate import Keys
from comfymodal.operations.train_places import Placed
from comfymodal.operations.train_source import Source
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run
from comfymodal.runs.names import new_run_id
from comfymodal.training.ai_toolkit.rewrite import Placement, rewrite

if TYPE_CHECKING:
    from comfymodal.operations.train_eval import EvalWish


@dataclass(frozen=True, slots=True)
class TrainWish:
    """How a training is to be run, beside what it trains."""

    is_published: bool = True
    publish: str | None = None
    """Name among the models; the training's own without it."""
    resume: str | None = None
    """Run whose checkpoints are gone on from."""
    max_cost: int | None = None
    """Nanodollars, of all runs of a sweep together."""
    out: Path | None = None
    push: str | None = None
    """Pair to push the trained files by when they are among the models."""
    evaluation: EvalWish | None = None
    """Workflow to render with every checkpoint when it is done."""
    waiting: Waiting = field(default_factory=Waiting)


@dataclass(frozen=True, slots=True)
class More:
    """What is different when a training is gone on with; None: as it was."""

    steps: int | None = None
    gpu: str | None = None
    max_cost: int | None = None
    waiting: Waiting = field(default_factory=Waiting)


@dataclass(frozen=True, slots=True)
class Ready:
    """A checked training with the places of its files and the secrets its models need."""

    found: CheckedRun
    source: Source
    placed: Placed
    keys: Keys


def build_run(ready: Ready, wish: TrainWish, context: Context, before: Run | None) -> Run:
    """A ledger row of this training, in a folder of its own or in that of the run `before`."""
    found, placed = ready.found, ready.placed
    now = time.time()
    run_id = new_run_id(now, "train")
    on_modal = context.target.name == "modal"
    config, needs = found.accepted.config, found.plan.needs
    assert config is not None
    device = "cuda" if on_modal else device_here()
    meta = {"comfymodal_run": run_id}
    placement = Placement(found.plan.name, device=device, locations=placed.texts, meta=meta)
    job = {
        "version": VERSION,
        "kind": "train",
        "run_id": run_id,
        # Jobs with the same one go on with each other.
        "folder": before.request["job"]["folder"] if before else f"{RUNS_FOLDER}/{run_id}",
        "config": rewrite(config, placement).config,
        "locations": [dict(each) for each in placed.locations],
        "publish": {"name": wish.publish} if wish.is_published else None,
        "device": device,
        "mounts": _mounts(placed, wish),
        "secrets": list(ready.keys.secrets),
        "optional_secrets": list(ready.keys.optional_secrets),
        "gpu": found.gpu.label if found.gpu and on_modal else None,
        "memory_gib": context.project.training.memory or (needs.host_memory_gb if needs else None),
        "deadline_s": None,
        "origin": {
            "title": found.plan.name,
            "created_at": now,
            "settings": found.plan.settings,
            "source": {"path": str(ready.source.path), "shown": ready.source.shown},
            "run_s": needs.run_s if needs else None,
            "run_low_s": needs.run_low_s if needs else None,
            "run_high_s": needs.run_high_s if needs else None,
            "certainty": needs.time_certainty if needs else None,
        },
    }
    return _row(job, str(wish.out.absolute() if wish.out else _folder(context, run_id)), context, before)


def build_more(old: Run, more: More, context: Context) -> Run:
    """A ledger row that goes on where `old` ended. Raises `UsageError` for one with nothing left to do."""
    _require_resumable(old, more.steps)
    now = time.time()
    run_id = new_run_id(now, "train")
    job = dict(old.request["job"])
    if more.steps is not None:
        job["config"] = _with_steps(job["config"], more.steps)
    if more.gpu is not None:
        job["gpu"] = parse_gpu(more.gpu).label
    job |= {"run_id": run_id, "deadline_s": None, "origin": {**job["origin"], "created_at": now}}
    return replace(_row(job, str(_folder(context, run_id)), context, old))


def require_training(run: Run) -> None:
    """Raises `UsageError` for a run of another kind, or one whose folder somebody still writes to."""
    if run.kind != "train":
        raise UsageError(f"run {run.id} is a {run.kind}, not a training", hint=f"comfymodal runs again {run.id}")
    if run.is_active:
        raise UsageError(f"run {run.id} still runs", hint=f"comfymodal runs attach {run.id}")


def device_here() -> str:
    """What PyTorch calls this machine's fastest device."""
    if Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists():
        return "cuda"
    return "mps" if (platform.system(), platform.machine()) == ("Darwin", "arm64") else "cpu"


def _require_resumable(run: Run, steps: int | None) -> None:
    require_training(run)
    done = (run.result or {}).get("result") or {}
    wanted = steps or done.get("steps")
    if run.status == "succeeded" and wanted is not None and wanted <= int(done["step"]):
        hint = f"more of them: comfymodal runs resume {run.id} --steps {2 * int(done['step'])}"
        raise UsageError(f"run {run.id} is done: it has trained {done['step']} steps", hint=hint)


def _row(job: Mapping[str, Any], folder: str, context: Context, before: Run | None) -> Run:
    return Run(
        id=job["run_id"],
        kind="train",
        target=context.target.name,
        status="submitting",
        title=job["origin"]["title"],
        created_at=job["origin"]["created_at"],
        ended_at=None,
        call_id=None,
        again_of=before.id if before else None,
        request={"job": dict(job), "folder": folder, "flags": dict(context.flags)},
        result=None,
    )


def _with_steps(config: Mapping[str, Any], steps: int) -> dict[str, Any]:
    (process,) = config["config"]["process"]
    longer = {**process, "train": {**process["train"], "steps": steps}}
    return {**config, "config": {**config["config"], "process": [longer]}}


def _mounts(placed: Placed, wish: TrainWish) -> list[str]:
    published = ("models",) if wish.is_published else ()
    return list(dict.fromkeys(("training", "cache", *published, *placed.mounts)))


def _folder(context: Context, run_id: str) -> Path:
    return Path(context.project.render.output_dir).absolute() / run_id
