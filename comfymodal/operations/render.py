"""`comfymodal render`: read, override, check, submit, follow, collect. Everything free comes before anything costly."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from comfymodal.costs.rates import parse_gpu
from comfymodal.errors import CancelledError, OutOfMemoryError, PartialError, UsageError
from comfymodal.jobs.contract import RUNS_FOLDER, VERSION
from comfymodal.operations.check import check_workflow, nodes_of_engine
from comfymodal.operations.collect import require_writable
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ends import Pair
from comfymodal.operations.follow import submit
from comfymodal.operations.money import Price, price_run
from comfymodal.operations.ready import ready_engine
from comfymodal.operations.render_end import RenderEnding
from comfymodal.operations.results import ChangeView, RenderPlan, RunReport
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run
from comfymodal.runs.names import new_run_id
from comfymodal.targets.base import EngineFacts
from comfymodal.workflow.check import require_valid
from comfymodal.workflow.graph import Graph, Workflow, read_workflow
from comfymodal.workflow.override import Overridden, Override, parse_overrides


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One `render` as asked for. `out` replaces `render.output_dir/<run id>`."""

    workflow: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    allow_partial: bool = False
    keep_temporary: bool = False
    gpu: str | None = None
    """Another GPU than the project's, for this run only."""
    retry_oom_on: str | None = None
    """GPU to render on once more when the first one's memory does not suffice."""
    max_cost: int | None = None
    """Nanodollars."""
    may_deploy: bool = True
    push: str | None = None
    """Pair to push the run's folder by when it is done."""
    waiting: Waiting = field(default_factory=Waiting)


@dataclass(frozen=True, slots=True)
class Again:
    """A run once more: where to, on which GPU, for how much (nanodollars)."""

    out: Path | None = None
    gpu: str | None = None
    max_cost: int | None = None
    waiting: Waiting = field(default_factory=Waiting)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A workflow that the engine will take."""

    workflow: Workflow
    overridden: Overridden
    facts: EngineFacts


def render(request: RenderRequest, context: Context, desk: Desk) -> RunReport:
    """Render one workflow and bring every output back. Raises any `ComfymodalError`; nothing is half-written."""
    _require_gpus((request.gpu, request.retry_oom_on), context)
    pair = _pair_to_push(request, context, desk)
    prepared = _prepare(request, context, desk, may_set_up=request.may_deploy)
    run, price = price_run(build_run(request, prepared, context), context, desk, max_cost=request.max_cost)
    _tell_price(price, context, desk)
    for upload in prepared.overridden.uploads:
        context.target.put_input(upload.path, Path(upload.name).name)
    done = submit(run, context, desk, RenderEnding(), waiting=request.waiting, price=price)
    if request.retry_oom_on is not None and (done.error or {}).get("code") == OutOfMemoryError.code:
        desk.warn(f"{(done.error or {}).get('message')}; once more on {request.retry_oom_on}")
        once_more = Again(out=request.out, gpu=request.retry_oom_on, max_cost=request.max_cost, waiting=request.waiting)
        done = again(context.ledger.get(run.id), context, desk, once_more)
    return done if pair is None else _pushed(done, pair, context, desk)


def plan_render(request: RenderRequest, context: Context, desk: Desk) -> RenderPlan:
    """All that `render` does before it submits, but installs nothing: raises `NotReadyError` without an engine."""
    _require_gpus((request.gpu, request.retry_oom_on), context)
    _pair_to_push(request, context, desk)
    prepared = _prepare(request, context, desk, may_set_up=False)
    folder, _ = _folder(request, context, "<run id>")
    _, price = price_run(build_run(request, prepared, context), context, None, max_cost=request.max_cost)
    return RenderPlan(
        workflow=str(request.workflow),
        target=context.target.name,
        engine=f"ComfyUI {prepared.facts.version} on {prepared.facts.device} ({prepared.facts.how})",
        nodes=len(prepared.overridden.graph),
        changes=_changes(prepared.overridden),
        uploads=tuple(str(upload.path) for upload in prepared.overridden.uploads),
        folder=str(folder),
        cost=price.told(context.modal_spec()) if price else None,
    )


def build_run(request: RenderRequest, prepared: Prepared, context: Context) -> Run:
    """A ledger row whose request is enough to submit, collect and repeat the run."""
    now = time.time()
    run_id = new_run_id(now)
    folder, is_own_folder = _folder(request, context, run_id)
    overridden = prepared.overridden
    # Enough to follow, collect and repeat the run from a machine whose ledger does not know it.
    origin = {
        "title": request.workflow.name,
        "created_at": now,
        "workflow": {"path": str(request.workflow.absolute()), "sha256": prepared.workflow.sha256},
        "changes": [asdict(change) for change in _changes(overridden)],
        "naming": context.project.render.naming,
    }
    job = {
        "version": VERSION,
        "kind": "render",
        "run_id": run_id,
        # ComfyUI takes only canonical UUIDs from 0.38 on, and a repeated id overwrites history before that.
        "prompts": [{"prompt_id": str(uuid.uuid4()), "graph": overridden.graph, "extra_data": {}}],
        "inputs": [
            {"file": Path(upload.name).name, "sha256": upload.sha256, "size_bytes": upload.size_bytes}
            for upload in overridden.uploads
        ],
        "allow_partial": request.allow_partial,
        "keep_temporary": request.keep_temporary,
        "collect_only": False,
        "gpu": request.gpu,
        "stall_s": context.project.comfyui.stall_timeout,
        "origin": origin,
    }
    return Run(
        id=run_id,
        kind="render",
        target=context.target.name,
        status="submitting",
        title=request.workflow.name,
        created_at=now,
        ended_at=None,
        call_id=None,
        again_of=None,
        request={
            "job": job,
            **{key: origin[key] for key in ("workflow", "changes", "naming")},
            "folder": str(folder),
            "is_own_folder": is_own_folder,
            "flags": dict(context.flags),
        },
        result=None,
    )


def with_flags_of(run: Run, context: Context) -> Context:
    """The context the run was made in: a run sent to a server of the operator's goes on there."""
    return context.reopen({**run.request["flags"], **context.flags})


