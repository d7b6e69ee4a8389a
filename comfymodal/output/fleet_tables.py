"""What a person reads of what lives on Modal, as lines of columns; pure."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any

from comfymodal.operations.fleet_results import (
    ContainerView,
    FleetStatus,
    FleetStopped,
    KeptWarm,
    LogLineView,
    LogShown,
    ShellPlan,
    StartView,
    WarmthEnded,
)
from comfymodal.output.words import count, harmless, seconds_in_words

Rows = list[tuple[str, ...]]

STATUS_TITLES = ("", "which", "how")

_DEPLOYED = {
    "current": "deployed, as comfymodal.yaml says",
    "differs": "deployed, but not what comfymodal.yaml says: comfymodal deploy",
    "unfinished": "a deploy did not end well: comfymodal deploy",
    "no": "not deployed: comfymodal deploy",
}


def fleet_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows of a result about what lives on Modal; None for any other result."""
    titles: tuple[str, ...] = ()
    match result:
        case FleetStatus():
            titles, rows = STATUS_TITLES, _status_rows(result)
        case FleetStopped():
            rows = _stopped_rows(result)
        case KeptWarm():
            rows = [(_kept(result),)]
        case WarmthEnded():
            rows = [(_ended(result),)]
        case LogShown():
            rows = [(log_text(line),) for line in result.lines]
        case ShellPlan():
            rows = [(shlex.join(result.argv),)]
        case _:
            return None
    return titles, rows


def log_text(line: LogLineView) -> str:
    """`2026-11-21 13:20:01.123  ta-...  text`; the text alone where nobody noted a time."""
    text = harmless(line.text)
    if line.at is None:
        return text
    return f"{line.at.replace('T', ' ').removesuffix('Z')}  {line.container_id or '-'}  {text}"


def shell_lines(plan: ShellPlan) -> tuple[str, ...]:
    """What is said before a shell opens."""
    return (*plan.notes, f"{plan.per_hour}; {plan.ends}")


def _status_rows(status: FleetStatus) -> Rows:
    when = f" ({_when(status.deployed_at)})" if status.deployed_at else ""
    rows: Rows = [("app", status.app, _DEPLOYED[status.deployed] + when)]
    rows += [
        ("differs", drift.key, f"{drift.deployed or '-'} -> {drift.wanted or '-'}  ({drift.effect})")
        for drift in status.drift
    ]
    rows += [("container", view.id, _container(view)) for view in status.containers]
    rows.append(("costs now", status.per_hour, f"ends it: {status.end_command}" if status.end_command else ""))
    if status.is_warm_overdue:
        rows.append(("warning", f"kept warm beyond {_when(status.warm_until)}", "ends it: comfymodal warm --off"))
    elif status.warm_until:
        rows.append(("kept warm", f"until {_when(status.warm_until)}", "sooner: comfymodal warm --off"))
    rows += [
        ("starts", name, _start(start))
        for name, start in (("cold", status.cold), ("warm", status.warm))
        if start is not None
    ]
    return rows


def _container(view: ContainerView) -> str:
    age = "" if view.age_s is None else f"up {seconds_in_words(view.age_s)}"
    return ", ".join(part for part in (view.gpu or "GPU unknown", view.per_hour or "", age, view.why) if part)


def _start(start: StartView) -> str:
    return f"{seconds_in_words(start.seconds)} to the first node (median of {count(start.runs, 'run')})"


def _stopped_rows(result: FleetStopped) -> Rows:
    if not result.apps:
        return [("nothing of comfymodal is deployed, and nothing bills",)]
    word = "would stop" if result.is_dry_run else "stopped"
    price = f", {result.per_hour}" if result.containers else ""
    rows: Rows = [(f"{word} {', '.join(result.apps)} ({count(len(result.containers), 'container')}{price})",)]
    rows += [(f"  {view.id}  {_container(view)}",) for view in result.containers]
    if result.is_dry_run:
        return rows
    for run_id in result.asked:
        is_late = run_id in result.unfinished
        said = "had not ended; what it had committed" if is_late else "ended; what is finished"
        rows.append((f"run {run_id} {said}: comfymodal runs fetch {run_id}",))
    rows.append(("the image is kept: the next render deploys again, without building",))
    return rows


def _kept(kept: KeptWarm) -> str:
    word = "would keep" if kept.is_dry_run else "keeps"
    ends = f"until {_when(kept.until)}, also when this machine is off"
    return (
        f"{word} {count(kept.containers, 'container')} on {kept.gpu} warm {ends}: about {kept.cost} ({kept.per_hour})"
    )


def _ended(ended: WarmthEnded) -> str:
    if ended.until is None:
        return "nothing was kept warm"
    word = "would end" if ended.is_dry_run else "ended"
    return f"{word} what was kept warm until {_when(ended.until)}; idle containers end within {_s(ended)}"


def _s(ended: WarmthEnded) -> str:
    return f"{ended.scaledown_window_s:.0f} s"


def _when(iso: str | None) -> str:
    """The operator's own clock: it is about when to be back."""
    if iso is None:
        return "an unknown time"
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M %Z")
