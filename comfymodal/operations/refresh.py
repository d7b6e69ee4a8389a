"""Runs that ended while no command was there to note it."""

from __future__ import annotations

import time

from comfymodal.operations.context import Context
from comfymodal.operations.ending import ending_of, settle
from comfymodal.runs.ledger import Run

SUBMITTING_PATIENCE_S = 60.0


def refresh(run: Run, context: Context) -> Run:
    """Settle a run that ended while no command was there to note it."""
    if not run.is_active:
        return run
    context = context.at_target_of(run)
    if run.call_id is None:
        run = _find_submitted(run, context)
        if run.call_id is None:
            return run
    seen = context.target.look(run.id, run.call_id, after=0)
    if seen.outcome is None and seen.is_alive:
        return run
    settle(run, seen.outcome or ending_of(run).lost(run, context), context)
    return context.ledger.get(run.id)


def _find_submitted(run: Run, context: Context) -> Run:
    """A run killed between the ledger entry and the hand-over, or being handed over right now."""
    if (call_id := context.target.find_call(run.id)) is not None:
        context.ledger.note_call(run.id, call_id)
        return context.ledger.get(run.id)
    if time.time() - run.created_at < SUBMITTING_PATIENCE_S:
        return run
    # Should it be waiting somewhere after all, it must not start: whoever reads on thinks it is lost.
    context.target.cancel(run.id, "")
    settle(run, ending_of(run).lost(run, context), context)
    return context.ledger.get(run.id)
