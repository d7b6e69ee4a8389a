"""The end of a sync: its outcome is all it leaves; the ledger keeps the paths that somebody may ask for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfymodal.errors import CancelledError, ComfymodalError, TransferError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.ending import Deaf, Outcome, exit_code_of, note_end
from comfymodal.operations.results import RunView
from comfymodal.operations.sync_jobs import shown_name
from comfymodal.operations.sync_results import PairView, PathView, SyncReport
from comfymodal.operations.views import run_view
from comfymodal.runs.ledger import Run
from comfymodal.storage.ends import end_from_dict

KEPT_PATHS = 200
"""How many paths of a run the ledger keeps; the run's outcome.json has them all."""

_WORST_FIRST = (130, 5, 4, 3, 2, 7, 1, 8, 6, 0)
"""Of several pairs: which exit code is the command's."""

_SETTLED = ("same", "adopt", "only_here", "only_there", "kept")

_KEPT = (
    *("status", "error", "container", "started_at", "ended_at", "mode", "here", "there"),
    *("plan", "copied_files", "copied_bytes", "rclone_s"),
)


@dataclass(frozen=True, slots=True)
class SyncEnding(Deaf):
    """Fulfils `ending.Ending`."""

    def summary(self, outcome: Outcome) -> dict[str, Any]:
        paths = sorted(outcome.get("paths") or (), key=_rank)
        told = [path for path in paths if path["action"] not in _SETTLED]
        copying = outcome.get("rclone_s")
        return {
            **{key: outcome.get(key) for key in _KEPT},
            "phases": {"copy": copying} if copying else {},
            "paths": told[:KEPT_PATHS],
            "paths_left_out": max(0, len(told) - KEPT_PATHS),
        }

    def lost(self, run: Run, context: Context) -> Outcome:
        error = TransferError(
            f"sync run {run.id} ended without a word: its process was killed; what it finished is in place",
            hint=f"run it again, it goes on: comfymodal runs again {run.id}",
        )
        return {"status": "partial", "error": error.to_dict(), "ended_at": time.time()}

    def finish(
        self, run: Run, outcome: Outcome, context: Context, desk: Desk, *, is_download: bool = True
    ) -> SyncReport:
        if outcome["status"] == "cancelled" and not outcome.get("error"):
            outcome = {**outcome, "error": _stopped(run, outcome).to_dict()}
        note_end(run, outcome, self.summary(outcome), context)
        return _report(context.ledger.get(run.id), outcome)

    def report(self, run: Run) -> SyncReport:
        return _report(run, run.result or {})


def failed_pair(name: str, job: Mapping[str, Any], error: ComfymodalError) -> SyncReport:
    """Of a pair that could not even be handed over."""
    told = error.to_dict()
    view = _pair(name, job, {"status": "failed", "error": told}, None, error.exit_code)
    return SyncReport(None, (view,), (), told, error.exit_code)


def merged(reports: Sequence[SyncReport]) -> SyncReport:
    """Several pairs as one result; the worst of them gives the exit code and the error."""
    if len(reports) == 1:
        return reports[0]
    worst = min(reports, key=lambda report: _WORST_FIRST.index(report.exit_code))
    return SyncReport(
        run=None,
        pairs=tuple(pair for report in reports for pair in report.pairs),
        paths=tuple(path for report in reports for path in report.paths),
        error=worst.error,
        exit_code=worst.exit_code,
    )


def _report(run: Run, result: Mapping[str, Any]) -> SyncReport:
    job, error = run.request["job"], result.get("error")
    name = shown_name(job)
    code = exit_code_of(run.status, error) or _code_of_plan(job["mode"], result)
    view = _pair(name, job, {**result, "status": run.status}, run_view(run), code)
    return SyncReport(view["run"], (view,), tuple(_paths(name, result)), error, code)


def _pair(name: str, job: Mapping[str, Any], result: Mapping[str, Any], run: RunView | None, code: int) -> PairView:
    plan = result.get("plan") or {}
    seconds, copied = result.get("rclone_s"), int(result.get("copied_bytes") or 0)
    return {
        "name": name,
        "from": job["pair"]["from"],
        "to": job["pair"]["to"],
        "here": str(result.get("here") or end_from_dict(job["here"])),
        "there": str(result.get("there") or end_from_dict(job["there"])),
        "direction": job["direction"],
        "mode": job["mode"],
        "status": str(result["status"]),
        "run": run,
        "files": {side: int(plan[f"{side}_files"]) for side in ("here", "there")} if plan else {},
        "counts": plan.get("counts") or {},
        "copy_files": int(plan.get("copy_files") or 0),
        "copy_bytes": int(plan.get("copy_bytes") or 0),
        "copied_files": int(result.get("copied_files") or 0),
        "copied_bytes": copied,
        "seconds": seconds,
        "bytes_per_s": round(copied / seconds) if seconds and copied else None,
        "eta_s": None,
        "is_in_step": _is_in_step(job["mode"], plan, result),
        "cost": None,
        "notices": list(plan.get("notices") or ()),
        "paths_left_out": int(result.get("paths_left_out") or 0),
        "error": result.get("error"),
        "exit_code": code,
    }


def _is_in_step(mode: str, plan: Mapping[str, Any], result: Mapping[str, Any]) -> bool | None:
    """Whether both sides are in step now: a run that did all there was to do brought them there."""
    if not plan:
        return None
    return bool(plan.get("is_in_step")) or (mode == "run" and result.get("status") == "succeeded")


def _code_of_plan(mode: str, result: Mapping[str, Any]) -> int:
    plan = result.get("plan")
    if mode == "run" or not plan:
        return 0
    if mode == "status":
        return 0 if plan["is_in_step"] else 6
    counts = plan["counts"]
    return 6 if counts.get("conflict") or counts.get("refused") else 0


def _paths(name: str, result: Mapping[str, Any]) -> list[PathView]:
    return [
        {
            "pair": name,
            "path": path["path"],
            "action": path["action"],
            "result": path.get("result") or _result_of(path["action"]),
            "size_bytes": path["size_bytes"],
            "why": path.get("why") or "",
            "verified": path.get("verified"),
            "direction": path.get("direction"),
            "keep_as": path.get("keep_as"),
        }
        for path in result.get("paths") or ()
    ]


def _result_of(action: str) -> str | None:
    """What is known of a path that was only planned."""
    return {"same": "same", "adopt": "same", "conflict": "conflict"}.get(action)


def _rank(path: Mapping[str, Any]) -> int:
    """What the operator has to do something about comes first."""
    if path.get("result") == "failed" or path["action"] in ("conflict", "refused"):
        return 0
    return 1


def _stopped(run: Run, outcome: Outcome) -> CancelledError:
    plan = outcome.get("plan") or {}
    name = run.request["job"]["pair"]["name"]
    told = f"{outcome.get('copied_files') or 0} of {plan.get('copy_files') or 0} files were copied"
    again = f"comfymodal sync {name}" if name else f"comfymodal runs again {run.id}"
    return CancelledError(f"the sync was stopped; {told}", hint=f"run it again, it goes on: {again}")
