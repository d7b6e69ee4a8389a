"""What a person reads of `engine` commands, as lines of columns; pure."""

from __future__ import annotations

from typing import Any

from comfymodal.operations.engine_results import (
    EngineInstalled,
    EngineInstallPlanned,
    EngineLog,
    EnginesRemoved,
    EnginesStopped,
    EngineStarted,
    EngineStatus,
    InstalledView,
    RunningView,
)
from comfymodal.output.words import bytes_in_words, home_path, seconds_in_words

Rows = list[tuple[str, ...]]
STATUS_TITLES = ("", "version", "is", "size", "device", "where")


def engine_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows of a result of `engine`; None for any other result."""
    titles: tuple[str, ...] = ()
    match result:
        case EngineStatus():
            titles, rows = STATUS_TITLES, _status_rows(result)
        case EngineInstalled():
            before = ", as before" if result.was_there else ""
            rows = [(f"ComfyUI {result.engine.version} is in {home_path(result.engine.path)}{before}",)]
        case EngineInstallPlanned():
            rows = _plan_rows(result)
        case EngineStarted():
            rows = [(_started(result),)]
        case EnginesStopped():
            rows = _stopped_rows(result)
        case EnginesRemoved():
            rows = _removed_rows(result)
        case EngineLog():
            rows = [(line,) for line in result.lines]
        case _:
            return None
    return titles, rows


def _status_rows(status: EngineStatus) -> Rows:
    rows: Rows = [_installed_row(view) for view in status.installed]
    rows += [
        (
            "running",
            view.version,
            view.activity,
            _memory(view),
            view.device or "",
            f"{view.url} ({_pid_and_times(view)})",
        )
        for view in status.running
    ]
    rows.append(("used here", *_used(status)))
    return rows


def _installed_row(view: InstalledView) -> tuple[str, ...]:
    is_whole = view.state == "installed"
    origin = view.source if is_whole and view.source else view.state
    where = home_path(view.path) if is_whole else f"{home_path(view.path)} (comfymodal engine remove {view.version})"
    return ("installed", view.version, origin, bytes_in_words(view.size_bytes), view.device or "", where)


def _used(status: EngineStatus) -> tuple[str, ...]:
    chosen, problem = status.chosen, status.problem
    if problem is not None:
        return "", "none", "", "", f"{problem['message']}; {problem['hint']}"
    if chosen is None:
        return "", "none", "", "", "no ComfyUI here yet; comfymodal engine install"
    is_listed = any((chosen.path or "").startswith(view.path) for view in status.installed)
    where = "" if is_listed else chosen.url or home_path(chosen.path or "")
    return chosen.version or "", chosen.how, "", "", where


def _pid_and_times(view: RunningView) -> str:
    parts = [f"pid {view.pid}", f"up {seconds_in_words(view.uptime_s)}"]
    if view.pending:
        parts.append(f"{view.pending} waiting")
    if view.idle_left_s is not None:
        parts.append(f"stops in {seconds_in_words(view.idle_left_s)}")
    elif view.idle_stop_s is None:
        parts.append("never stops by itself")
    if not view.is_supervised:
        parts.append("unwatched until the next command")
    return ", ".join(parts)


def _memory(view: RunningView) -> str:
    return "" if view.memory_bytes is None else bytes_in_words(view.memory_bytes)


def _plan_rows(plan: EngineInstallPlanned) -> Rows:
    rows: Rows = [("install", f"ComfyUI {plan.version} ({plan.source})")]
    if plan.repository:
        rows.append(("from", f"{plan.repository}, tag {plan.tag} (commit {(plan.commit or '')[:8]})"))
    rows += [
        ("device", "CPU" if plan.torch_build == "cpu" else plan.torch_build.upper()),
        ("download", f"about {bytes_in_words(plan.download_bytes)}"),
        ("disk", f"about {bytes_in_words(plan.disk_bytes)}"),
        ("into", home_path(plan.path)),
    ]
    return rows


def _started(started: EngineStarted) -> str:
    if started.engine is None:
        return f"ComfyUI {started.version} on {started.device} runs at {started.url} ({started.how}); it is not ours"
    word = "runs already" if started.was_running else "is ready"
    pid = started.engine.pid
    return f"ComfyUI {started.version} on {started.device} {word} at {started.url} ({started.how}, pid {pid})"


def _stopped_rows(result: EnginesStopped) -> Rows:
    word = "would stop" if result.is_dry_run else "stopped"
    free = "" if result.is_dry_run else " are free again"
    rows: Rows = [
        (f"{word} {view.name} (pid {view.pid}), {_memory(view) or 'its memory'}{free}",) for view in result.stopped
    ]
    if not result.stopped:
        rows.append(("no engine of this project is running" if result.others else "no engine is running",))
    rows += [
        (f"{view.name} (pid {view.pid}) has other settings and runs on: comfymodal engine stop --all",)
        for view in result.others
    ]
    return rows


def _removed_rows(result: EnginesRemoved) -> Rows:
    word = "would remove" if result.is_dry_run else "removed"
    rows: Rows = [
        (f"{word} ComfyUI {view.version} ({view.state}), {bytes_in_words(view.size_bytes)}, {home_path(view.path)}",)
        for view in result.removed
    ]
    return rows or [("no engine is installed",)]
