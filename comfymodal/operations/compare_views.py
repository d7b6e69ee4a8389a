"""A GPU of Modal beside the rentals that could stand in for it, as people and scripts see them; pure."""

from __future__ import annotations

from collections.abc import Sequence

from comfymodal.costs.compare import (
    Rental,
    break_even,
    break_even_hours,
    kept_cost,
    night_cost,
    rentals_needed,
    rented_hours,
    sessions_cost,
)
from comfymodal.costs.rates import Rate, money_json
from comfymodal.operations.compare_results import CardView, OptionView, RentalView
from comfymodal.runs.usage import GpuUsage

FACTORS = (1.0, 0.5, 1.5)
"""The median of a marketplace has moved by half within a day (A100, 2026-10-28 to 29)."""


def card_view(usage: GpuUsage, rate: Rate | None, rentals: Sequence[Rental], hours: float) -> CardView:
    """What `hours` of use came to and would have come to; `rate` is what stands in where there was no use."""
    useful_h, paid_h = usage.useful_s / 3600, usage.paid_s / 3600
    views = tuple(_rental(rental, usage, rate, hours) for rental in rentals)
    per_hour = rate.nanodollars_per_h if rate else _ratio(usage.nanodollars, paid_h)
    return CardView(
        gpu=usage.gpu,
        runs=usage.runs,
        unknown_runs=usage.unknown,
        useful_hours=round(useful_h, 4),
        paid_hours=round(paid_h, 4),
        overhead=paid_h / useful_h if useful_h else None,
        use=useful_h / hours if usage.runs else None,
        usd_per_hour=None if per_hour is None else money_json(round(per_hour)),
        price_as_of=rate.as_of if rate else None,
        usd=money_json(usage.nanodollars),
        even_usd_per_hour=money_json(round(usage.nanodollars / hours)) if _is_comparable(usage) else None,
        cheapest=_cheapest(views),
        rentals=views,
    )


def _is_comparable(usage: GpuUsage) -> bool:
    """Where nothing useful came out of it, a rental of any price would have been as useful."""
    return usage.useful_s > 0 and usage.nanodollars > 0


def _ratio(nanodollars: int, hours: float) -> float | None:
    return nanodollars / hours if hours else None


def _rental(rental: Rental, usage: GpuUsage, rate: Rate | None, hours: float) -> RentalView:
    options: list[OptionView] = []
    if rate is not None:
        useful_hour = float(rate.nanodollars_per_h)
        options = [_kept(rental, factor, useful_hour, hours, None) for factor in FACTORS]
    elif _is_comparable(usage):
        useful_hour = usage.nanodollars / (usage.useful_s / 3600)
        options = [_kept(rental, factor, useful_hour, hours, usage) for factor in FACTORS]
        options += [_returned(rental, factor, useful_hour, usage) for factor in FACTORS]
    return RentalView(
        name=rental.name,
        usd_per_hour=money_json(rental.nanodollars_per_h),
        as_of=rental.as_of,
        speed=rental.speed,
        setup_hours=rental.setup_h,
        rerun=rental.rerun,
        cards=rentals_needed(usage.useful_s / 3600 / hours, rental.speed),
        sessions=len(usage.sessions),
        night_usd=money_json(night_cost(rental)),
        options=tuple(options),
    )


def _kept(rental: Rental, factor: float, useful_hour: float, hours: float, usage: GpuUsage | None) -> OptionView:
    at = rental.at(factor)
    border = break_even(at, useful_hour, hours)
    usd = None if usage is None else kept_cost(at, usage.useful_s / 3600 / hours, hours)
    return _option("kept", at, factor, (None if border is None else border * 24, 24.0), usd, usage)


def _returned(rental: Rental, factor: float, useful_hour: float, usage: GpuUsage) -> OptionView:
    at, sessions = rental.at(factor), usage.sessions
    rented_h = sum(rented_hours(at, session) for session in sessions) / len(sessions)
    border = break_even_hours(at, useful_hour, rented_h)
    return _option("returned", at, factor, (border, rented_h), sessions_cost(at, sessions), usage)


def _option(
    how: str,
    at: Rental,
    factor: float,
    border: tuple[float | None, float],
    usd: int | None,
    usage: GpuUsage | None,
) -> OptionView:
    saving = None if usd is None or usage is None else usd - usage.nanodollars
    return OptionView(
        how=how,
        price_factor=factor,
        usd_per_hour=money_json(at.nanodollars_per_h),
        break_even_hours=border[0],
        of_hours=border[1],
        usd=money_json(usd),
        saving_usd=money_json(saving),
    )


def _cheapest(rentals: Sequence[RentalView]) -> str | None:
    savings = {
        f"{option.how} {rental.name}": float(option.saving_usd)
        for rental in rentals
        for option in rental.options
        if option.price_factor == 1.0 and option.saving_usd is not None
    }
    if not savings:
        return None
    name = min(savings, key=lambda each: savings[each])
    return name if savings[name] < 0 else "modal"