def _prepare(request: RenderRequest, context: Context, desk: Desk, *, may_set_up: bool) -> Prepared:
    for warning in context.warnings:
        desk.warn(warning)
    workflow = read_workflow(request.workflow)
    overrides = parse_overrides(request.overrides, workflow.graph)
    require_writable(_folder(request, context, "")[0])
    facts = ready_engine(context, desk, may_set_up=may_set_up)
    desk.event({"type": "engine", "version": facts.version, "device": facts.device, "how": facts.how, "url": facts.url})
    overridden = _checked(workflow.graph, overrides, context, desk, allow_partial=request.allow_partial)
    return Prepared(workflow, overridden, facts)


def _checked(
    graph: Graph, overrides: tuple[Override, ...], context: Context, desk: Desk, *, allow_partial: bool
) -> Overridden:
    overridden, problems = check_workflow(graph, overrides, nodes_of_engine(graph, context))
    if any(problem.kind == "missing_model" for problem in problems) and context.target.look_again_for_models(
        desk.event
    ):
        overridden, problems = check_workflow(graph, overrides, nodes_of_engine(graph, context))
    # What the server may still render without is only said, when that was asked for; it refuses if nothing is left.
    blocking = [
        problem
        for problem in problems
        if not problem.is_warning and (not allow_partial or problem.kind in ("unknown_node", "cycle", "no_output"))
    ]
    for problem in problems:
        if problem not in blocking:
            desk.warn(problem.message)
    require_valid(blocking)
    return overridden


def _folder(request: RenderRequest, context: Context, run_id: str) -> tuple[Path, bool]:
    if request.out is not None:
        return request.out.absolute(), False
    return Path(context.project.render.output_dir).absolute() / run_id, True


def _changes(overridden: Overridden) -> tuple[ChangeView, ...]:
    return tuple(
        ChangeView(change.node_id, change.title, change.input_name, change.old, change.new)
        for change in overridden.changes
    )


def again(run: Run, context: Context, desk: Desk, wish: Again) -> RunReport:
    """Render the same graph with the same seeds, inputs and flags once more, as a run of its own."""
    context = with_flags_of(run, context)
    _require_gpus((wish.gpu,), context)
    ready_engine(context, desk)
    now = time.time()
    run_id = new_run_id(now)
    old = run.request["job"]
    prompts = [{**prompt, "prompt_id": str(uuid.uuid4())} for prompt in old["prompts"]]
    job: Mapping[str, Any] = {
        **old,
        "run_id": run_id,
        "prompts": prompts,
        "collect_only": False,
        "gpu": wish.gpu or old.get("gpu"),
        "origin": {**old.get("origin", {}), "created_at": now},
    }
    folder = wish.out.absolute() if wish.out else Path(context.project.render.output_dir).absolute() / run_id
    require_writable(folder)
    request = {**run.request, "job": job, "folder": str(folder), "is_own_folder": wish.out is None}
    repeated = Run(
        id=run_id,
        kind=run.kind,
        target=run.target,
        status="submitting",
        title=run.title,
        created_at=now,
        ended_at=None,
        call_id=None,
        again_of=run.id,
        request=request,
        result=None,
    )
    priced, price = price_run(repeated, context, desk, max_cost=wish.max_cost)
    _tell_price(price, context, desk)
    return submit(priced, context, desk, RenderEnding(), waiting=wish.waiting, price=price)


def _pair_to_push(request: RenderRequest, context: Context, desk: Desk) -> Pair | None:
    """Raises, before anything is paid for, what would keep the outputs from being pushed."""
    if request.push is None:
        return None
    if request.waiting.is_detached:
        raise UsageError("--push waits for the run, and --detach does not", hint="leave one of them out")
    from comfymodal.operations.sync import plan_push

    return plan_push(request.push, "outputs", RUNS_FOLDER, context, desk)


def _pushed(done: RunReport, pair: Pair, context: Context, desk: Desk) -> RunReport:
    """The render's report with what became of the push; a push that failed does not make the render a failure."""
    from comfymodal.operations.sync import push

    if done.run.status not in ("succeeded", "partial"):
        return done
    sent = push(pair, done.run.id, context, desk)
    done = replace(done, push=sent.pairs[0])
    if sent.exit_code == 0:
        return done
    error = {**(sent.error or {}), "hint": f"the outputs are here and on the volume; comfymodal sync {pair.name}"}
    error["message"] = f"run {done.run.id} was not pushed by {pair.name}: {error.get('message')}"
    code = CancelledError.exit_code if sent.exit_code == CancelledError.exit_code else PartialError.exit_code
    return replace(done, error=done.error or error, exit_code=code)


def _require_gpus(names: Sequence[str | None], context: Context) -> None:
    """Raises `UsageError` for a GPU where there is none to choose, or one that Modal does not have."""
    for name in names:
        if name is None:
            continue
        if context.project.target != "modal":
            raise UsageError("this project renders on this machine, where no GPU is chosen", hint="--target modal")
        try:
            parse_gpu(name)
        except ValueError as exc:
            raise UsageError(str(exc)) from exc


def _tell_price(price: Price | None, context: Context, desk: Desk) -> None:
    if price is not None:
        desk.event(price.event(context.modal_spec()))
