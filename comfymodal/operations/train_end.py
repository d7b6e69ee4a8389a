"""The end of a training: what it trained is brought here, its receipt is written, its report is made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comfymodal import __version__
from comfymodal.errors import (
    BudgetError,
    CancelledError,
    ComfymodalError,
    RunFailedError,
    ServiceError,
    TransferError,
)
from comfymodal.files import write_json
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ending import Outcome, exit_code_of, note_end, settle
from comfymodal.operations.results import OutputFile
from comfymodal.operations.spent import cost_of
from comfymodal.operations.train_files import catching_samples, fetch_samples, fetch_weights
from comfymodal.operations.train_results import TrainReport
from comfymodal.operations.views import run_view
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run
from comfymodal.targets.base import OnEvent

RECEIPT_FILE = "receipt.json"

_KEPT = ("status", "error", "container", "started_at", "ended_at", "folder", "published", "may_pass", "result")


@dataclass(frozen=True, slots=True)
class TrainEnding:
    """Fulfils `ending.Ending`."""

    def listening(self, run: Run, context: Context, waiting: Waiting) -> AbstractContextManager[OnEvent]:
        if not waiting.is_download:
            return contextlib.nullcontext(lambda event: None)
        return catching_samples(run, context.target)

    def summary(self, outcome: Outcome) -> dict[str, Any]:
        return {key: outcome.get(key) for key in _KEPT}

    def lost(self, run: Run, context: Context) -> Outcome:
        error = ServiceError(
            f"training {run.id} ended without a word: its process was killed; its checkpoints are kept",
            hint=f"go on from the last one: comfymodal runs resume {run.id}",
        )
        return {"status": "interrupted", "error": error.to_dict(), "ended_at": time.time()}

    def finish(
        self, run: Run, outcome: Outcome, context: Context, desk: Desk, *, is_download: bool = True
    ) -> TrainReport:
        """Settle an ended training: note its end first, so that a cut download can be gone on with, then download."""
        summary = settle(run, outcome, context)
        if not is_download:
            return self.report(context.ledger.get(run.id))
        began = time.monotonic()
        result = outcome.get("result") or {}
        try:
            outputs = fetch_samples(run, context.target, desk.event)
            if result.get("final"):
                outputs = [*fetch_weights(run, result["final"], context.target, desk.event), *outputs]
            receipt = _write_receipt(run, {**outcome, "cost_nanodollars": cost_of(run, outcome)}, outputs)
        except KeyboardInterrupt:
            raise CancelledError(
                f"interrupted while bringing what run {run.id} trained",
                hint=f"go on: comfymodal runs fetch {run.id}",
                run_id=run.id,
            ) from None
        told = {
            **summary,
            "phases": {**(result.get("phases_s") or {}), "download": round(time.monotonic() - began, 3)},
            "outputs": [asdict(output) for output in outputs],
            "receipt": str(receipt) if receipt else None,
        }
        note_end(run, outcome, told, context)
        return self.report(context.ledger.get(run.id))

    def report(self, run: Run) -> TrainReport:
        result = run.result or {}
        error = _error_of(run, result)
        return TrainReport(
            run=run_view(run),
            name=run.title,
            settings=str(run.request["job"]["origin"].get("settings") or ""),
            training=result.get("result"),
            published=tuple(result.get("published") or ()),
            outputs=tuple(OutputFile(**output) for output in result.get("outputs") or ()),
            folder=run.request["folder"] if result.get("outputs") else None,
            receipt=result.get("receipt"),
            resumes=run.again_of,
            error=error,
            exit_code=exit_code_of(run.status, error),
        )


def _error_of(run: Run, summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The error of a training that ended before its end, with the command that goes on."""
    go_on = f"comfymodal runs resume {run.id}"
    result = summary.get("result") or {}
    given: Mapping[str, Any] | None = summary.get("error")
    if given:
        hint = str(given.get("hint") or "")
        # The job knows no commands. One that never began has nothing to go on with.
        if run.id in hint or not (result or "again" in hint):
            return given
        return {**given, "hint": f"{hint}; then: {go_on}" if hint else f"go on: {go_on}"}
    if not result or run.status not in ("cancelled", "interrupted"):
        return None
    at = f"at step {result['step']} of {result['steps']}"
    saved = f"saved at {result['saved_step']}" if result.get("saved_step") is not None else "nothing was saved yet"
    return _early_end(run, str(result["ended_by"]), f"{at}, {saved}", f"go on: {go_on}").to_dict()


def _early_end(run: Run, why: str, where: str, hint: str) -> ComfymodalError:
    if why == "operator":
        return CancelledError(f"stopped {where}", hint=hint)
    if why == "deadline" and run.request["job"].get("is_budget_deadline"):
        return BudgetError(f"the budget was used up {where}", hint=f"{hint} --max-cost USD")
    if why == "deadline":
        return RunFailedError(f"the time was up (training.timeout) {where}", hint=hint)
    return ServiceError(f"its process was told to end {where}", hint=hint)


def _write_receipt(run: Run, outcome: Mapping[str, Any], outputs: Sequence[OutputFile]) -> Path | None:
    """Write what was trained from what. Raises `TransferError`. What left nothing here gets none."""
    if not outputs:
        return None
    folder, job = Path(run.request["folder"]), run.request["job"]
    receipt = {
        "schema": "comfymodal/receipt/1",
        "comfymodal": __version__,
        "run": {"id": run.id, "kind": run.kind, "target": run.target, "status": outcome["status"]},
        "started_at": outcome.get("started_at"),
        "ended_at": outcome.get("ended_at"),
        "resumes": run.again_of,
        "source": job["origin"].get("source"),
        "config": job["config"],
        "datasets": [each for each in job["locations"] if each.get("copies")],
        "training": outcome.get("result"),
        "published": outcome.get("published"),
        "rate": run.rate,
        "cost_nanodollars": outcome.get("cost_nanodollars"),
        "container": outcome.get("container"),
        "outputs": [{**asdict(each), "path": str(Path(each.path).relative_to(folder))} for each in outputs],
    }
    path = folder / RECEIPT_FILE
    try:
        write_json(path, receipt, indent=1)
    except OSError as exc:
        raise TransferError(f"cannot write {path}: {exc.strerror or exc}") from exc
    return path
