"""Modal against a rented GPU: from which use on it is cheaper to rent. Pure.

Modal bills the seconds a container lives, a rental every hour until it is given back. With, over a horizon of W hours,

    u    useful hours / W, counted on Modal's card            m    what an hour of a container costs
    phi  billed hours / useful hours                          v    what an hour of the rental costs, its disk included
    S    hours to set the rental up, paid as all others       rho  how much of the rental's time is paid twice, 1 = none
    s    how fast the rented card is, Modal's card = 1

    Modal costs   m phi u W
    a rental      v (W + S) rho, busy or not; it does at most u = s, so that ceil(u / s) of them are needed
    both cost the same at   u* = v rho (1 + S / W) / (m phi)

Up to s, Modal is cheaper below u* and only there. With n rentals the border is n u*, and they do n s at most: where u*
is at least s, no use makes renting cheaper. `m phi` is what a useful hour costs on Modal. Money is integer nanodollars,
times are hours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from comfymodal.costs.rates import money_text

NIGHT_H = 8.0
"""A rental that nobody gave back in the evening is paid until the morning."""

PLANS_AS_OF = "2026-10-07"
STARTER_CREDIT = 30 * 10**9
TEAM_FEE, TEAM_CREDIT = 250 * 10**9, 100 * 10**9
"""Nanodollars a month, as read at modal.com/pricing on that day: credits pay compute, the fee comes on top of it."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Rental:
    """A card that can be rented by the hour. `nanodollars_per_h` includes its disk; `as_of` is an ISO date.

    `speed` is relative to Modal's card; `rerun` is at least 1.
    """

    name: str
    nanodollars_per_h: int
    as_of: str
    speed: float = 1.0
    setup_h: float = 0.0
    rerun: float = 1.0

    def at(self, factor: float) -> Rental:
        """The same at another price: of a marketplace it may move by half within a day."""
        return replace(self, nanodollars_per_h=round(self.nanodollars_per_h * factor))


@dataclass(frozen=True, slots=True)
class Session:
    """A stretch of work during which a rental would be kept. `span_h` includes the gaps in it."""

    span_h: float
    useful_h: float


def break_even(rental: Rental, useful_hour: float, horizon_h: float) -> float | None:
    """The use (0 to the rental's speed) at which both cost the same; None where Modal is cheaper at any.

    `useful_hour` is what one costs on Modal, in nanodollars.
    """
    border = rental.nanodollars_per_h * rental.rerun * (1 + rental.setup_h / horizon_h) / useful_hour
    return border if border < rental.speed else None


def break_even_hours(rental: Rental, useful_hour: float, rented_h: float) -> float | None:
    """As `break_even`, of a rental that is given back after `rented_h`: useful hours; None where Modal is cheaper."""
    use = break_even(rental, useful_hour, rented_h)
    return None if use is None else use * rented_h


def rentals_needed(use: float, speed: float) -> int:
    """How many cards do that work at once; one where there is none."""
    return max(1, math.ceil(use / speed - _ROUNDING))


def kept_cost(rental: Rental, use: float, horizon_h: float) -> int:
    """Nanodollars of as many rentals as the use needs, kept the whole time."""
    needed = rentals_needed(use, rental.speed)
    return round(needed * rental.nanodollars_per_h * (horizon_h + rental.setup_h) * rental.rerun)


def sessions_cost(rental: Rental, sessions: Sequence[Session]) -> int:
    """Nanodollars of one rental that is set up for every session and given back after it."""
    hours = sum(rented_hours(rental, session) + rental.setup_h for session in sessions)
    return round(rental.nanodollars_per_h * hours * rental.rerun)


def rented_hours(rental: Rental, session: Session) -> float:
    """A slower card, or one in the place of several containers, needs longer than the session took."""
    return max(session.span_h, session.useful_h / rental.speed)


def night_cost(rental: Rental) -> int:
    """Nanodollars of one night on which the rental was not given back."""
    return round(rental.nanodollars_per_h * NIGHT_H)


def price_text(nanodollars_per_h: int) -> str:
    """`$0.75/h` as prices by the hour are written; `$0.0884/h` only where there is more to say."""
    cents, rest = divmod(nanodollars_per_h, 10**7)
    return f"{money_text(nanodollars_per_h)}/h" if rest else f"${cents / 100:.2f}/h"


def on_starter(month: int) -> int:
    """What is left to pay of a month's use, after the credit."""
    return max(0, month - STARTER_CREDIT)


def on_team(month: int) -> int:
    """What a month's use comes to with the fee and after the credit."""
    return TEAM_FEE + max(0, month - TEAM_CREDIT)
