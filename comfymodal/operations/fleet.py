"""Why each container of a project lives, and what it costs; the same for `status`, `stop` and `shell`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from comfymodal.costs.rates import (
    LIST,
    Rate,
    RateTable,
    container_rate,
    cpu_rate,
    hourly_text,
    money_json,
    money_text,
    parse_gpu,
    sync_rate,
    training_rate,
)
from comfymodal.errors import NotReadyError
from comfymodal.operations.fleet_results import ContainerView, Does
from comfymodal.operations.views import iso_time
from comfymodal.targets.modal import fleet
from comfymodal.targets.modal.fleet import ContainerRun, LiveContainer
from comfymodal.targets.modal.names import app_name, board_name
from comfymodal.targets.modal.recipe import SYNC_FUNCTION, TRAIN_CONTAINERS
from comfymodal.targets.modal.warm import Warmth, last_keeper
from comfymodal.targets.spec import ModalSpec


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the project says of its containers; `gpus` empty for another project, whose file is not here."""

    gpus: tuple[str, ...]
    minimum: int
    scaledown_window_s: float | None
    boot_timeout_s: float
    rates: RateTable = LIST


UNKNOWN = Wanted((), 0, None, 600.0)
"""Of another project on the same account."""


@dataclass(frozen=True, slots=True)
class Helpers:
    """CPU containers among those of an app: the one that keeps others warm, and how many there are with it."""

    keeper: str
    count: int


NO_HELPERS = Helpers("", 0)


@dataclass(frozen=True, slots=True)
class Priced:
    """A view and its nanodollars per second; None: not known."""

    view: ContainerView
    rate: Rate | None


def wanted_by(spec: ModalSpec) -> Wanted:
    wanted = spec.containers
    return Wanted(wanted.gpus, wanted.min_containers, wanted.scaledown_window_s, wanted.boot_timeout_s, spec.rates)


def look_at(spec: ModalSpec, app_id: str, warmth: Warmth | None) -> list[Priced]:
    """Every container of the project's app, the oldest first."""
    containers = fleet.list_containers(spec.environment, app_id=app_id)
    keeper = last_keeper(spec) if containers else ""
    may_have_run = {one.id for one in containers if one.id != keeper and one.started_at is not None}
    runs = fleet.runs_in(board_name(spec.project), spec.environment, may_have_run)
    is_open = any(one.id not in runs for one in containers)
    helpers = Helpers(keeper, fleet.count_helpers(app_name(spec.project), spec.environment) if is_open else 0)
    return explain(containers, runs, warmth, wanted_by(spec), helpers, now=time.time())


def look_at_others(spec: ModalSpec, apps: Mapping[str, str]) -> list[Priced]:
    """Every container of the project's apps that move files and that train, the oldest of each first.

    `apps` are their ids by name.
    """
    found: list[Priced] = []
    for kind, options in (("sync", SYNC_FUNCTION), ("train", TRAIN_CONTAINERS)):
        if (app_id := apps.get(app_name(spec.project, kind))) is not None:
            wanted = Wanted((), 0, float(options["scaledown_window"]), float(options["startup_timeout"]), spec.rates)
            found += _look_at_app(spec, app_id, wanted, is_cpu=kind == "sync")
    return found


def _look_at_app(spec: ModalSpec, app_id: str, wanted: Wanted, *, is_cpu: bool) -> list[Priced]:
    containers = fleet.list_containers(spec.environment, app_id=app_id)
    runs = fleet.runs_in(board_name(spec.project), spec.environment, {one.id for one in containers})
    now = time.time()
    found = []
    for one in containers:
        run = runs.get(one.id)
        does, why = _reason(one, run, wanted, now)
        if is_cpu:
            seen = _on_cpu(one, (does, why), _known(sync_rate, wanted.rates), now)
        else:
            seen = _view(one, _gpus_of(run, None, wanted), run, wanted.rates, now)
        run_id = run.run_id if run is not None and does == "runs" else None
        found.append(replace(seen, view=replace(seen.view, does=does, why=why, run_id=run_id)))
    return found


