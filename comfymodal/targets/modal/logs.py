"""Lines of Modal's logs: of the whole app, or of one run with everything its container said meanwhile."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import modal
import modal.exception as me
from modal.types import LogEntry

from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.names import app_name, app_names, board_name
from comfymodal.targets.modal.volumes import Volumes
from comfymodal.targets.spec import ModalSpec

SPAN_S = 34 * 86400.0
"""Modal refuses a look farther back than 35 days."""

LAG_S = 0.5
"""ComfyUI's lines are read from its log file five times a second: the last one may come after the run's end."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `at` is Unix seconds, `call_id` empty when it belongs to no call: said by a process beside it."""

    at: float
    container_id: str
    call_id: str
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class RunScope:
    """Where and when a run was. Times are Unix seconds; `ended_at` None while it goes on."""

    call_id: str
    container_id: str
    started_at: float
    ended_at: float | None

    def has(self, line: LogLine) -> bool:
        """Whether a container's line that belongs to no call is this run's."""
        is_during = self.started_at <= line.at and (self.ended_at is None or line.at <= self.ended_at + LAG_S)
        return line.container_id == self.container_id != "" and not line.call_id and is_during


class ProjectLogs:
    """Modal's logs of a project's apps, which are looked up once: a log that is followed is read each second."""

    def __init__(self, spec: ModalSpec) -> None:
        self._spec = spec
        self._apps: list[modal.App] = []

    def app_lines(self, *, since: float | None, count: int) -> list[LogLine]:
        """Lines of the apps since then, or of each the last `count`, in time order.

        Raises `NotFoundError` when nothing is deployed.
        """
        name = app_name(self._spec.project)
        with translated(f"cannot read the log of {name}"):
            apps = self._live_apps() or [modal.App.lookup(name, environment_name=self._spec.environment)]
            lines = [
                line
                for app in apps
                for line in lines_of(app.logs.tail(count) if since is None else app.logs.fetch(since=_as_time(since)))
            ]
        return sorted(lines, key=lambda line: line.at)

    def run_lines(self, scope: RunScope, *, since: float, until: float) -> list[LogLine]:
        """A run's lines in time order: those of its call, and what its container said meanwhile.

        None: it said nothing yet, or Modal dropped them.
        """
        first, last = _as_time(max(since, until - SPAN_S)), _as_time(until)
        with translated("cannot read the run's log"):
            try:
                call = modal.FunctionCall.from_id(scope.call_id) if scope.call_id else None
                own = lines_of(call.logs.fetch(since=first, until=last)) if call else []
            except (me.NotFoundError, me.LogsFetchError):
                own = []
            beside: list[LogLine] = []
            for app in self._live_apps():
                with contextlib.suppress(me.NotFoundError, me.LogsFetchError):
                    # What belongs to a call is in the call's own log already.
                    beside += [line for line in lines_of(app.logs.fetch(since=first, until=last)) if scope.has(line)]
        return sorted([*own, *beside], key=lambda line: line.at)

    def _live_apps(self) -> list[modal.App]:
        """Those of the project that are deployed. Raises Modal's exceptions."""
        if not self._apps:
            for name in app_names(self._spec.project):
                with contextlib.suppress(me.NotFoundError):
                    self._apps.append(modal.App.lookup(name, environment_name=self._spec.environment))
        return self._apps


def find_scope(spec: ModalSpec, run_id: str) -> RunScope | None:
    """Where a run is, from the board; None before a container took it, and long after."""
    with translated("cannot look for the run"):
        entry = Board(board_name(spec.project), spec.environment).read(run_id)
    return scope_from(entry.get("call_id"), entry.get("container"), entry.get("outcome")) if entry else None


def scope_from(call_id: object, container: object, outcome: object) -> RunScope:
    """Of a container's own words. What was said while it started belongs to its first run."""
    facts = container if isinstance(container, dict) else {}
    ended = outcome if isinstance(outcome, dict) else {}
    began = facts.get("container_started_at") if facts.get("is_first") else facts.get("started_at")
    ended_at = facts.get("ended_at") or ended.get("ended_at")
    return RunScope(
        call_id=str(call_id or ""),
        container_id=str(facts.get("container_id") or ""),
        started_at=float(began or 0.0),
        ended_at=float(ended_at) if ended_at else None,
    )


def kept_log(spec: ModalSpec, file: str) -> str | None:
    """What the run itself kept on the outputs volume; None when there is nothing."""
    found = Volumes(spec).read("outputs", file)
    return None if found is None else found.decode("utf-8", "replace")


def lines_of(entries: Iterable[LogEntry]) -> list[LogLine]:
    """An entry may hold several lines, and colours."""
    found = []
    for entry in entries:
        ids = [entry.object_id, *entry.context_ids]
        container = next((one for one in ids if one.startswith("ta-")), "")
        call = next((one for one in ids if one.startswith("fc-")), "")
        at = entry.timestamp.timestamp()
        found += [
            LogLine(at, container, call, entry.source, text)
            for text in _LINE_END.split(_ANSI.sub("", entry.message).rstrip("\r\n"))
        ]
    return found


def _as_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
