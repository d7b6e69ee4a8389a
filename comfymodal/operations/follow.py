"""Hand a job over and follow its run to its end, from whatever terminal; what then becomes of it is its kind's."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from comfymodal.errors import CancelledError, ComfymodalError, ServiceError, StillRunningError
from comfymodal.operations.budgets import taken
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ending import Ending, Outcome, Report, ending_of
from comfymodal.operations.money import Price
from comfymodal.operations.news import telling
from comfymodal.operations.spent import idle_text
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run
from comfymodal.targets.base import OnEvent

GRACE_S = 2.0
"""How long a run may look gone before it is called lost: its last words may be on their way."""

R = TypeVar("R", bound=Report)


def submit(
    run: Run, context: Context, desk: Desk, ending: Ending[R], *, waiting: Waiting, price: Price | None = None
) -> R:
    """Enter the run into the ledger, hand its job over, and follow it unless detached.

    The most that it may cost is set aside: parallel commands see it before anything is spent. Raises `BudgetError`
    when they have taken what was left.
    """
    with telling(context, desk):
        run = _hand_over(run, context, desk, price)
        if waiting.is_detached:
            return replace(ending.report(context.ledger.get(run.id)), exit_code=0)
        return follow(run, context, desk, ending, waiting=waiting)


def _hand_over(run: Run, context: Context, desk: Desk, price: Price | None) -> Run:
    _enter(run, price, context)
    with deferred_interrupt() as interrupted:
        try:
            call_id = context.target.submit(run.request["job"])
        except ComfymodalError as exc:
            # Nobody has it: what was reserved is free again. Where the network failed, that is not known for sure.
            is_sure = price is not None and not isinstance(exc, ServiceError)
            context.ledger.settle(
                run.id,
                status="failed",
                ended_at=time.time(),
                result={"status": "failed", "error": exc.to_dict()},
                cost_nanodollars=0 if is_sure else None,
            )
            context.news.add(run.id)
            raise
        context.ledger.note_call(run.id, call_id)
        run = replace(run, call_id=call_id, status="running")
        desk.event({"type": "submitted", "run_id": run.id, "kind": run.kind, "target": run.target})
    if interrupted:
        context.target.cancel(run.id, call_id)
    return run


def _enter(run: Run, price: Price | None, context: Context) -> None:
    if price is None:
        context.ledger.add(run)
        return
    reserve = price.estimate.worst
    if (limit := context.ledger.add(run, reserve, expected=price.expected, limits=price.limits)) is not None:
        raise taken(limit)


def follow(run: Run, context: Context, desk: Desk, ending: Ending[R], *, waiting: Waiting) -> R:
    """Wait for the run, then bring here what it left. Ctrl-C cancels it and still brings what is finished.

    Raises `StillRunningError` when `waiting.wait_s` ends first.
    """
    if run.rate is not None:
        desk.event({"type": "rate", "nanodollars_per_s": int(run.rate["nanodollars_per_s"])})
    with ending.listening(run, context, waiting) as hear:
        outcome = wait_for(run, context, desk, waiting, hear)
    if outcome["status"] == "cancelled" and outcome.get("container") and (idle := idle_text(run, context)) is not None:
        desk.warn(f"{idle}; end it now: comfymodal stop")
    with telling(context, desk):
        return ending.finish(run, outcome, context, desk, is_download=waiting.is_download)


def report(run: Run) -> Report:
    """What the ledger knows of a run, without asking anybody."""
    return ending_of(run).report(run)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[list[int]]:
    """Hold a Ctrl-C back until the block is done, and say in the list whether there was one.

    Between handing a job over and noting its call id, an interruption would lose the run.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(run: Run, context: Context, desk: Desk, waiting: Waiting, hear: OnEvent = lambda event: None) -> Outcome:
    """The run's outcome, once there is one; nothing is settled. `hear` gets every event. Raises as `follow` does."""
    give_up_at = None if waiting.wait_s is None else time.monotonic() + waiting.wait_s
    watch = _Watch(run, context, desk, hear)
    is_cancelling = False
    while True:
        try:
            if (outcome := watch.look()) is not None:
                return outcome
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise StillRunningError(
                    f"run {run.id} is still running", hint=f"comfymodal runs fetch {run.id}", run_id=run.id
                )
            time.sleep(context.target.look_every_s)
        except KeyboardInterrupt:
            if waiting.keeps_run:
                raise CancelledError(
                    f"run {run.id} goes on", hint=f"stop it: comfymodal runs {_stop_word(run)} {run.id}", run_id=run.id
                ) from None
            if is_cancelling or _cancel(run, context, desk):
                at_once = f"at once: comfymodal runs cancel {run.id}; " if run.kind == "train" else ""
                raise CancelledError(
                    f"run {run.id} is stopping by itself",
                    hint=f"{at_once}comfymodal runs fetch {run.id}",
                    run_id=run.id,
                ) from None
            is_cancelling = True


def _cancel(run: Run, context: Context, desk: Desk) -> bool:
    """Ask the run to stop; return whether Ctrl-C was pressed again meanwhile. Raises `ServiceError`: it goes on."""
    with deferred_interrupt() as interrupted:
        try:
            context.target.cancel(run.id, run.call_id or "")
        except ServiceError as exc:
            raise ServiceError(
                f"run {run.id} goes on: {exc.message}",
                hint=f"stop it: comfymodal runs {_stop_word(run)} {run.id}",
                run_id=run.id,
            ) from exc
        desk.event({"type": "phase", "phase": "stopping", "saves": run.kind == "train"})
    return bool(interrupted)


def _stop_word(run: Run) -> str:
    return "stop" if run.kind == "train" else "cancel"


class _Watch:
    def __init__(self, run: Run, context: Context, desk: Desk, hear: OnEvent) -> None:
        self._run, self._context, self._desk, self._hear = run, context, desk, hear
        self._seq = 0
        self._gone_since: float | None = None

    def look(self) -> Outcome | None:
        seen = self._context.target.look(self._run.id, self._run.call_id or "", after=self._seq)
        self._seq = seen.seq
        for event in seen.events:
            self._hear(event)
            if event["type"] == "container_lost":
                self._desk.warn(str(event["message"]))
            else:
                self._desk.event(event)
        if seen.outcome is not None:
            return seen.outcome
        if seen.is_alive:
            self._gone_since = None
            return None
        self._gone_since = self._gone_since or time.monotonic()
        if time.monotonic() - self._gone_since <= GRACE_S:
            return None
        return ending_of(self._run).lost(self._run, self._context)
