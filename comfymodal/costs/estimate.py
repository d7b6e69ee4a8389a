"""What a run may cost, before it starts. A container is paid from its start-up to the end of its idle tail. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from comfymodal.costs.rates import Rate

TYPICAL_STARTUP_S = 51.0
"""Until ComfyUI answers and a model is loaded, where nothing was measured; the limit on it is many times that."""

ENOUGH_SAMPLES = 5
"""From so many on, quantiles say more than the least and the most."""


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds that something usually takes: seldom below `low`, seldom above `high`."""

    low: float
    typical: float
    high: float

    @classmethod
    def exactly(cls, seconds: float) -> Span:
        return cls(seconds, seconds, seconds)

    @classmethod
    def of(cls, samples: Sequence[float]) -> Span | None:
        """The 10th, 50th and 90th percentile; of few samples the least, the median and the most; of none None."""
        if not samples:
            return None
        if len(samples) < ENOUGH_SAMPLES:
            return cls(min(samples), median(samples), max(samples))
        deciles = quantiles(samples, n=10, method="inclusive")
        return cls(deciles[0], median(samples), deciles[-1])

    def at_most(self, limit: float) -> Span:
        return Span(min(self.low, limit), min(self.typical, limit), min(self.high, limit))


@dataclass(frozen=True, slots=True)
class Batch:
    """Items over containers: each container is paid `around_s` (start-up, loading, idle tail) beside its items.

    `extra` attempts per item are made: failures, retries. ComfyUI takes one prompt at a time.
    """

    items: int
    item_s: float
    around_s: float
    containers: int = 1
    extra: float = 0.0

    @property
    def paid_s(self) -> float:
        return self.containers * self.around_s + self.items * self.item_s * (1 + self.extra)

    @property
    def overhead(self) -> float | None:
        """Paid seconds for one second of use; None where nothing is used."""
        used_s = self.items * self.item_s
        return self.paid_s / used_s if used_s > 0 else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Nanodollars. `low`, `typical` and `high` are of a run that starts its own container, with the shares `startup`,
    `run` and `idle` of the typical one; None where nobody knows how long such a run takes.

    A warm container saves `startup`. `worst` holds whatever happens: start-up and deadline are reached, then the
    container idles to its end.
    """

    low: int | None
    typical: int | None
    high: int | None
    worst: int
    startup: int
    run: int | None
    idle: int


def estimate(
    rate: Rate,
    *,
    run: Span | None,
    startup: Span,
    startup_s: float,
    deadline_s: float,
    scaledown_window_s: float,
) -> Estimate:
    """Price a run. `run` is what such a run took, None when there was none; `startup` until it began.

    `startup_s` and `deadline_s` limit both: no part of an estimate exceeds its limit.
    """
    start = startup.at_most(startup_s)
    told = run.at_most(deadline_s) if run else None

    def whole(begin_s: float, run_s: float) -> int:
        return rate.cost(begin_s + run_s + scaledown_window_s)

    return Estimate(
        low=whole(start.low, told.low) if told else None,
        typical=whole(start.typical, told.typical) if told else None,
        high=whole(start.high, told.high) if told else None,
        worst=rate.cost(startup_s + deadline_s + scaledown_window_s),
        startup=rate.cost(start.typical),
        run=rate.cost(told.typical) if told else None,
        idle=rate.cost(scaledown_window_s),
    )
