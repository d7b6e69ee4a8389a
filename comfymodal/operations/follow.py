"""Follow a submitted run to its end from whatever terminal, and turn its end into a report."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.errors import CancelledError, EngineDiedError, ServiceError, StillRunningError, error_from_dict
from comfymodal.operations.collect import collect, texts_of, write_receipt
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.money import cost_of, idle_text
from comfymodal.operations.results import ChangeView, OutputFile, OutputText, RunReport
from comfymodal.operations.views import run_view
from comfymodal.runs.ledger import Run

GRACE_S = 2.0
"""How long a run may look gone before it is called lost: its last words may be on their way."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How a command stays with its run. `keeps_run`: Ctrl-C leaves the run alone, as for one that only watches."""

    wait_s: float | None = None
    is_detached: bool = False
    is_download: bool = True
    keeps_run: bool = False


def follow(run: Run, context: Context, desk: Desk, *, waiting: Waiting) -> RunReport:
    """Wait for the run, then collect what it left. Ctrl-C cancels it and still collects what is finished.

    Raises `StillRunningError` when `waiting.wait_s` ends first.
    """
    outcome = _wait(run, context, desk, waiting)
    if outcome["status"] == "cancelled" and outcome.get("container") and (idle := idle_text(run, context)) is not None:
        desk.warn(f"{idle}; end it now: comfymodal stop")
    return finish(run, outcome, context, desk, is_download=waiting.is_download)


