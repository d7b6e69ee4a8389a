"""What a run may cost, before a GPU is started, and what it came to, after it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from comfymodal.costs.budget import Limit
from comfymodal.costs.estimate import Estimate
from comfymodal.costs.rates import GpuChoice, Rate, container_rate, hourly_text, money_json, money_text, parse_gpu
from comfymodal.operations.budgets import Allowed, allow
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.experience import (
    Experience,
    experience_of_render,
    experience_of_sync,
    experience_of_training,
)
from comfymodal.operations.terms import SYNC_CONTAINER, SYNC_STARTUP_S, Terms, render_terms, sync_terms, train_terms
from comfymodal.runs.ledger import Run
from comfymodal.runs.spending import Expected
from comfymodal.targets.spec import ModalSpec

ENDING_S = 0.4
"""From the end of its idle time until a container is gone: ComfyUI is stopped, volumes are let go (measured: 0.15 s to
0.65 s with Modal's container runtime on a small machine, idle and busy).
"""


@dataclass(frozen=True, slots=True)
class Price:
    """`deadline_s` is what the job gets; `is_shortened` when a budget pays for no more than that."""

    rate: Rate
    estimate: Estimate
    deadline_s: float
    is_shortened: bool
    seen: Experience
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
            "samples": self.seen.samples,
            "basis": self.seen.basis,
            **told_money(self.estimate),
            "deadline_s": self.deadline_s,
            "is_shortened": self.is_shortened,
            "as_of": self.rate.as_of,
        }


def told_money(told: Estimate) -> dict[str, str | None]:
    """Each amount for people and, as `..._usd`, for scripts; None is not known."""
    amounts = {"low": told.low, "typical": told.typical, "high": told.high, "worst": told.worst}
    words = {name: None if amount is None else money_text(amount) for name, amount in amounts.items()}
    return words | {f"{name}_usd": money_json(amount) for name, amount in amounts.items()}


def price_run(run: Run, context: Context, desk: Desk | None, *, max_cost: int | None) -> tuple[Run, Price | None]:
    """What this run may cost on Modal, and the run with its rate and time limit; no price on this machine.

    `max_cost` in nanodollars. Raises `BudgetError` when a budget pays for less than the run usually takes.
    """
    if context.project.target != "modal":
        return run, None
    job = run.request["job"]
    containers = context.modal_spec().containers
    choices = [parse_gpu(name) for name in ((job["gpu"],) if job.get("gpu") else containers.gpus)]
    labels = [choice.label for choice in choices]
    seen = experience_of_render(context.ledger, run.request["workflow"]["sha256"], labels, prompts=len(job["prompts"]))
    terms = render_terms(containers, choices, context.rates)
    allowed = allow(context, desk, terms, typical_s=seen.typical_s, max_cost=max_cost)
    return _priced(run, _price(terms, seen, allowed), context, terms, choices=choices)


def price_sync(run: Run, context: Context, desk: Desk) -> tuple[Run, Price | None]:
    """As `price_run`, for a run that moves files: how long the same took before; what it has to move is not known."""
    if run.target != "modal":
        return run, None
    seen, terms = experience_of_sync(context.ledger, run.kind, run.title, SYNC_STARTUP_S), sync_terms(context.rates)
    allowed = allow(context, desk, terms, typical_s=None, max_cost=None)
    return _priced(run, replace(_price(terms, seen, allowed), what=SYNC_CONTAINER), context, terms)


def price_train(
    run: Run, context: Context, desk: Desk, *, max_cost: int | None, of: int = 1
) -> tuple[Run, Price | None]:
    """As `price_run`, for one of a sweep's trainings.

    `run_s`, `run_low_s`, `run_high_s` and `certainty` in the job's `origin` are what it is thought to take.
    """
    if run.target != "modal":
        return run, None
    job, timeout_s = run.request["job"], context.project.training.timeout
    origin = job["origin"]
    seen = experience_of_training(*(origin.get(name) for name in ("run_s", "run_low_s", "run_high_s", "certainty")))
    terms = train_terms(parse_gpu(job["gpu"]), int(job.get("memory_gib") or 0), context.rates, timeout_s=timeout_s)
    allowed = allow(context, desk, terms, typical_s=seen.typical_s, max_cost=max_cost, of=of)
    return _priced(run, _price(terms, seen, allowed), context, terms)


def _price(terms: Terms, seen: Experience, allowed: Allowed) -> Price:
    told, is_shortened = terms.estimate(seen, allowed.deadline_s), allowed.deadline_s < terms.deadline_s
    return Price(terms.rate, told, allowed.deadline_s, is_shortened, seen, limits=allowed.limits)


def _priced(
    run: Run, price: Price, context: Context, terms: Terms, *, choices: Sequence[GpuChoice] = ()
) -> tuple[Run, Price]:
    job = run.request["job"]
    rate: dict[str, Any] = {**price.rate.to_dict(), "window_s": terms.idle_s + ENDING_S}
    if len(choices) > 1:
        rate["choices"] = {each.label: container_rate([each], context.rates).nanodollars_per_s for each in choices}
    origin = {**job["origin"], "rate": rate, "tag": context.project.costs.tag or ""}
    more = {"deadline_s": price.deadline_s, "is_budget_deadline": price.is_shortened, "origin": origin}
    return replace(run, request={**run.request, "job": {**job, **more}}, rate=rate), price
