"""`comfymodal runs`: what ran, what came of it, and going on with what was interrupted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfymodal.errors import NotFoundError, NotReadyError, ServiceError, StillRunningError, UsageError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ending import Report, ending_of
from comfymodal.operations.follow import follow, report, wait_for
from comfymodal.operations.news import telling
from comfymodal.operations.ready import ready_engine
from comfymodal.operations.refresh import refresh
from comfymodal.operations.render import Again, with_flags_of
from comfymodal.operations.render import again as render_again
from comfymodal.operations.results import RunCancelled, RunList
from comfymodal.operations.sync import again as sync_again
from comfymodal.operations.train_end import TrainEnding
from comfymodal.operations.train_files import checkpoint_at, fetch_weights
from comfymodal.operations.train_results import TrainReport
from comfymodal.operations.views import run_view
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run

CANCEL_PATIENCE_S = 30.0
STOP_PATIENCE_S = 900.0
"""A training finishes its step, and its samples, before it saves."""


def list_runs(context: Context, desk: Desk, *, limit: int) -> RunList:
    """The newest runs; those that ended while nobody watched are settled first."""
    found = []
    with telling(context, desk):
        for run in context.ledger.newest(limit=limit):
            try:
                found.append(refresh(run, context))
            except (NotReadyError, ServiceError) as exc:
                # Without the network a list still says what is known.
                desk.warn(f"cannot ask how run {run.id} is: {exc.message}")
                found.append(run)
    return RunList(tuple(run_view(run) for run in found))


def show_run(name: str, context: Context, desk: Desk) -> Report:
    with telling(context, desk):
        return report(refresh(context.ledger.get(name), context))


def find_run(name: str, context: Context) -> tuple[Run, Context]:
    """A run, also one of another machine, as it is now, and the context at its target.

    It may have ended, and who calls tells of that (`telling`).

    Raises `NotFoundError`, and `NotReadyError` for one that another machine submitted this moment.
    """
    run = _known_run(name, context)
    context = context.at_target_of(run)
    return refresh(run, context), context


def fetch_run(name: str, context: Context, desk: Desk, *, out: Path | None, waiting: Waiting) -> Report:
    """Bring what a run left here: follows one that still runs, goes on with a download that was cut.

    A render whose worker was killed is looked for on its server: what finished there is collected, nothing is
    rendered. Of a sync there is nothing to bring: its end is told.
    """
    with telling(context, desk):
        return _fetch(name, context, desk, out, waiting)


def _fetch(name: str, context: Context, desk: Desk, out: Path | None, waiting: Waiting) -> Report:
    run, context = find_run(name, context)
    if out is not None:
        run = replace(run, request={**run.request, "folder": str(out.absolute()), "is_own_folder": False})
    ending = ending_of(run)
    if run.is_active:
        return follow(run, context, desk, ending, waiting=waiting)
    if run.kind not in ("render", "train"):
        return ending.report(run)
    outcome = {"status": run.status, "ended_at": run.ended_at, **(run.result or {})}
    # On Modal a container that is gone took its server with it.
    may_be_on_server = run.kind == "render" and run.target == "local" and run.status in ("failed", "partial")
    if may_be_on_server and len(context.target.results(run.id)) < len(run.request["job"]["prompts"]):
        context = with_flags_of(run, context)
        ready_engine(context, desk)
        job = {**run.request["job"], "collect_only": True}
        call_id = context.target.submit(job)
        context.ledger.note_call(run.id, call_id)
        return follow(replace(run, call_id=call_id, status="running"), context, desk, ending, waiting=waiting)
    return ending.finish(run, outcome, context, desk)


def fetch_step(name: str, step: int, context: Context, desk: Desk, *, out: Path | None) -> TrainReport:
    """Bring the weights of one checkpoint of a training here. Raises `NotFoundError` for one that is not kept."""
    with telling(context, desk):
        return _fetch_step(name, step, context, desk, out)


def _fetch_step(name: str, step: int, context: Context, desk: Desk, out: Path | None) -> TrainReport:
    run = _known_run(name, context)
    if run.kind != "train":
        raise UsageError(f"run {run.id} is a {run.kind}: it has no steps", hint=f"comfymodal runs fetch {run.id}")
    context = context.at_target_of(run)
    run = refresh(run, context)
    if out is not None:
        run = replace(run, request={**run.request, "folder": str(out.absolute())})
    outputs = fetch_weights(run, checkpoint_at(run, step), context.target, desk.event)
    return replace(TrainEnding().report(run), outputs=tuple(outputs), folder=run.request["folder"], exit_code=0)


def attach_run(name: str, context: Context, desk: Desk, *, out: Path | None, waiting: Waiting) -> Report:
    """Follow a run from any terminal, on any machine with the same project; Ctrl-C leaves it running."""
    return fetch_run(name, context, desk, out=out, waiting=replace(waiting, keeps_run=True))


def again_run(name: str, context: Context, desk: Desk, wish: Again) -> Report:
    """The same job once more: a workflow with its seeds and inputs, a sync of the same two places."""
    run = context.ledger.get(name)
    if run.kind == "render":
        return render_again(run, context, desk, wish)
    if run.kind == "train":
        raise UsageError(
            f"run {run.id} is a training",
            hint=f"go on with it: comfymodal runs resume {run.id}; anew: comfymodal train",
        )
    if run.kind != "sync":
        raise UsageError(f"run {run.id} is a {run.kind}: repeat the command itself")
    if wish.gpu or wish.out:
        raise UsageError(f"run {run.id} is a sync: it has no GPU and no output folder")
    return sync_again(run, context, desk, waiting=wish.waiting)


def cancel_run(name: str, context: Context, desk: Desk) -> RunCancelled:
    """Ask a run to stop at once and wait until it has; what is finished is kept for `runs fetch`."""
    with telling(context, desk):
        return _cancel(name, context)


def _cancel(name: str, context: Context) -> RunCancelled:
    run, context = find_run(name, context)
    if not run.is_active:
        return RunCancelled(run_view(run), was_active=False, is_still_running=False)
    context.target.cancel(run.id, run.call_id or "", at_once=True)
    give_up_at = time.monotonic() + CANCEL_PATIENCE_S
    while run.is_active and time.monotonic() < give_up_at:
        time.sleep(context.target.look_every_s)
        run = refresh(run, context)
    return RunCancelled(run_view(run), was_active=True, is_still_running=run.is_active)


def stop_run(name: str, context: Context, desk: Desk) -> RunCancelled:
    """Ask a run to stop, a training to save before, and follow it until it has. Ctrl-C leaves it to itself."""
    with telling(context, desk):
        return _stop(name, context, desk)


def _stop(name: str, context: Context, desk: Desk) -> RunCancelled:
    run, context = find_run(name, context)
    if not run.is_active:
        return RunCancelled(run_view(run), was_active=False, is_still_running=False)
    context.target.cancel(run.id, run.call_id or "")
    desk.event({"type": "phase", "phase": "stopping", "saves": run.kind == "train"})
    try:
        outcome = wait_for(run, context, desk, Waiting(wait_s=STOP_PATIENCE_S, keeps_run=True))
    except StillRunningError:
        return RunCancelled(run_view(run), was_active=True, is_still_running=True)
    ending_of(run).finish(run, outcome, context, desk, is_download=False)
    return RunCancelled(run_view(context.ledger.get(run.id)), was_active=True, is_still_running=False)


def _known_run(name: str, context: Context) -> Run:
    """The ledger's run, or one that another machine submitted, entered here."""
    try:
        return context.ledger.get(name)
    except NotFoundError:
        job = context.target.job_of(name)
        call_id = context.target.find_call(name)
        if job is None and call_id is None:
            raise
    if job is None:
        raise NotReadyError(f"run {name} has only just begun", hint=f"in a moment: comfymodal runs attach {name}")
    context.ledger.add(_run_of(job, call_id, context))
    return context.ledger.get(name)


def _run_of(job: Mapping[str, Any], call_id: str | None, context: Context) -> Run:
    origin = job["origin"]
    run_id = str(job["run_id"])
    return Run(
        id=run_id,
        kind=str(job["kind"]),
        target=context.target.name,
        status="running",
        title=str(origin["title"]),
        created_at=float(origin["created_at"]),
        ended_at=None,
        call_id=call_id or "",
        again_of=None,
        request={
            "job": job,
            **{key: origin[key] for key in ("workflow", "changes", "naming") if key in origin},
            "folder": str(Path(context.project.render.output_dir).absolute() / run_id),
            "is_own_folder": True,
            "flags": {},
        },
        result=None,
        rate=origin.get("rate"),
    )
