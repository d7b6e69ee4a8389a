"""What becomes of a run that has ended, by the kind of its job: what the ledger keeps, and the report of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from comfymodal.errors import TransferError, error_from_dict
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.results import RunReport
from comfymodal.operations.spent import cost_of, measured_of
from comfymodal.operations.sync_results import ErrandReport, SyncReport
from comfymodal.operations.train_results import TrainReport
from comfymodal.operations.views import run_view
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run
from comfymodal.targets.base import OnEvent

Outcome = Mapping[str, Any]
Report = RunReport | SyncReport | ErrandReport | TrainReport

R_co = TypeVar("R_co", covariant=True)


class Ending(Protocol[R_co]):
    """One kind's."""

    def listening(self, run: Run, context: Context, waiting: Waiting) -> AbstractContextManager[OnEvent]:
        """What is to hear the run's events while somebody follows it."""

    def summary(self, outcome: Outcome) -> dict[str, Any]:
        """What of an outcome the ledger keeps."""

    def lost(self, run: Run, context: Context) -> Outcome:
        """The end of a run whose worker vanished without leaving one."""

    def finish(self, run: Run, outcome: Outcome, context: Context, desk: Desk, *, is_download: bool = True) -> R_co:
        """Settle an ended run and bring here what it left."""

    def report(self, run: Run) -> R_co:
        """What the ledger knows of a run, without asking anybody."""


class Deaf:
    """For kinds of which nothing is brought here before the end."""

    def listening(self, run: Run, context: Context, waiting: Waiting) -> AbstractContextManager[OnEvent]:
        return contextlib.nullcontext(lambda event: None)


def ending_of(run: Run) -> Ending[Report]:
    from comfymodal.operations.render_end import RenderEnding
    from comfymodal.operations.sync_end import SyncEnding
    from comfymodal.operations.train_end import TrainEnding

    found: Mapping[str, type[Ending[Report]]] = {"render": RenderEnding, "sync": SyncEnding, "train": TrainEnding}
    return found.get(run.kind, ErrandEnding)()


def settle(run: Run, outcome: Outcome, context: Context) -> dict[str, Any]:
    """Note how a run ended and what it cost; return what of the outcome the ledger keeps."""
    summary = ending_of(run).summary(outcome)
    note_end(run, outcome, summary, context)
    return summary


def note_end(run: Run, outcome: Outcome, result: Mapping[str, Any], context: Context) -> None:
    """Enter the end of a run with this result; a later one replaces an earlier one."""
    context.ledger.settle(
        run.id,
        status=str(outcome["status"]),
        ended_at=float(outcome.get("ended_at") or time.time()),
        result=result,
        cost_nanodollars=cost_of(run, outcome),
        measured=measured_of(run, outcome, result),
    )
    if run.is_active:
        context.news.add(run.id)


def exit_code_of(status: str, error: Mapping[str, Any] | None) -> int:
    """The code a command about this run ends with."""
    by_status = {"succeeded": 0, "partial": 6, "cancelled": 130, "submitting": 8, "running": 8}
    if status in by_status:
        return by_status[status]
    return error_from_dict(error).exit_code if error else 1


@dataclass(frozen=True, slots=True)
class ErrandEnding(Deaf):
    """Of jobs that leave nothing but an answer. Fulfils `Ending`."""

    def summary(self, outcome: Outcome) -> dict[str, Any]:
        return {key: outcome.get(key) for key in ("status", "error", "container", "started_at", "ended_at", "result")}

    def lost(self, run: Run, context: Context) -> Outcome:
        error = TransferError(
            f"run {run.id} ended without a word: its process was killed",
            hint=f"the same once more, it goes on where that stopped: comfymodal runs again {run.id}",
        )
        return {"status": "failed", "error": error.to_dict(), "ended_at": time.time()}

    def finish(
        self, run: Run, outcome: Outcome, context: Context, desk: Desk, *, is_download: bool = True
    ) -> ErrandReport:
        settle(run, outcome, context)
        return self.report(context.ledger.get(run.id))

    def report(self, run: Run) -> ErrandReport:
        result = run.result or {}
        error = result.get("error")
        return ErrandReport(run_view(run), result.get("result") or {}, error, exit_code_of(run.status, error))
