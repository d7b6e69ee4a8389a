"""The end of a render: its outputs are brought here, its receipt is written, its report is made."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from comfymodal.errors import CancelledError, EngineDiedError
from comfymodal.operations.collect import collect, texts_of, write_receipt
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ending import Deaf, Outcome, exit_code_of, note_end, settle
from comfymodal.operations.results import ChangeView, OutputFile, OutputText, RunReport
from comfymodal.operations.spent import cost_of
from comfymodal.operations.views import run_view
from comfymodal.runs.ledger import Run

_KEPT = ("status", "error", "engine", "container", "started_at", "ended_at", "load_s")


@dataclass(frozen=True, slots=True)
class RenderEnding(Deaf):
    """Fulfils `ending.Ending`."""

    def summary(self, outcome: Outcome) -> dict[str, Any]:
        summary = {key: outcome.get(key) for key in _KEPT}
        prompts = outcome.get("prompts")
        # What came from ComfyUI's cache must not count for the next estimate, also where nothing is downloaded.
        return {**summary, "is_cached": _is_cached(prompts)} if isinstance(prompts, list) else summary

    def lost(self, run: Run, context: Context) -> Outcome:
        results = context.target.results(run.id)
        error = EngineDiedError(
            f"run {run.id} ended without a word: its process was killed",
            hint=f"take what is finished: comfymodal runs fetch {run.id}; "
            f"render the same: comfymodal runs again {run.id}",
        )
        is_done = len(results) == len(run.request["job"]["prompts"])
        if is_done and all(result["status"] == "succeeded" for result in results.values()):
            return {"status": "succeeded", "error": None, "ended_at": time.time()}
        return {"status": "partial" if results else "failed", "error": error.to_dict(), "ended_at": time.time()}

    def finish(
        self, run: Run, outcome: Outcome, context: Context, desk: Desk, *, is_download: bool = True
    ) -> RunReport:
        """Settle an ended run: note its end first, so that a killed download can be gone on with, then download."""
        summary = settle(run, outcome, context)
        if not is_download:
            return self.report(context.ledger.get(run.id))
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
            "outputs": [asdict(output) for output in outputs],
            "texts": [asdict(text) for text in texts],
            "is_cached": _is_cached(results.values()),
            "receipt": str(receipt) if receipt else None,
        }
        note_end(run, outcome, result, context)
        return self.report(context.ledger.get(run.id))

    def report(self, run: Run) -> RunReport:
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


def _is_cached(prompts: Collection[Mapping[str, Any]]) -> bool:
    return bool(prompts) and all(prompt["is_cached"] for prompt in prompts)


def _results(run: Run, outcome: Outcome, context: Context) -> dict[int, Mapping[str, Any]]:
    """By prompt index: from the outcome that has just come, else from the manifest, which says the same."""
    prompts = outcome.get("prompts")
    if isinstance(prompts, list):
        return {int(prompt["index"]): prompt for prompt in prompts}
    return dict(sorted(context.target.results(run.id).items()))


def _phases(outcome: Outcome, results: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
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
