"""`comfymodal stop`: end the app, after which surely nothing bills; what runs may finish its last words first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from comfymodal.errors import CancelledError
from comfymodal.operations import fleet as fleet_views
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.fleet import NO_HELPERS, UNKNOWN, Priced
from comfymodal.operations.fleet_results import FleetStopped
from comfymodal.operations.money import ENDING_S
from comfymodal.targets.modal import fleet
from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.fleet import ContainerRun, LiveApp
from comfymodal.targets.modal.names import app_name, app_names, board_name
from comfymodal.targets.modal.session import connect
from comfymodal.targets.modal.warm import forget, read_warmth
from comfymodal.targets.spec import ModalSpec

PATIENCE_S = 15.0
"""How long runs that were asked to stop may take to commit what is finished."""

TRAINING_PATIENCE_S = 120.0
"""How long trainings may take to save: the step that is being worked on, the save, its way to the volume."""

SILENT_S = 25.0
"""A container that lives says so more often (`place.BEAT_EVERY_S`)."""

LOOK_EVERY_S = 0.5


def stop_fleet(context: Context, desk: Desk, *, is_all: bool, is_dry_run: bool) -> FleetStopped:
    """End this project's apps, or every app of comfymodal in the environment; asks. Nothing deployed is no error."""
    spec = context.modal_spec()
    connect(spec.workspace)
    own = app_names(spec.project)
    apps = [app for app in fleet.list_apps(spec.environment) if is_all or app.name in own]
    priced = _look(apps, spec, is_all=is_all)
    _, per_hour = fleet_views.total(priced)
    views = tuple(one.view for one in priced)
    names = tuple(app.name for app in apps)
    if is_dry_run or not apps:
        return FleetStopped(names, views, per_hour, (), (), is_dry_run)
    if not desk.confirm(_question(apps, priced, per_hour)):
        raise CancelledError("nothing was stopped")
    asked = {board: fleet.active_runs(board, spec.environment) for board in _boards(apps)}
    unfinished = _ask_to_stop(asked, spec.environment, desk)
    for app in apps:
        desk.event({"type": "app_stopping", "name": app.name})
        fleet.stop_app(app.name, spec.environment)
    if set(own) & set(names):
        context.ledger.end_containers(time.time() + ENDING_S)
    if app_name(spec.project) in names:
        forget(spec)
    everything = tuple(run.run_id for runs in asked.values() for run in runs)
    return FleetStopped(names, views, per_hour, everything, unfinished, is_dry_run)


def _look(apps: Sequence[LiveApp], spec: ModalSpec, *, is_all: bool) -> list[Priced]:
    own = {app.name: app for app in apps if app.name in app_names(spec.project)}
    render = own.get(app_name(spec.project))
    found = fleet_views.look_at(spec, render.id, read_warmth(spec)) if render is not None else []
    found += fleet_views.look_at_others(spec, {app.name: app.id for app in own.values() if app.containers})
    others = {app.name for app in apps if app.name not in own and app.containers}
    if not (is_all and others):
        return found
    containers = [one for one in fleet.list_containers(spec.environment) if one.app in others]
    ids = {one.id for one in containers}
    runs = {
        container_id: run
        for board in _boards([app for app in apps if app.name in others])
        for container_id, run in fleet.runs_in(board, spec.environment, ids).items()
    }
    return [*found, *fleet_views.explain(containers, runs, None, UNKNOWN, NO_HELPERS, now=time.time())]


def _question(apps: Sequence[LiveApp], priced: Sequence[Priced], per_hour: str) -> Question:
    names = ", ".join(app.name for app in apps)
    number = f"{len(priced)} container{'' if len(priced) == 1 else 's'}"
    details = [
        f"{one.view.id}  {one.view.gpu or 'unknown'}  {one.view.per_hour or ''}  {one.view.why}" for one in priced
    ]
    busy = [one.view for one in priced if one.view.does == "runs"]
    if busy:
        details.append("what runs is asked to stop; what is finished is kept for: comfymodal runs fetch")
    if any(view.app.endswith("-train") for view in busy):
        details.append(
            f"a training saves first, and is waited for up to {TRAINING_PATIENCE_S:.0f} s; it can be gone on with later"
        )
    details.append("the image is kept: the next render deploys again, without building")
    return Question(f"stop {names} ({number}, {per_hour})", tuple(details), "Stop it?")


def _boards(apps: Sequence[LiveApp]) -> list[str]:
    """Boards of the apps' projects: `comfymodal-<project>-<kind>` has `comfymodal-<project>`."""
    projects = {app.name.removeprefix(fleet.APP_PREFIX).rpartition("-")[0] for app in apps}
    return [board_name(project) for project in sorted(projects) if project]


def _ask_to_stop(asked: dict[str, list[ContainerRun]], environment: str | None, desk: Desk) -> tuple[str, ...]:
    """Ask every run to stop; return those that had not ended when patience did."""
    left = [_Asked(run, Board(board, environment)) for board, runs in asked.items() for run in runs]
    unfinished = []
    with translated("cannot ask the runs to stop"):
        for one in left:
            one.board.ask_to_stop(one.run.run_id)
        if left:
            desk.event({"type": "phase", "phase": "waiting for runs to keep what is finished"})
        while left:
            time.sleep(LOOK_EVERY_S)
            left = [one for one in left if not one.has_ended()]
            given_up = [one for one in left if one.is_given_up()]
            unfinished += [one.run.run_id for one in given_up]
            left = [one for one in left if one not in given_up]
    return tuple(unfinished)


@dataclass(slots=True, eq=False)
class _Asked:
    """A run that was asked to stop; times are monotonic seconds."""

    run: ContainerRun
    board: Board
    asked_at: float = field(default_factory=time.monotonic)
    heard_at: float = field(default_factory=time.monotonic)
    last_word: object = None

    def has_ended(self) -> bool:
        entry = self.board.read(self.run.run_id) or {}
        if entry.get("at") != self.last_word:
            self.last_word, self.heard_at = entry.get("at"), time.monotonic()
        return bool(entry.get("outcome"))

    def is_given_up(self) -> bool:
        patience_s = TRAINING_PATIENCE_S if self.run.kind == "train" else PATIENCE_S
        # One whose container is gone will never end.
        silent_s = time.monotonic() - self.heard_at
        return time.monotonic() - self.asked_at > patience_s or silent_s > SILENT_S
