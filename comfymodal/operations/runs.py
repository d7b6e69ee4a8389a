"""`comfymodal runs`: what ran, what came of it, and going on with what was interrupted."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.follow import finish, follow, lost_outcome, report
from comfymodal.operations.ready import ready_engine
from comfymodal.operations.render import with_flags_of
from comfymodal.operations.results import RunCancelled, RunList, RunReport
from comfymodal.operations.views import run_view
from comfymodal.runs.ledger import Run

CANCEL_PATIENCE_S = 30.0


def list_runs(context: Context, *, limit: int) -> RunList:
    """The newest runs; those that ended while nobody watched are settled first."""
    return RunList(tuple(run_view(_refresh(run, context)) for run in context.ledger.newest(limit=limit)))


def show_run(name: str, context: Context) -> RunReport:
    return report(_refresh(context.ledger.get(name), context))


def fetch_run(name: str, context: Context, desk: Desk, *, out: Path | None, wait_s: float | None) -> RunReport:
    """Bring a run's outputs here: follows one that still runs, goes on with a download that was cut.

    A run whose worker was killed is looked for on its server: what finished there is collected, nothing is rendered.
    """
    run = _refresh(context.ledger.get(name), context)
    if out is not None:
        run = replace(run, request={**run.request, "folder": str(out.absolute()), "is_own_folder": False})
    if run.is_active:
        return follow(run, context, desk, wait_s=wait_s)
    outcome = {"status": run.status, "ended_at": run.ended_at, **(run.result or {})}
    is_whole = len(context.target.results(run.id)) == len(run.request["job"]["prompts"])
    if run.status in ("failed", "partial") and not is_whole:
        context = with_flags_of(run, context)
        ready_engine(context, desk)
        job = {**run.request["job"], "collect_only": True}
        call_id = context.target.submit(job)
        context.ledger.note_call(run.id, call_id)
        return follow(replace(run, call_id=call_id, status="running"), context, desk, wait_s=wait_s)
    return finish(run, outcome, context, desk)


def cancel_run(name: str, context: Context) -> RunCancelled:
    """Ask a run to stop and wait until it has; what is finished is kept for `runs fetch`."""
    run = _refresh(context.ledger.get(name), context)
    if not run.is_active:
        return RunCancelled(run_view(run), was_active=False, is_still_running=False)
    context.target.cancel(run.id, run.call_id or "")
    give_up_at = time.monotonic() + CANCEL_PATIENCE_S
    while run.is_active and time.monotonic() < give_up_at:
        time.sleep(context.target.look_every_s)
        run = _refresh(run, context)
    return RunCancelled(run_view(run), was_active=True, is_still_running=run.is_active)


def _refresh(run: Run, context: Context) -> Run:
    """Settle a run that ended while no command was there to note it."""
    if not run.is_active:
        return run
    if run.call_id is None:
        # Killed between the ledger entry and the hand-over, or being handed over right now.
        if time.time() - run.created_at < 60:
            return run
        outcome = lost_outcome(run, context)
    else:
        seen = context.target.look(run.id, run.call_id, after=0)
        if seen.outcome is None and seen.is_alive:
            return run
        outcome = dict(seen.outcome) if seen.outcome else lost_outcome(run, context)
    summary = {key: outcome.get(key) for key in ("status", "error", "engine", "started_at", "ended_at")}
    ended_at = float(outcome.get("ended_at") or time.time())
    context.ledger.settle(run.id, status=str(outcome["status"]), ended_at=ended_at, result=summary)
    return context.ledger.get(run.id)
