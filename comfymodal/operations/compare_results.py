"""The frozen values of `costs compare`. Field names are the keys of `--json`; money is US dollars as text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OptionView:
    """One way to rent, at one price. `how` is `kept` (the whole time) or `returned` (before every long gap).

    `price_factor` is 1.0 for the price as given; the others tell how much hangs on it. At `break_even_hours` useful
    hours of `of_hours` both cost the same (a day when kept, a session when returned); None where Modal is cheaper at
    any. `usd`, and `saving_usd` that Modal saves (below 0 what it costs more), are None without use.
    """

    how: str
    price_factor: float
    usd_per_hour: str
    break_even_hours: float | None
    of_hours: float
    usd: str | None
    saving_usd: str | None


@dataclass(frozen=True, slots=True)
class RentalView:
    """`usd_per_hour` includes the disk. `cards` is how many do the work when kept, `sessions` how often one is set up
    when returned. `night_usd` is what a night costs on which nobody returned it.
    """

    name: str
    usd_per_hour: str
    as_of: str
    speed: float
    setup_hours: float
    rerun: float
    cards: int
    sessions: int
    night_usd: str
    options: tuple[OptionView, ...]


@dataclass(frozen=True, slots=True)
class CardView:
    """One GPU of Modal in the time looked at. `overhead` is paid hours over useful ones, `use` useful hours over all.

    `usd_per_hour` is what an hour of a container came to, or without use the price of `price_as_of`. A single rental
    that is kept and as fast costs as much as Modal did at `even_usd_per_hour`. `cheapest` is `modal`, or `kept NAME`,
    `returned NAME`. What nothing is known of is None.
    """

    gpu: str
    runs: int
    unknown_runs: int
    useful_hours: float
    paid_hours: float
    overhead: float | None
    use: float | None
    usd_per_hour: str | None
    price_as_of: str | None
    usd: str
    even_usd_per_hour: str | None
    cheapest: str | None
    rentals: tuple[RentalView, ...]


@dataclass(frozen=True, slots=True)
class PlansView:
    """Thirty days of all GPUs of this project at this pace: before credits, and what is to pay on each plan."""

    usd: str
    starter_usd: str
    team_usd: str
    as_of: str


@dataclass(frozen=True, slots=True)
class CostsCompared:
    """`hours` is the time looked at: from `--since`, or the first run on Modal, until now."""

    hours: float
    cards: tuple[CardView, ...]
    plans: PlansView | None
    left_out: tuple[str, ...]
