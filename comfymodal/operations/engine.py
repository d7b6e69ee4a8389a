"""`comfymodal engine status`, `start`, `stop` and `logs`: the ComfyUIs that we run on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from comfymodal.comfyui.ask import get_json
from comfymodal.comfyui.find import FoundEngine, find_engine
from comfymodal.comfyui.logs import follow_lines, read_last
from comfymodal.comfyui.running import Doing, RunningEngine, ask, list_running, read_running
from comfymodal.comfyui.supervisor import LOG_FILE, PREVIOUS_LOG_FILE
from comfymodal.comfyui.warm import engine_folder, stop_warm
from comfymodal.errors import CancelledError, NotFoundError, NotReadyError, ServiceError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.engine_install import list_views
from comfymodal.operations.engine_results import (
    ChosenView,
    EngineLog,
    EnginesStopped,
    EngineStarted,
    EngineStatus,
    RunningView,
)
from comfymodal.operations.ready import ready_engine
from comfymodal.operations.views import iso_time
from comfymodal.processes import memory_bytes

BOOTING_S = 60.0
"""A log may be followed before its engine is there: this long after it was begun."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A running engine and what it answered."""

    engine: RunningEngine
    doing: Doing


def engine_status(context: Context) -> EngineStatus:
    """Every engine that is installed, every one that runs, and which of them `render` would use; starts nothing."""
    problem = chosen = None
    try:
        if (found := _find(context)) is not None:
            chosen = _view_chosen(found)
    except NotReadyError as error:
        problem = error.to_dict()
    now = time.time()
    running = tuple(_view(seen, now) for seen in _look(context))
    return EngineStatus(chosen, problem, list_views(context.local.engines), running)


def start_engine(context: Context, desk: Desk) -> EngineStarted:
    """Warm up the ComfyUI that `render` would use here; asks before it installs one."""
    before = {engine.process for engine in list_running(context.local.state)}
    facts = ready_engine(context, desk)
    folder = _folder(context)
    engine = read_running(folder) if folder else None
    return EngineStarted(
        how=facts.how,
        version=facts.version,
        device=facts.device,
        url=facts.url,
        was_running=engine is None or engine.process in before,
        engine=_view(Seen(engine, ask(engine)), time.time()) if engine else None,
    )


def stop_engines(context: Context, desk: Desk, *, is_all: bool, is_dry_run: bool) -> EnginesStopped:
    """Stop this project's engine, or all; asks before it ends a prompt. Nothing running is no error."""
    everything = _look(context)
    folder = None if is_all else _folder_or_none(context)
    chosen = [seen for seen in everything if is_all or seen.engine.folder == folder]
    now = time.time()
    result = EnginesStopped(
        stopped=tuple(_view(seen, now) for seen in chosen),
        others=tuple(_view(seen, now) for seen in everything if seen not in chosen),
        is_dry_run=is_dry_run,
    )
    if is_dry_run:
        return result
    busy = [seen for seen in chosen if seen.doing.activity == "busy"]
    if busy and not desk.confirm(_question(busy, context)):
        raise CancelledError("nothing was stopped")
    for seen in chosen:
        desk.event({"type": "engine_stopping", "name": seen.engine.name})
        stop_warm(seen.engine.folder)
    return result


def engine_log(context: Context, desk: Desk, *, count: int, is_previous: bool) -> EngineLog:
    """The end of the engine's log, also of one that did not come up. Raises `NotFoundError` when none ever started."""
    folder = _logged_folder(context, desk)
    log = folder / (PREVIOUS_LOG_FILE if is_previous else LOG_FILE)
    if not log.exists():
        raise NotFoundError(
            f"there is no {'previous ' if is_previous else ''}log in {folder}", hint="comfymodal engine start"
        )
    return EngineLog(_name(folder), str(log), read_last(log, count), is_running=read_running(folder) is not None)


def follow_log(log: EngineLog) -> Iterator[str]:
    """What is written from now on; ends when the engine does."""
    path = Path(log.path)
    began = time.time()

    def is_alive() -> bool:
        return read_running(path.parent) is not None or (not log.is_running and time.time() - began < BOOTING_S)

    return follow_lines(path, is_alive=is_alive)


def _find(context: Context) -> FoundEngine | None:
    return find_engine(context.local.engine, engines=context.local.engines, environ=context.environ)


def _folder(context: Context) -> Path | None:
    """Where this project's engine keeps its files; None when the ComfyUI used here is not ours."""
    found = _find(context)
    return engine_folder(context.local.state, found.launch) if found and found.launch else None


def _folder_or_none(context: Context) -> Path | None:
    try:
        return _folder(context)
    except NotReadyError:
        # What it names is gone; an engine of it may still run, and `--all` finds it.
        return None


def _logged_folder(context: Context, desk: Desk) -> Path:
    own = _folder_or_none(context)
    if own is not None and (own / LOG_FILE).exists():
        return own
    logs = (context.local.state / "engines").glob(f"*/{LOG_FILE}")
    newest = max(logs, key=lambda log: log.stat().st_mtime, default=None)
    if newest is None:
        raise NotFoundError("no engine was ever started here", hint="comfymodal engine start")
    desk.warn(f"this project's engine has no log; this is the newest one, of {_name(newest.parent)}")
    return newest.parent


def _name(folder: Path) -> str:
    return folder.name.rpartition("-")[0]


def _look(context: Context) -> list[Seen]:
    return [Seen(engine, ask(engine)) for engine in list_running(context.local.state)]


def _question(busy: list[Seen], context: Context) -> Question:
    runs = {
        prompt["prompt_id"]: run
        for run in context.ledger.newest(limit=50)
        if run.is_active
        for prompt in run.request["job"]["prompts"]
    }
    details = []
    for seen in busy:
        prompts = [
            f"run {runs[prompt].id} ({runs[prompt].title})" if prompt in runs else f"prompt {prompt}"
            for prompt in seen.doing.running
        ]
        waiting = f", and {seen.doing.pending} waiting" if seen.doing.pending else ""
        details.append(f"{seen.engine.name} (pid {seen.engine.process.pid}) renders {', '.join(prompts)}{waiting}")
    return Question("the engine is busy; stopping it ends what it renders", tuple(details), "Stop it?")


def _view_chosen(found: FoundEngine) -> ChosenView:
    if found.launch is not None:
        return ChosenView(found.how, found.launch.name.removeprefix("comfyui-"), None, found.launch.cwd)
    try:
        version = str((get_json(str(found.url), "/system_stats").get("system") or {}).get("comfyui_version"))
    except ServiceError:
        version = None
    return ChosenView(found.how, version, found.url, None)


def _view(seen: Seen, now: float) -> RunningView:
    engine, doing = seen.engine, seen.doing
    uptime_s = max(0.0, now - engine.process.created)
    is_counting = doing.activity in ("idle", "silent")
    idle_left_s = engine.idle_left_s(now) if is_counting else None
    return RunningView(
        name=engine.name,
        version=engine.name.removeprefix("comfyui-"),
        activity=doing.activity,
        pid=engine.process.pid,
        url=engine.url,
        port=urlsplit(engine.url).port,
        device=doing.device,
        memory_bytes=memory_bytes(engine.process),
        started_at=iso_time(engine.process.created),
        uptime_s=round(uptime_s, 1),
        idle_stop_s=engine.idle_stop_s,
        idle_left_s=None if idle_left_s is None else round(idle_left_s, 1),
        prompts=doing.running,
        pending=doing.pending,
        is_supervised=engine.supervisor is not None,
        log=str(engine.log),
    )
