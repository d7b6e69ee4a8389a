"""What a run's container noted, as seconds by what they went into, what these cost, and on which card.

The gap after a run, until the next one or the end of the container, belongs to no run's own cost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.costs.rates import cost_of_seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds: `queue_s` until a container had the run (not paid), `start_s` its start-up and its wait for the run, if
    the run was its first, `load_s` the part of `run_s` in which models were loaded, `lost_s` in containers that were
    lost.

    `gpu_seen` is what the driver said, `gpu_billed` the choice that is paid for, empty when it is the one asked for.
    `nanodollars_per_s` is that choice's rate, None when it is the one asked for.
    """

    container: str
    began_at: float
    ended_at: float
    queue_s: float
    start_s: float
    load_s: float | None
    run_s: float
    lost_s: float
    gpu_seen: str = ""
    gpu_billed: str = ""
    nanodollars_per_s: int | None = None
    outputs: int = 0

    def cost(self, asked_per_s: int) -> int:
        """Nanodollars at the rate of the choice that is paid for, else at that of the one asked for."""
        per_s = asked_per_s if self.nanodollars_per_s is None else self.nanodollars_per_s
        return cost_of_seconds(per_s, self.run_s + self.start_s + self.lost_s)


def measure(container: Mapping[str, Any], *, created_at: float, window_s: float = 0.0) -> Measured:
    """Read `{container_id, container_started_at, enter_s, is_first, started_at, ended_at, lost_s}`; Unix seconds.

    A container that waited for its first run for longer than its idle window (`window_s`) was kept warm: the run is
    charged for its start-up only.
    """
    began, ended = float(container["started_at"]), float(container["ended_at"])
    is_first, enter_s = bool(container.get("is_first")), max(0.0, _number(container.get("enter_s")))
    arrived = _number(container.get("first_started_at")) or began
    start_s = 0.0
    if is_first:
        container_began = _number(container.get("container_started_at"))
        arrived = min(arrived, container_began or arrived)
        # One that was started for this run may have been overtaken by another one that became free.
        waited_s = began - container_began - enter_s if container_began else 0.0
        start_s = enter_s + (waited_s if 0.0 < waited_s <= window_s else 0.0)
    return Measured(
        container=str(container.get("container_id") or ""),
        began_at=began,
        ended_at=max(began, ended),
        # The clocks of two machines: a container cannot have had the run before it was submitted.
        queue_s=max(0.0, arrived - created_at),
        start_s=start_s,
        load_s=None,
        # A clock that was set back in between must not give money back.
        run_s=max(0.0, ended - began),
        lost_s=max(0.0, _number(container.get("lost_s"))),
    )


def billed_choice(choices: Iterable[str], seen: str) -> str:
    """Which of several GPUs that were asked for is the card that was seen, e.g. `NVIDIA A100-SXM4-80GB`.

    Empty when it is none of them: what is asked for as H100 may run on an H200, at the price of an H100.
    """
    said = set(re.findall(r"[A-Z0-9]+", seen.upper()))
    fitting = [label for label in choices if _words(label) <= said]
    # `A100` says less than `A100-80GB`.
    return max(fitting, key=lambda label: len(_words(label)), default="")


def _words(label: str) -> set[str]:
    return set(re.findall(r"[A-Z0-9]+", label.partition(":")[0].upper()))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
