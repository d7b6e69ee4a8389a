"""What is told of a run that has ended: its facts from the ledger, its first picture, the end of its log."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comfymodal.costs.rates import money_text
from comfymodal.jobs.contract import LOG_FILE, RUNS_FOLDER
from comfymodal.notify.message import Event, Notification, Picture
from comfymodal.notify.thumbnail import thumbnail
from comfymodal.operations.context import Context
from comfymodal.operations.ending import ending_of
from comfymodal.operations.notify import within_patience
from comfymodal.operations.views import iso_time, run_view
from comfymodal.runs.ledger import Run

MOST_NAMES = 20
LOG_LINES, _MOST_LOG_BYTES = 20, 4000


def wanted_event(run: Run) -> Event | None:
    """None for what nobody needs to be told: a run that somebody stopped, a sync that only looked."""
    if run.is_active or _only_looked(run):
        return None
    if run.status == "succeeded":
        return "finished"
    error = _error(run)
    by_somebody = error is None or error.get("code") == "cancelled"
    return None if run.status == "cancelled" and by_somebody else "failed"


def _only_looked(run: Run) -> bool:
    return run.kind == "sync" and run.request["job"].get("mode", "run") != "run"


def notification_of(run: Run, event: Event, context: Context, *, with_picture: bool) -> Notification:
    """All that is known of it. Never raises for a log or a picture that cannot be had, nor waits long for them."""
    view = run_view(run)
    keys = ("id", "kind", "status", "target", "title", "seconds", "cost")
    facts = {**{key: getattr(view, key) for key in keys}, "gpu": (run.rate or {}).get("gpu") or None}
    outputs = (run.result or {}).get("outputs")
    names = [Path(str(each["path"])).name for each in outputs or ()]
    error = _error(run)
    return Notification(
        event=event,
        project=context.project.project,
        at=iso_time(run.ended_at or run.created_at),
        run=facts,
        cost_text=_cost_text(run),
        summary=_summary(run),
        outputs={"count": len(names), "names": names[:MOST_NAMES]} if names else None,
        error={key: error.get(key) for key in ("code", "message", "hint")} if error else None,
        log_tail=within_patience(lambda: _log_tail(run, context)) if event == "failed" else None,
        next=_next(run, event, has_outputs=bool(names)),
        picture=_picture(outputs or (), is_last=run.kind == "train") if with_picture else None,
    )


def _error(run: Run) -> Any:
    return ending_of(run).report(run).error


def _cost_text(run: Run) -> str:
    if run.cost_nanodollars is not None:
        return money_text(run.cost_nanodollars)
    return "nothing is paid here" if run.target == "local" else "unknown"


def _summary(run: Run) -> str | None:
    result = run.result or {}
    if run.kind == "sync":
        return f"copied {result.get('copied_files') or 0} files, {int(result.get('copied_bytes') or 0):,} bytes"
    training = result.get("result") or {}
    if run.kind == "train" and training.get("steps"):
        return f"step {training.get('step')} of {training['steps']}"
    return None


def _next(run: Run, event: Event, *, has_outputs: bool) -> str:
    if event == "finished" and run.kind in ("render", "train") and not has_outputs:
        return f"comfymodal runs fetch {run.id}"
    return f"comfymodal runs show {run.id}"


def _picture(outputs: Sequence[Mapping[str, Any]], *, is_last: bool) -> Picture | None:
    found = [each for each in outputs if str(each.get("media_type")).startswith("image/")]
    if not found:
        return None
    # Of a training, the newest sample.
    path = Path(str(found[-1 if is_last else 0]["path"]))
    picture: Picture | None = within_patience(lambda: thumbnail(path, path.name))
    return picture


def _log_tail(run: Run, context: Context) -> str | None:
    """The last lines of what the run's ComfyUI said. Raises as `Target.fetch`."""
    if run.kind != "render":
        return None
    context = context.at_target_of(run)
    with tempfile.TemporaryDirectory(prefix="comfymodal-") as folder:
        log = Path(folder) / LOG_FILE
        context.target.fetch("outputs", f"{RUNS_FOLDER}/{run.id}/{LOG_FILE}", log, lambda there: None)
        text = log.read_text("utf-8", "replace")
    return "\n".join(text.splitlines()[-LOG_LINES:])[-_MOST_LOG_BYTES:] or None