def settle(run: Run, outcome: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Note how a run ended and what it cost; return what of the outcome the ledger keeps."""
    summary = {key: outcome.get(key) for key in ("status", "error", "engine", "container", "started_at", "ended_at")}
    ended_at = float(outcome.get("ended_at") or time.time())
    cost = cost_of(run, outcome)
    context.ledger.settle(
        run.id, status=str(outcome["status"]), ended_at=ended_at, result=summary, cost_nanodollars=cost
    )
    return summary


def finish(
    run: Run, outcome: Mapping[str, Any], context: Context, desk: Desk, *, is_download: bool = True
) -> RunReport:
    """Settle an ended run: note its end first, so that a killed download can be gone on with, then download."""
    summary = settle(run, outcome, context)
    if not is_download:
        return report(context.ledger.get(run.id))
    ended_at = float(outcome.get("ended_at") or time.time())
    results = _results(run, outcome, context)
    began = time.monotonic()
    try:
        outputs = collect(run, results, context.target, desk.event)
        texts = texts_of(results)
        receipt = write_receipt(run, {**outcome, "cost_nanodollars": cost_of(run, outcome)}, outputs, texts)
    except KeyboardInterrupt:
        raise CancelledError(
            f"interrupted while bringing the outputs of run {run.id}",
            hint=f"go on: comfymodal runs fetch {run.id}",
            run_id=run.id,
        ) from None
    result = {
        **summary,
        "phases": {**_phases(outcome, results), "download": round(time.monotonic() - began, 3)},
        "outputs": [_as_dict(output) for output in outputs],
        "texts": [_as_dict(text) for text in texts],
        "is_cached": bool(results) and all(result["is_cached"] for result in results.values()),
        "receipt": str(receipt) if receipt else None,
    }
    context.ledger.settle(
        run.id,
        status=str(outcome["status"]),
        ended_at=ended_at,
        result=result,
        cost_nanodollars=cost_of(run, outcome),
    )
    return report(context.ledger.get(run.id))


def report(run: Run) -> RunReport:
    """What the ledger knows of a run, without asking anybody."""
    result = run.result or {}
    error = result.get("error")
    return RunReport(
        run=run_view(run),
        outputs=tuple(OutputFile(**output) for output in result.get("outputs") or ()),
        texts=tuple(OutputText(**text) for text in result.get("texts") or ()),
        changes=tuple(ChangeView(**change) for change in run.request["changes"]),
        is_cached=bool(result.get("is_cached")),
        folder=run.request["folder"] if result.get("outputs") else None,
        receipt=result.get("receipt"),
        error=error,
        exit_code=exit_code_of(run.status, error),
    )


def exit_code_of(status: str, error: Mapping[str, Any] | None) -> int:
    """The code a command about this run ends with."""
    by_status = {"succeeded": 0, "partial": 6, "cancelled": 130, "submitting": 8, "running": 8}
    if status in by_status:
        return by_status[status]
    return error_from_dict(error).exit_code if error else 1


def lost_outcome(run: Run, context: Context) -> dict[str, Any]:
    """The end of a run whose worker vanished without leaving one."""
    results = context.target.results(run.id)
    error = EngineDiedError(
        f"run {run.id} ended without a word: its process was killed",
        hint=f"take what is finished: comfymodal runs fetch {run.id}; render the same: comfymodal runs again {run.id}",
    )
    is_done = len(results) == len(run.request["job"]["prompts"])
    if is_done and all(result["status"] == "succeeded" for result in results.values()):
        return {"status": "succeeded", "error": None, "ended_at": time.time()}
    return {"status": "partial" if results else "failed", "error": error.to_dict(), "ended_at": time.time()}


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


def _wait(run: Run, context: Context, desk: Desk, waiting: Waiting) -> Mapping[str, Any]:
    give_up_at = None if waiting.wait_s is None else time.monotonic() + waiting.wait_s
    watch = _Watch(run, context, desk)
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
                    f"run {run.id} goes on", hint=f"stop it: comfymodal runs cancel {run.id}", run_id=run.id
                ) from None
            if is_cancelling or _cancel(run, context, desk):
                raise CancelledError(
                    f"run {run.id} is stopping by itself", hint=f"comfymodal runs fetch {run.id}", run_id=run.id
                ) from None
            is_cancelling = True


def _cancel(run: Run, context: Context, desk: Desk) -> bool:
    """Ask the run to stop; return whether Ctrl-C was pressed again meanwhile. Raises `ServiceError`: it goes on."""
    with deferred_interrupt() as interrupted:
        try:
            context.target.cancel(run.id, run.call_id or "")
        except ServiceError as exc:
            raise ServiceError(
                f"run {run.id} goes on: {exc.message}", hint=f"stop it: comfymodal runs cancel {run.id}", run_id=run.id
            ) from exc
        desk.event({"type": "phase", "phase": "stopping"})
    return bool(interrupted)


class _Watch:
    def __init__(self, run: Run, context: Context, desk: Desk) -> None:
        self._run, self._context, self._desk = run, context, desk
        self._seq = 0
        self._gone_since: float | None = None

    def look(self) -> Mapping[str, Any] | None:
        seen = self._context.target.look(self._run.id, self._run.call_id or "", after=self._seq)
        self._seq = seen.seq
        for event in seen.events:
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
        return lost_outcome(self._run, self._context) if time.monotonic() - self._gone_since > GRACE_S else None


def _results(run: Run, outcome: Mapping[str, Any], context: Context) -> dict[int, Mapping[str, Any]]:
    """By prompt index: from the outcome that has just come, else from the manifest, which says the same."""
    prompts = outcome.get("prompts")
    if isinstance(prompts, list):
        return {int(prompt["index"]): prompt for prompt in prompts}
    return dict(sorted(context.target.results(run.id).items()))


def _phases(outcome: Mapping[str, Any], results: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    started = [result for result in results.values() if result.get("started_at") and result.get("queued_at")]
    if not started:
        return {}
    queue = min(r["started_at"] for r in started) - min(r["queued_at"] for r in started)
    return {
        "prepare": round(max(0.0, min(r["queued_at"] for r in started) - float(outcome.get("started_at") or 0)), 3)
        if outcome.get("started_at")
        else 0.0,
        "queue": round(max(0.0, queue), 3),
        "render": round(sum(r["seconds"] for r in started), 3),
    }


def _as_dict(value: OutputFile | OutputText) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)
