"""What a run may cost, before it starts. A container is paid from its start-up to the end of its idle tail."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from comfymodal.costs.rates import Rate

TYPICAL_STARTUP_S = 51.0
"""Until ComfyUI answers and a model is loaded, where nothing was measured; the limit on it is many times that."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Nanodollars. `typical` is a run that starts its own container, with the shares `startup` and `idle`.

    A warm container saves `startup`. `worst` holds whatever happens: start-up and deadline are reached, then the
    container idles to its end. `per_hour` is in dollars.
    """

    typical: int | None
    worst: int
    startup: int
    idle: int
    per_hour: Decimal


def estimate(
    rate: Rate,
    *,
    typical_s: float | None,
    startup_s: float,
    deadline_s: float,
    scaledown_window_s: float,
    typical_startup_s: float = TYPICAL_STARTUP_S,
) -> Estimate:
    """Price a run. `typical_s` is what such a run took, None when there was none; `startup_s` and `deadline_s` limits.

    Neither part of `typical` exceeds its limit.
    """
    cold_s = min(typical_startup_s, startup_s)
    typical = None
    if typical_s is not None:
        typical = rate.cost(cold_s + min(typical_s, deadline_s) + scaledown_window_s)
    return Estimate(
        typical=typical,
        worst=rate.cost(startup_s + deadline_s + scaledown_window_s),
        startup=rate.cost(cold_s),
        idle=rate.cost(scaledown_window_s),
        per_hour=rate.per_hour,
    )
