"""What a run may cost, before a GPU is started, and what it came to, after it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from comfymodal.costs.budget import Limit, fit
from comfymodal.costs.estimate import Estimate, estimate
from comfymodal.costs.rates import (
    SYNC_CONTAINER_CORES,
    SYNC_CONTAINER_GIB,
    GpuChoice,
    Rate,
    container_rate,
    hourly_text,
    money_json,
    money_text,
    parse_gpu,
    sync_rate,
    training_rate,
)
from comfymodal.costs.sync_estimate import IDLE_S
from comfymodal.operations.budgets import allow
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.forecast import Forecast, forecast_render, forecast_sync, forecast_training
from comfymodal.runs.ledger import Run
from comfymodal.runs.spending import Expected
from comfymodal.targets.spec import ModalSpec

CLOSING_S = 30.0
"""Before Modal's own timeout the job stops by itself, so that what is finished is committed."""

SYNC_TIMEOUT_S, SYNC_STARTUP_S = 24 * 3600.0, 60.0
"""The longest a call may take on Modal, and the longest its container, which has nothing to load, takes to start."""


TRAIN_STARTUP_S, TRAIN_IDLE_S = 300.0, 2.0
"""The image has 10 GB and most of it is read at the start; a container takes one training and ends."""


ENDING_S = 0.5
"""From the end of its idle time until a container is gone: ComfyUI is stopped, volumes are let go (measured: 0.3 s to
0.9 s with Modal's container runtime on a small machine).
"""


@dataclass(frozen=True, slots=True)
class Price:
    """`deadline_s` is what the job gets; `is_shortened` when a budget pays for no more than that."""

    rate: Rate
    estimate: Estimate
    deadline_s: float
    is_shortened: bool
    forecast: Forecast
    what: str = ""
    """The container, where it has no GPU."""
    limits: tuple[Limit, ...] = ()
    """Budgets that must still hold the worst case when the run is entered."""

    @property
    def expected(self) -> Expected:
        """What the ledger keeps of it."""
        told = self.estimate
        return Expected(low=told.low, typical=told.typical, high=told.high, worst=told.worst)

    def event(self, spec: ModalSpec) -> dict[str, Any]:
        """For the one line the operator sees before anything is paid."""
        return {"type": "price", **self.told(spec)}

    def told(self, spec: ModalSpec) -> dict[str, Any]:
        """Where, on what, how much: amounts for people and, as `..._usd`, for scripts."""
        return {
            "where": " ".join(part for part in ("Modal", spec.workspace, spec.environment) if part),
            "gpu": self.rate.gpu or self.what,
            "per_hour": hourly_text(self.rate),
            "samples": self.forecast.samples,
            "basis": self.forecast.basis,
            **told_money(self.estimate),
            "deadline_s": self.deadline_s,
            "is_shortened": self.is_shortened,
            "as_of": self.rate.as_of,
        }


def told_money(told: Estimate) -> dict[str, str | None]:
    """Each amount for people and, as `..._usd`, for scripts; None is not known."""
    amounts = {"low": told.low, "typical": told.typical, "high": told.high, "worst": told.worst}
    words = {name: None if amount is None else money_text(amount) for name, amount in amounts.items()}
    return words | {f"{name}_usd": None if amount is None else money_json(amount) for name, amount in amounts.items()}


