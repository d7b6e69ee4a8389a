"""What a run came to: its own seconds, and the start-up of its container when it was the first in it.

The gap after a run, until the next one or the end of the container, belongs to no run's cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.costs.rates import Rate


@dataclass(frozen=True, slots=True)
class RunCost:
    """`startup_s` is 0 for a run that found its container warm."""

    own_s: float
    startup_s: float
    nanodollars: int


def run_cost(rate: Rate, container: Mapping[str, Any], started_at: float, ended_at: float) -> RunCost:
    """Price a run by what its container noted: `{enter_s, is_first, started_at, ended_at, ...}`.

    Its times hold: they include what the job does not see, such as the last commit. `started_at` and `ended_at`
    (Unix seconds) stand in for what a killed container did not note. `lost_s` is what containers that were lost spent
    on the same run.
    """
    begin = _number(container.get("started_at"), started_at)
    end = _number(container.get("ended_at"), ended_at)
    # A clock that was set back in between must not give money back.
    own_s = max(0.0, end - begin)
    startup_s = max(0.0, _number(container.get("enter_s"), 0.0)) if container.get("is_first") else 0.0
    lost_s = max(0.0, _number(container.get("lost_s"), 0.0))
    return RunCost(own_s, startup_s, rate.cost(own_s + startup_s + lost_s))


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) else otherwise
