"""Which container a job gets on Modal, at what price, and for how long it may be paid: of runs and of estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comfymodal.costs.budget import fit
from comfymodal.costs.estimate import Estimate, estimate
from comfymodal.costs.rates import (
    SYNC_CONTAINER_CORES,
    SYNC_CONTAINER_GIB,
    GpuChoice,
    Rate,
    RateTable,
    container_rate,
    sync_rate,
    training_rate,
)
from comfymodal.costs.sync_estimate import IDLE_S
from comfymodal.operations.experience import Experience
from comfymodal.targets.spec import ContainerSpec

CLOSING_S = 30.0
"""Before Modal's own timeout the job stops by itself, so that what is finished is committed."""

SYNC_TIMEOUT_S, SYNC_STARTUP_S = 24 * 3600.0, 60.0
"""The longest a call may take on Modal, and the longest its container, which has nothing to load, takes to start."""

SYNC_CONTAINER = f"{SYNC_CONTAINER_CORES} cores, {SYNC_CONTAINER_GIB} GiB"

TRAIN_STARTUP_S, TRAIN_IDLE_S = 300.0, 2.0
"""The image has 10 GB and most of it is read at the start; a container takes one training and ends."""


@dataclass(frozen=True, slots=True)
class Terms:
    """`deadline_s` is what the job gets where no budget pays for less; beside it a container is paid while it starts,
    `startup_s` at most, and for `idle_s` after it.
    """

    rate: Rate
    deadline_s: float
    startup_s: float
    idle_s: float
    cheaper: str = ""
    """What else makes such a run cost less, for people."""

    def fit(self, budget: int | None, *, typical_s: float | None) -> float:
        """The time limit that so many nanodollars pay for; see `costs.budget.fit`. Raises `BudgetError`."""
        around = {"startup_s": self.startup_s, "scaledown_window_s": self.idle_s}
        return fit(self.rate, self.deadline_s, budget, typical_s=typical_s, **around)

    def estimate(self, seen: Experience, deadline_s: float | None = None) -> Estimate:
        """What it costs by what was seen of such jobs, with this time limit or the longest."""
        return estimate(
            self.rate,
            run=seen.run,
            startup=seen.startup,
            startup_s=self.startup_s,
            deadline_s=self.deadline_s if deadline_s is None else deadline_s,
            scaledown_window_s=self.idle_s,
        )


def render_terms(containers: ContainerSpec, choices: Sequence[GpuChoice], table: RateTable) -> Terms:
    """Raises `NotReadyError` for a GPU whose price is not known, as `train_terms` does."""
    longest_s = max(1.0, containers.timeout_s - CLOSING_S)
    return Terms(
        container_rate(choices, table),
        longest_s,
        containers.boot_timeout_s,
        containers.scaledown_window_s,
        cheaper="choose a cheaper GPU (comfyui.gpu), or shorten comfyui.boot_timeout or comfyui.scaledown_window",
    )


def sync_terms(table: RateTable) -> Terms:
    return Terms(sync_rate(table), SYNC_TIMEOUT_S - CLOSING_S, SYNC_STARTUP_S, IDLE_S)


def train_terms(gpu: GpuChoice, memory_gib: int, table: RateTable, *, timeout_s: float) -> Terms:
    """The limit counts paid seconds over all containers of the training."""
    rate, cheaper = training_rate(gpu, memory_gib, table), "or choose a cheaper GPU (training.gpu)"
    return Terms(rate, timeout_s, TRAIN_STARTUP_S, TRAIN_IDLE_S, cheaper)