def explain(
    containers: Sequence[LiveContainer],
    runs: Mapping[str, ContainerRun],
    warmth: Warmth | None,
    wanted: Wanted,
    helpers: Helpers,
    *,
    now: float,
) -> list[Priced]:
    """Say of each container why it lives: what it runs, or what keeps it up, in that order."""
    found = []
    others = helpers.count - any(one.id == helpers.keeper for one in containers)
    warm_left = warmth.minimum if warmth is not None and warmth.until > now else 0
    minimum_left = wanted.minimum
    for one in containers:
        if one.id == helpers.keeper:
            doing = "kept another one warm, ends by itself" if warmth is None else "keeps another one warm"
            found.append(_helper(one, ("keeps warm", doing), wanted, now))
            continue
        run = runs.get(one.id)
        # Which of them Modal does not say: a deploy's inspection comes before any render.
        if run is None and others > 0:
            others -= 1
            found.append(_helper(one, ("inspects", "a deploy's inspection, ends by itself"), wanted, now))
            continue
        gpus = _gpus_of(run, warmth, wanted)
        does, why = _reason(one, run, wanted, now)
        if does != "runs" and warmth is not None and warm_left > 0 and _is_of_pool(gpus, warmth, wanted):
            warm_left -= 1
            does, why = "warm", f"warm until {_clock(warmth.until)}"
        elif does != "runs" and minimum_left > 0 and set(gpus) <= set(wanted.gpus):
            minimum_left -= 1
            does, why = "minimum", f"comfyui.min_containers={wanted.minimum}"
        view = _view(one, gpus, run, wanted.rates, now)
        run_id = run.run_id if run is not None and does == "runs" else None
        found.append(Priced(replace(view.view, does=does, why=why, run_id=run_id), view.rate))
    return found


def total(priced: Collection[Priced]) -> tuple[str, str]:
    """Dollars per hour of all together: for JSON, and in words that say when a price is missing."""
    nanodollars = sum(one.rate.nanodollars_per_s for one in priced if one.rate is not None) * 3600
    unknown = sum(one.rate is None for one in priced)
    is_range = any(one.rate is not None and one.rate.is_range for one in priced)
    text = f"{'up to ' if is_range and not unknown else ''}{money_text(nanodollars)}/h"
    return money_json(nanodollars), f"{text} and {unknown} of unknown price" if unknown else text


def _reason(one: LiveContainer, run: ContainerRun | None, wanted: Wanted, now: float) -> tuple[Does, str]:
    if run is not None and run.ended_at is None:
        return "runs", f"runs {run.run_id}"
    if one.started_at is None:
        return "starting", "starting"
    if run is None and now - one.started_at < wanted.boot_timeout_s:
        return "starting", "starting, or idle since its start"
    window = wanted.scaledown_window_s
    return "idle", "idle, ends by itself" if window is None else f"idle, ends within {window:.0f} s"


def _gpus_of(run: ContainerRun | None, warmth: Warmth | None, wanted: Wanted) -> tuple[str, ...]:
    """What it may have: its run's GPU, else what is kept warm, else the project's."""
    if run is not None:
        return (run.gpu,) if run.gpu else wanted.gpus
    return (warmth.gpu,) if warmth is not None and warmth.gpu else wanted.gpus


def _is_of_pool(gpus: tuple[str, ...], warmth: Warmth, wanted: Wanted) -> bool:
    return gpus == ((warmth.gpu,) if warmth.gpu else wanted.gpus)


def _helper(one: LiveContainer, reason: tuple[Does, str], wanted: Wanted, now: float) -> Priced:
    return _on_cpu(one, reason, _known(cpu_rate, wanted.rates), now)


def _on_cpu(one: LiveContainer, reason: tuple[Does, str], rate: Rate | None, now: float) -> Priced:
    does, why = reason
    return _priced(replace(_bare(one, now), does=does, why=why, gpu="CPU"), rate)


def _view(one: LiveContainer, gpus: tuple[str, ...], run: ContainerRun | None, rates: RateTable, now: float) -> Priced:
    rate = rate_of(gpus, rates, memory_gib=run.memory_gib if run is not None else None)
    return _priced(replace(_bare(one, now), gpu=" or ".join(gpus) or None), rate)


def _priced(view: ContainerView, rate: Rate | None) -> Priced:
    if rate is None:
        return Priced(view, None)
    usd = money_json(rate.nanodollars_per_h)
    return Priced(replace(view, usd_per_hour=usd, per_hour=hourly_text(rate)), rate)


def _bare(one: LiveContainer, now: float) -> ContainerView:
    return ContainerView(
        id=one.id,
        app=one.app,
        does="idle",
        why="",
        run_id=None,
        gpu=None,
        started_at=iso_time(one.started_at),
        age_s=None if one.started_at is None else round(max(0.0, now - one.started_at), 1),
        usd_per_hour=None,
        per_hour=None,
    )


def rate_of(gpus: Sequence[str], rates: RateTable, *, memory_gib: int | None = None) -> Rate | None:
    """None when a GPU has no price: a name that came after this release. A training says how much memory it has."""
    try:
        choices = [parse_gpu(gpu) for gpu in gpus]
        if memory_gib is not None and len(choices) == 1:
            return training_rate(choices[0], memory_gib, rates)
        return container_rate(choices, rates)
    except (ValueError, NotReadyError):
        return None


def _known(price: Callable[[RateTable], Rate], rates: RateTable) -> Rate | None:
    try:
        return price(rates)
    except NotReadyError:
        return None


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M", time.localtime(seconds))
