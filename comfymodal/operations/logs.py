"""`comfymodal logs`: what Modal and ComfyUI said, of the whole app or of one run; also after Modal has dropped it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comfymodal.errors import NotFoundError, NotReadyError, ServiceError, UsageError
from comfymodal.jobs.contract import LOG_FILE, RUNS_FOLDER, run_folder
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.fleet_results import LogLineView, LogShown
from comfymodal.operations.views import iso_time
from comfymodal.runs.ledger import Run

if TYPE_CHECKING:
    from comfymodal.targets.modal.logs import LogLine, RunScope
    from comfymodal.targets.spec import ModalSpec

FOLLOW_EVERY_S = 1.0
OVERLAP_S = 20.0
"""Lines reach Modal's log late and out of order: each look goes back so far."""

LATE_S = 3.0
"""How long after the end of a run its last lines may come."""

PATIENCE_S = 60.0
"""How long Modal may be silent while a log is followed."""

SKEW_S = 5.0
"""Modal's clock and a container's need not agree."""

TAIL_S = 60.0
"""So long after a run its call may still say something."""

SEARCHED_S = 24 * 3600.0
"""How far back is searched without --since."""


@dataclass(frozen=True, slots=True)
class LogRequest:
    """`run`: an id, the beginning of one, or `last`; None for the whole app. `since_s`: no farther back than that."""

    run: str | None
    since_s: float | None
    grep: str | None
    count: int


@dataclass(frozen=True, slots=True)
class OpenLog:
    """A log with its last lines, and those that come from now on: until the run ends, without one for ever."""

    shown: LogShown
    follow: Callable[[], Iterator[LogLineView]]


def open_log(request: LogRequest, context: Context, desk: Desk) -> OpenLog:
    """Read the log. Raises `NotFoundError` when nobody has it any more, `NotReadyError` when nobody has it yet."""
    if request.run is None:
        return _open_app(request, context)
    run = _find_run(request.run, context)
    if isinstance(run, Run):
        context = context.at_target_of(run)
        if context.project.target == "local":
            return _open_local(run, request, context)
    return _open_on_modal(run, request, context.modal_spec(), desk)


def _open_app(request: LogRequest, context: Context) -> OpenLog:
    if context.project.target != "modal":
        raise UsageError(
            "which run? comfymodal logs RUN", hint="of the ComfyUI on this machine: comfymodal engine logs"
        )
    from comfymodal.targets.modal.logs import ProjectLogs
    from comfymodal.targets.modal.session import connect

    spec = context.modal_spec()
    connect(spec.workspace)
    now = time.time()
    reach_s = request.since_s or (SEARCHED_S if request.grep else None)
    logs = ProjectLogs(spec)
    first = logs.app_lines(since=None if reach_s is None else now - reach_s, count=request.count)
    follower = Follower(first, lambda since: logs.app_lines(since=since, count=request.count), now)
    return _open(None, first, request, lambda: follower.follow(lambda: False))


def _open_on_modal(run: Run | str, request: LogRequest, spec: ModalSpec, desk: Desk) -> OpenLog:
    from comfymodal.targets.modal.calls import state_of
    from comfymodal.targets.modal.logs import ProjectLogs, kept_log
    from comfymodal.targets.modal.session import connect

    connect(spec.workspace)
    run_id = run if isinstance(run, str) else run.id
    logs = ProjectLogs(spec)

    def is_over() -> bool:
        call_id = _scope(run, spec).call_id
        return not call_id or not state_of(call_id, wait_s=0.1).is_running

    def read(since: float) -> list[LogLine]:
        # Asked for each time: it may have been waiting for a container, or lost one.
        scope, now = _scope(run, spec), time.time()
        until = now if scope.ended_at is None else min(now, scope.ended_at + TAIL_S)
        return logs.run_lines(scope, since=max(since, scope.started_at - SKEW_S), until=until)

    first = read(0.0)
    if not first and is_over():
        text = kept_log(spec, f"{RUNS_FOLDER}/{run_id}/{LOG_FILE}")
        if text is None:
            raise NotFoundError(
                f"Modal has no log of run {run_id} any more, and the run kept none",
                hint=f"how it ended: comfymodal runs show {run_id}",
            )
        desk.warn(f"Modal has dropped the log of run {run_id}; this is what the run kept beside its outputs")
        return _open_text(run_id, text, request)
    follower = Follower(first, read, 0.0)
    return _open(run_id, first, request, lambda: follower.follow(is_over))