def price_run(run: Run, context: Context, desk: Desk | None, *, max_cost: int | None) -> tuple[Run, Price | None]:
    """What this run may cost on Modal, and the run with its rate and time limit; no price on this machine.

    `max_cost` in nanodollars. Raises `BudgetError` when a budget pays for less than the run usually takes.
    """
    if context.project.target != "modal":
        return run, None
    job = run.request["job"]
    containers = context.modal_spec().containers
    choices = [parse_gpu(name) for name in ((job["gpu"],) if job.get("gpu") else containers.gpus)]
    rate = container_rate(choices, context.rates)
    labels = [choice.label for choice in choices]
    seen = forecast_render(context.ledger, run.request["workflow"]["sha256"], labels, prompts=len(job["prompts"]))
    wanted_s = max(1.0, containers.timeout_s - CLOSING_S)
    around = {"startup_s": containers.boot_timeout_s, "scaledown_window_s": containers.scaledown_window_s}
    how = partial(fit, rate, wanted_s, typical_s=seen.typical_s, **around)
    allowed = allow(context, desk, how, max_cost=max_cost)
    told = estimate(rate, run=seen.run, startup=seen.startup, deadline_s=allowed.deadline_s, **around)
    price = Price(rate, told, allowed.deadline_s, allowed.deadline_s < wanted_s, seen, limits=allowed.limits)
    return _priced(run, price, context, window_s=containers.scaledown_window_s, choices=choices), price


def price_sync(run: Run, context: Context, desk: Desk) -> tuple[Run, Price | None]:
    """As `price_run`, for a run that moves files: how long the same took before; what it has to move is not known."""
    if run.target != "modal":
        return run, None
    seen = forecast_sync(context.ledger, run.kind, run.title, SYNC_STARTUP_S)
    rate, wanted_s = sync_rate(context.rates), SYNC_TIMEOUT_S - CLOSING_S
    around = {"startup_s": SYNC_STARTUP_S, "scaledown_window_s": IDLE_S}
    allowed = allow(context, desk, partial(fit, rate, wanted_s, typical_s=None, **around), max_cost=None)
    told = estimate(rate, run=seen.run, startup=seen.startup, deadline_s=allowed.deadline_s, **around)
    what = f"{SYNC_CONTAINER_CORES} cores, {SYNC_CONTAINER_GIB} GiB"
    price = Price(rate, told, allowed.deadline_s, allowed.deadline_s < wanted_s, seen, what, allowed.limits)
    return _priced(run, price, context, window_s=IDLE_S), price


def price_train(
    run: Run, context: Context, desk: Desk, *, max_cost: int | None, of: int = 1
) -> tuple[Run, Price | None]:
    """As `price_run`, for one of a sweep's trainings: its limit counts paid seconds over all its containers.

    `run_s`, `run_low_s`, `run_high_s` and `certainty` in the job's `origin` are what it is thought to take.
    """
    if run.target != "modal":
        return run, None
    job, wanted_s = run.request["job"], context.project.training.timeout
    rate = training_rate(parse_gpu(job["gpu"]), int(job.get("memory_gib") or 0), context.rates)
    origin = job["origin"]
    seen = forecast_training(*(origin.get(name) for name in ("run_s", "run_low_s", "run_high_s", "certainty")))
    around = {"startup_s": TRAIN_STARTUP_S, "scaledown_window_s": TRAIN_IDLE_S}
    how = partial(fit, rate, wanted_s, typical_s=seen.typical_s, **around)
    allowed = allow(context, desk, how, max_cost=max_cost, of=of)
    told = estimate(rate, run=seen.run, startup=seen.startup, deadline_s=allowed.deadline_s, **around)
    price = Price(rate, told, allowed.deadline_s, allowed.deadline_s < wanted_s, seen, limits=allowed.limits)
    return _priced(run, price, context, window_s=TRAIN_IDLE_S), price


def _priced(run: Run, price: Price, context: Context, *, window_s: float, choices: Sequence[GpuChoice] = ()) -> Run:
    job = run.request["job"]
    rate: dict[str, Any] = {**price.rate.to_dict(), "window_s": window_s + ENDING_S}
    if len(choices) > 1:
        rate["choices"] = {each.label: container_rate([each], context.rates).nanodollars_per_s for each in choices}
    origin = {**job["origin"], "rate": rate, "tag": context.project.costs.tag or ""}
    more = {"deadline_s": price.deadline_s, "is_budget_deadline": price.is_shortened, "origin": origin}
    return replace(run, request={**run.request, "job": {**job, **more}}, rate=rate)
