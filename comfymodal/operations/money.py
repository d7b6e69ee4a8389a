"""What a run may cost, before a GPU is started, and what it came to, after it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfymodal.costs.bill import run_cost
from comfymodal.costs.budget import fit
from comfymodal.costs.estimate import Estimate, estimate
from comfymodal.costs.rates import (
    AS_OF,
    Rate,
    container_rate,
    hourly_text,
    money_json,
    money_text,
    nanodollars_of,
    parse_gpu,
)
from comfymodal.operations.context import Context
from comfymodal.runs.ledger import Run
from comfymodal.targets.spec import ModalSpec

CLOSING_S = 30.0
"""Before Modal's own timeout the job stops by itself, so that what is finished is committed."""


@dataclass(frozen=True, slots=True)
class Price:
    """`deadline_s` is what the job gets; `is_shortened` when a budget pays for no more than that."""

    rate: Rate
    estimate: Estimate
    deadline_s: float
    is_shortened: bool
    samples: int

    def event(self, spec: ModalSpec) -> dict[str, Any]:
        """For the one line the operator sees before anything is paid."""
        return {
            "type": "price",
            "where": " ".join(part for part in ("Modal", spec.workspace, spec.environment) if part),
            "gpu": self.rate.gpu,
            "per_hour": hourly_text(self.rate),
            "typical": None if self.estimate.typical is None else money_text(self.estimate.typical),
            "samples": self.samples,
            "worst": money_text(self.estimate.worst),
            "worst_usd": money_json(self.estimate.worst),
            "deadline_s": self.deadline_s,
            "is_shortened": self.is_shortened,
            "as_of": AS_OF,
        }


def price_run(run: Run, context: Context, *, max_cost: int | None) -> tuple[Run, Price | None]:
    """What this run may cost on Modal, and the run with its rate and time limit; no price on this machine.

    `max_cost` in nanodollars. Raises `BudgetError` when the budget pays for less than the run usually takes.
    """
    if context.project.target != "modal":
        return run, None
    job = run.request["job"]
    containers = context.modal_spec().containers
    rate = container_rate([parse_gpu(name) for name in ((job["gpu"],) if job.get("gpu") else containers.gpus)])
    seconds = context.ledger.seconds_of(run.request["workflow"]["sha256"], rate.gpu)
    typical_s = sorted(seconds)[len(seconds) // 2] if seconds else None
    wanted_s = max(1.0, containers.timeout_s - CLOSING_S)
    limits = [limit for limit in (max_cost, _per_run(context)) if limit is not None]
    around = {"startup_s": containers.boot_timeout_s, "scaledown_window_s": containers.scaledown_window_s}
    deadline_s = wanted_s
    if limits:
        deadline_s = fit(
            rate, budget_nanodollars=min(limits), wanted_deadline_s=wanted_s, typical_s=typical_s, **around
        )
    told = estimate(rate, typical_s=typical_s, deadline_s=deadline_s, **around)
    price = Price(rate, told, deadline_s, deadline_s < wanted_s, len(seconds))
    origin = {**job["origin"], "rate": rate.to_dict()}
    request = {
        **run.request,
        "job": {**job, "deadline_s": deadline_s, "is_budget_deadline": price.is_shortened, "origin": origin},
    }
    return replace(run, request=request, rate=rate.to_dict()), price


def cost_of(run: Run, outcome: Mapping[str, Any]) -> int | None:
    """Nanodollars of an ended run by its own seconds; None where nothing is paid or nothing is known."""
    container = outcome.get("container")
    if run.rate is None or not isinstance(container, Mapping):
        return None
    rate = Rate(int(run.rate["nanodollars_per_s"]), 0, gpu=str(run.rate["gpu"]), as_of=str(run.rate["as_of"]))
    return run_cost(
        rate, container, started_at=float(container["started_at"]), ended_at=float(container["ended_at"])
    ).nanodollars


def idle_text(run: Run, context: Context) -> str | None:
    """What the container that stays warm after a run may still cost; None where there is none."""
    if run.rate is None or context.project.target != "modal":
        return None
    window_s = context.modal_spec().containers.scaledown_window_s
    cost = round(int(run.rate["nanodollars_per_s"]) * window_s)
    return f"its container stays warm for {window_s:.0f} s, for at most {money_text(cost)}"


def _per_run(context: Context) -> int | None:
    limit = context.project.costs.per_run_usd
    return None if limit is None else nanodollars_of(limit)