def _open_local(run: Run, request: LogRequest, context: Context) -> OpenLog:
    path = run_folder(context.local.volumes, run.id) / LOG_FILE
    try:
        text = path.read_text("utf-8", "replace")
    except OSError as exc:
        if run.is_active:
            raise NotReadyError(
                f"run {run.id} keeps its log when it ends", hint="meanwhile: comfymodal engine logs --follow"
            ) from exc
        raise NotFoundError(f"run {run.id} has no log in {path.parent}", hint="comfymodal engine logs") from exc
    return _open_text(run.id, text, request)


def _open_text(run_id: str, text: str, request: LogRequest) -> OpenLog:
    lines = [LogLineView(None, None, None, line) for line in text.splitlines()]
    chosen = tuple(line for line in lines if is_wanted(line.text, request.grep))[-request.count :]
    return OpenLog(LogShown(run_id, "kept", chosen), lambda: iter(()))


def _open(
    run_id: str | None,
    first: Sequence[LogLine],
    request: LogRequest,
    follow: Callable[[], Iterator[LogLine]],
) -> OpenLog:
    earliest = time.time() - request.since_s if request.since_s else 0.0
    chosen = [line for line in first if is_wanted(line.text, request.grep) and line.at >= earliest]
    shown = LogShown(run_id, "modal", tuple(view_of(line) for line in chosen[-request.count :]))
    return OpenLog(shown, lambda: (view_of(line) for line in follow() if is_wanted(line.text, request.grep)))


@dataclass(slots=True)
class Follower:
    """Reads a log again and again, and gives each line once. `read` gives all lines since a time (Unix seconds)."""

    first: Sequence[LogLine]
    read: Callable[[float], Sequence[LogLine]]
    since: float
    every_s: float = FOLLOW_EVERY_S
    late_s: float = LATE_S
    patience_s: float = PATIENCE_S

    def follow(self, is_over: Callable[[], bool]) -> Iterator[LogLine]:
        """Lines that were not among the first ones; ends when it is over and the last lines had time to come.

        Raises `ServiceError` when nobody answers for `patience_s`.
        """
        seen = Counter(self.first)
        newest = max((line.at for line in self.first), default=self.since)
        is_last, silent_since = False, None
        while not is_last:
            since = newest - OVERLAP_S
            try:
                is_last = is_over()
                time.sleep(self.late_s if is_last else 0)
                lines = self.read(since)
                silent_since = None
            except ServiceError:
                is_last, lines = False, []
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since >= self.patience_s:
                    raise
            now: Counter[LogLine] = Counter()
            for line in lines:
                now[line] += 1
                if now[line] > seen[line]:
                    yield line
                newest = max(newest, line.at)
            # What is older than the next look comes no more.
            seen = Counter({line: count for line, count in (seen | now).items() if line.at >= since})
            time.sleep(0 if is_last else self.every_s)


def view_of(line: LogLine) -> LogLineView:
    return LogLineView(iso_time(line.at), line.container_id or None, line.source, line.text)


def is_wanted(text: str, grep: str | None) -> bool:
    return grep is None or grep in text


def _find_run(name: str, context: Context) -> Run | str:
    """The run of this machine's ledger; of another machine's, its whole id if the board knows it."""
    try:
        return context.ledger.get(name)
    except NotFoundError:
        if context.project.target != "modal":
            raise
        from comfymodal.targets.modal.logs import find_scope
        from comfymodal.targets.modal.session import connect

        spec = context.modal_spec()
        connect(spec.workspace)
        if find_scope(spec, name) is None:
            raise
        return name


def _scope(run: Run | str, spec: ModalSpec) -> RunScope:
    """Where the run is: the board knows best, the ledger longest."""
    from comfymodal.targets.modal.logs import RunScope, find_scope, scope_from

    found = find_scope(spec, run if isinstance(run, str) else run.id)
    if isinstance(run, str) or (found is not None and found.call_id):
        return found or RunScope("", "", 0.0, None)
    kept = scope_from(run.call_id, (run.result or {}).get("container"), {"ended_at": run.ended_at})
    return kept if kept.started_at else replace(kept, started_at=run.created_at)
