"""Small jobs that leave an answer and nothing to bring here: downloads, which the ledger knows, and tidying."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfymodal.errors import CancelledError, TransferError, error_from_dict
from comfymodal.jobs.contract import VERSION
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ending import ErrandEnding
from comfymodal.operations.follow import deferred_interrupt, submit, wait_for
from comfymodal.operations.money import price_sync
from comfymodal.operations.ready import ready_setup
from comfymodal.operations.sync_results import ErrandReport
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run
from comfymodal.runs.names import new_run_id


def errand(kind: str, title: str, fields: Mapping[str, Any], context: Context) -> Run:
    """A run of a job with these fields; `fields` has what its kind's job needs."""
    now = time.time()
    run_id = new_run_id(now, kind)
    job = {
        "version": VERSION,
        "kind": kind,
        "secrets": [],
        "deadline_s": None,
        **fields,
        "run_id": run_id,
        "origin": {"title": title, "created_at": now},
    }
    return Run(
        id=run_id,
        kind=kind,
        target=context.target.name,
        status="submitting",
        title=title,
        created_at=now,
        ended_at=None,
        call_id=None,
        again_of=None,
        request={"job": job, "flags": dict(context.flags)},
        result=None,
    )


def run_errand(run: Run, context: Context, desk: Desk) -> ErrandReport:
    """Do it as a run that others can list, attach to and cancel. Ctrl-C cancels it.

    Raises `NotReadyError` when nothing is deployed for it and nobody agrees, `BudgetError`, `ServiceError`.
    """
    ready_setup(run.kind, context, desk)
    run, price = price_sync(run, context, desk)
    if price is not None:
        desk.event(price.event(context.modal_spec()))
    return submit(run, context, desk, ErrandEnding(), waiting=Waiting(), price=price)


def do_at_once(run: Run, context: Context, desk: Desk) -> Mapping[str, Any]:
    """Do what takes seconds and return its outcome; nobody keeps a record of it. Ctrl-C asks it to stop.

    Raises what it failed with, unless it did some of it; and as `run_errand`.
    """
    ready_setup(run.kind, context, desk)
    with deferred_interrupt() as interrupted:
        call_id = context.target.submit(run.request["job"])
    if interrupted:
        context.target.cancel(run.id, call_id)
    try:
        outcome = wait_for(replace(run, call_id=call_id, status="running"), context, desk, Waiting())
    except CancelledError:
        raise CancelledError("interrupted while it was done", hint="look how far it came, then run it again") from None
    if outcome.get("result") is None:
        raise TransferError(
            f"it ended without a word after {time.time() - run.created_at:.0f} s: its process was killed",
            hint="look how far it came, then run it again",
        )
    if outcome["status"] == "failed" and outcome.get("error"):
        raise error_from_dict(outcome["error"])
    if outcome["status"] == "cancelled":
        raise CancelledError("it was stopped", hint="look how far it came, then run it again")
    return outcome
