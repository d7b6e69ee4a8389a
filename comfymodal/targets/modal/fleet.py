"""What of comfymodal lives on Modal right now: apps, containers, and what each container runs; and ending it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import modal
import modal.exception as me

from comfymodal.targets.modal.board import Board
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.modal_cli import ask_modal
from comfymodal.targets.modal.names import INSPECT_FUNCTION, KEEP_WARM_FUNCTION, LIST_MOUNTS_FUNCTION

APP_PREFIX = "comfymodal-"
OVER_STATES = ("stopped", "stopping...", "disabled")
"""Modal's words for apps that bill nothing any more."""

ENTRIES_READ = 60
"""How many of the newest runs are looked through for those that a container runs."""

READERS = 10


@dataclass(frozen=True, slots=True)
class LiveContainer:
    """A container that Modal bills. `started_at` (Unix seconds) None: it is being started."""

    id: str
    app: str
    started_at: float | None


@dataclass(frozen=True, slots=True)
class LiveApp:
    """An app that is deployed or runs."""

    id: str
    name: str
    containers: int


@dataclass(frozen=True, slots=True)
class ContainerRun:
    """The newest run of a container. `ended_at` None: it is at it. `gpu` and `memory_gib` are what a run asked for."""

    run_id: str
    container_id: str
    gpu: str | None
    started_at: float
    ended_at: float | None
    kind: str | None = None
    memory_gib: int | None = None


def list_containers(environment: str | None, *, app_id: str | None = None) -> list[LiveContainer]:
    """Containers of one app, or all of the environment, the oldest first. Raises `ServiceError`."""
    words = ["container", "list", *(["--app-id", app_id] if app_id else [])]
    return containers_in(ask_modal(words, environment=environment))


def containers_in(rows: Sequence[Mapping[str, Any]]) -> list[LiveContainer]:
    """Containers from the rows of `modal container list --json`; those that are being started come last."""
    found = [
        LiveContainer(str(row["container_id"]), str(row.get("app_name") or ""), _time(row.get("start_time")))
        for row in rows
    ]
    return sorted(found, key=lambda container: (container.started_at is None, container.started_at or 0.0))


def list_apps(environment: str | None) -> list[LiveApp]:
    """Every app of comfymodal in the environment that may still bill. Raises `ServiceError`."""
    return apps_in(ask_modal(["app", "list"], environment=environment))


def apps_in(rows: Sequence[Mapping[str, Any]]) -> list[LiveApp]:
    """Our apps from the rows of `modal app list --json`."""
    return [
        LiveApp(str(row["app_id"]), str(row["description"]), int(row.get("tasks") or 0))
        for row in rows
        if str(row.get("description")).startswith(APP_PREFIX) and row.get("state") not in OVER_STATES
    ]


def find_app(name: str, environment: str | None) -> str | None:
    """The id of a deployed app; None when there is none of that name. Raises `ServiceError`."""
    with translated(f"cannot look up the app {name}"):
        try:
            return str(modal.App.lookup(name, environment_name=environment).app_id)
        except me.NotFoundError:
            return None


def runs_in(board: str, environment: str | None, containers: Collection[str]) -> dict[str, ContainerRun]:
    """The newest run of each of these containers, by container id, as far as the board knows it."""
    found: dict[str, ContainerRun] = {}
    with translated("cannot read the board"):
        run_ids = _newest_runs(board, environment) if containers else []
        reader = Board(board, environment)
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(run_ids), READERS):
                batch = run_ids[start : start + READERS]
                for run_id, entry in zip(batch, pool.map(reader.read, batch), strict=True):
                    run = run_from(run_id, entry)
                    if run is not None and run.container_id in containers:
                        found.setdefault(run.container_id, run)
                if len(found) == len(containers):
                    break
    return found


def run_from(run_id: str, entry: Mapping[str, Any] | None) -> ContainerRun | None:
    """A board's entry; None for one that no container took."""
    container = (entry or {}).get("container") or {}
    if entry is None or not container.get("container_id"):
        return None
    outcome = entry.get("outcome")
    ended_at = float(outcome.get("ended_at") or container["started_at"]) if outcome else None
    job = entry.get("job") or {}
    return ContainerRun(
        run_id,
        str(container["container_id"]),
        job.get("gpu"),
        float(container["started_at"]),
        ended_at,
        job.get("kind"),
        job.get("memory_gib"),
    )


def active_runs(board: str, environment: str | None) -> list[ContainerRun]:
    """Runs that a container took and that have not ended, the newest first; of all machines."""
    with translated("cannot read the board"):
        run_ids = _newest_runs(board, environment)
        reader = Board(board, environment)
        with ThreadPoolExecutor(READERS) as pool:
            entries = list(pool.map(reader.read, run_ids))
    runs = [run_from(run_id, entry) for run_id, entry in zip(run_ids, entries, strict=True)]
    return [run for run in runs if run is not None and run.ended_at is None]


def count_helpers(app: str, environment: str | None) -> int:
    """How many CPU containers of the app live: Modal's list does not say which they are."""
    with translated("cannot ask what runs"):
        helpers = (INSPECT_FUNCTION, KEEP_WARM_FUNCTION, LIST_MOUNTS_FUNCTION)
        return sum(_count(app, name, environment) for name in helpers)


def stop_app(name: str, environment: str | None) -> bool:
    """End an app and every container of it; False when there was none. Only after this surely nothing bills."""
    with translated(f"cannot stop {name}"):
        try:
            modal.App.lookup(name, environment_name=environment).stop()
        except me.NotFoundError:
            return False
    return True


def _count(app: str, function: str, environment: str | None) -> int:
    try:
        found = modal.Function.from_name(app, function, environment_name=environment)
        return int(found.get_current_stats().num_total_runners)
    except me.NotFoundError:
        return 0


def _newest_runs(board: str, environment: str | None) -> list[str]:
    # Run ids begin with the time; values stay where they are, a board may hold a thousand of them.
    try:
        keys = [str(key) for key in modal.Dict.from_name(board, environment_name=environment).keys()]  # noqa: SIM118
    except me.NotFoundError:
        return []
    return sorted((key.removeprefix("run:") for key in keys if key.startswith("run:")), reverse=True)[:ENTRIES_READ]


def _time(text: Any) -> float | None:
    """Unix seconds of `2026-11-21 13:20:00+00:00`; None for `Pending`."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
