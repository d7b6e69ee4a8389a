"""`comfymodal status`: is what is deployed what the project file says, what lives, why, and what it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comfymodal.operations import fleet as fleet_views
from comfymodal.operations.context import Context
from comfymodal.operations.fleet_results import Deployed, DriftView, FleetStatus, StartView
from comfymodal.operations.views import iso_time
from comfymodal.runs.ledger import Run
from comfymodal.targets.modal.deployment import Deployment, read_deployment
from comfymodal.targets.modal.fleet import find_app
from comfymodal.targets.modal.names import app_name, app_names
from comfymodal.targets.modal.plan import changes, describe, fingerprint
from comfymodal.targets.modal.session import connect
from comfymodal.targets.modal.warm import Warmth, read_warmth
from comfymodal.targets.spec import ModalSpec

RUNS_READ = 200
"""Medians are of the newest runs: an older engine started otherwise."""

OVERDUE_S = 120.0
"""So late the one that keeps a container up was restarted, or is putting things back."""


def fleet_status(context: Context) -> FleetStatus:
    """Look at everything; changes and starts nothing. Raises `UsageError` for a project that renders here."""
    spec = context.modal_spec()
    connect(spec.workspace)
    deployment = read_deployment(spec)
    warmth = read_warmth(spec) if deployment is not None else None
    priced = fleet_views.look_at(spec, deployment.app_id, warmth) if deployment is not None else []
    priced += fleet_views.look_at_others(spec, _other_apps(spec))
    usd, text = fleet_views.total(priced)
    runs = context.ledger.newest(limit=RUNS_READ)
    return FleetStatus(
        app=app_name(spec.project),
        deployed=_deployed(deployment, spec),
        deployed_at=iso_time(deployment.deployed_at) if deployment and deployment.deployed_at else None,
        drift=drift_of(deployment, spec),
        containers=tuple(one.view for one in priced),
        usd_per_hour=usd,
        per_hour=text,
        warm_until=iso_time(warmth.until) if warmth else None,
        is_warm_overdue=is_overdue(warmth, time.time()),
        cold=median_start(runs, lambda container: container.get("is_first") is True),
        warm=median_start(runs, lambda container: container.get("is_first") is False),
        end_command="comfymodal stop" if priced else None,
    )


def _other_apps(spec: ModalSpec) -> dict[str, str]:
    """Ids of the apps that are deployed beside the one that renders, by name."""
    names = [name for name in app_names(spec.project) if name != app_name(spec.project)]
    found = {name: find_app(name, spec.environment) for name in names}
    return {name: app_id for name, app_id in found.items() if app_id is not None}


def drift_of(deployment: Deployment | None, spec: ModalSpec) -> tuple[DriftView, ...]:
    """What the next deploy would change, in words of the project file."""
    if deployment is None or deployment.described is None or deployment.fingerprint == fingerprint(spec):
        return ()
    return tuple(
        DriftView(change.key, change.old, change.new, change.effect)
        for change in changes(deployment.described, describe(spec))
    )


def is_overdue(warmth: Warmth | None, now: float) -> bool:
    """A keeper takes its note away when it is done: one whose time is over may keep a GPU up for ever."""
    return warmth is not None and now > warmth.until + OVERDUE_S


def median_start(runs: Iterable[Run], counts: Callable[[Mapping[str, Any]], bool]) -> StartView | None:
    """Seconds from submission to the first node, of succeeded runs in containers that count; None without any."""
    seconds = [
        found
        for run in runs
        if run.status == "succeeded" and run.target == "modal"
        if counts((run.result or {}).get("container") or {})
        if (found := first_node_s(run)) is not None
    ]
    return StartView(round(statistics.median(seconds), 1), len(seconds)) if seconds else None


def first_node_s(run: Run) -> float | None:
    """Seconds from submission to the first node; None when the run did not note it."""
    result = run.result or {}
    phases, started_at = result.get("phases") or {}, result.get("started_at")
    if started_at is None or "prepare" not in phases:
        return None
    return max(0.0, float(started_at) + float(phases["prepare"]) + float(phases.get("queue", 0)) - run.created_at)


def _deployed(deployment: Deployment | None, spec: ModalSpec) -> Deployed:
    if deployment is None:
        return "no"
    if deployment.fingerprint is None:
        return "unfinished"
    return "current" if deployment.fingerprint == fingerprint(spec) else "differs"
