"""What a person reads of `costs compare`: sentences, a table of options, and what is in none of it; pure."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from comfymodal.costs.compare import price_text
from comfymodal.costs.rates import nanodollars_of
from comfymodal.operations.compare_results import CardView, CostsCompared, OptionView, PlansView, RentalView
from comfymodal.output.words import count, money_in_words

Rows = list[tuple[str, ...]]

TITLES = ("", "what", "per hour", "cost", "break-even", "price -50 %", "price +50 %")
TICK = "✓"


def compare_lines(result: Any) -> list[str]:
    """What stands above the table; nothing for any other result."""
    if not isinstance(result, CostsCompared):
        return []
    return [line for card in result.cards for line in _card_lines(card, result.hours)]


def compare_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows; None for any other result."""
    if not isinstance(result, CostsCompared):
        return None
    return TITLES, [row for card in result.cards if _options(card) for row in _card_rows(card)]


def compare_end(result: Any) -> list[str]:
    """What stands below the table."""
    if not isinstance(result, CostsCompared):
        return []
    plans = [_plans_line(result.plans)] if result.plans else []
    return [*plans, *(f"left out: {what}" for what in result.left_out)]


def _card_lines(card: CardView, hours: float) -> Iterator[str]:
    yield _use_line(card, hours)
    if card.runs and not _options(card):
        yield from _even_line(card)
    for rental in card.rentals:
        yield from _rental_lines(rental, hours)


def _use_line(card: CardView, hours: float) -> str:
    if not card.runs:
        unknown = f" but {count(card.unknown_runs, 'run')} of unknown cost" if card.unknown_runs else ""
        if card.usd_per_hour is None:
            return f"No use of {card.gpu} yet{unknown}, and what it costs is not known."
        return (
            f"No use of {card.gpu} yet{unknown}: its break-even is told as if all paid time were useful, at "
            f"{_per_hour(card.usd_per_hour)} (price of {card.price_as_of})."
        )
    use, a_day = card.use or 0.0, _time(card.useful_hours / hours * 24)
    overhead = f" ({card.overhead:.2f} times)" if card.overhead else ""
    return (
        f"You used {a_day} a day of {card.gpu} ({_percent(use)}) in {_span(hours)}: {_time(card.useful_hours)} of work "
        f"in {_time(card.paid_hours)} paid{overhead}, {money_in_words(card.usd)} at {_per_hour(card.usd_per_hour)}."
    )


def _even_line(card: CardView) -> Iterator[str]:
    if card.even_usd_per_hour is None:
        yield f"Nothing useful came of {card.gpu}: there is nothing to compare."
    elif not card.rentals:
        yield (
            f"A rental as fast that is kept the whole time would be cheaper below {_per_hour(card.even_usd_per_hour)}; "
            "no price of one is known (costs.rentals in comfymodal.yaml, or --usd-per-hour)."
        )


def _rental_lines(rental: RentalView, hours: float) -> Iterator[str]:
    now = [option for option in rental.options if option.price_factor == 1.0]
    for option in now:
        if option.how == "kept":
            yield (
                f"Break-even with {rental.name} ({_per_hour(rental.usd_per_hour)} of {rental.as_of}) is "
                f"{_border(option, 'a day')}."
            )
    verdicts = [_verdict(rental, option) for option in now if option.saving_usd is not None]
    if verdicts:
        yield f"Modal is {', and '.join(verdicts)}, in {_span(hours)}."
    for option in rental.options:
        same = next(each for each in now if each.how == option.how)
        if option.saving_usd is not None and same.saving_usd is not None and _flips(option, same):
            yield f"At {_per_hour(option.usd_per_hour)} it is the other way round: Modal is {_verdict(rental, option)}."
    if any(option.how == "returned" for option in now):
        yield (
            f"Returned means before gaps of 4 h and more, {count(rental.sessions, 'time')} here; a night on which "
            f"nobody does costs {money_in_words(rental.night_usd)}."
        )


def _verdict(rental: RentalView, option: OptionView) -> str:
    saving = Decimal(option.saving_usd or 0)
    way = f"{rental.name} {option.how}"
    if option.how == "kept" and rental.cards > 1:
        way = f"{rental.cards} of {way}"
    return f"{'dearer' if saving < 0 else 'cheaper'} by {money_in_words(str(abs(saving)))} than {way}"


def _flips(option: OptionView, same: OptionView) -> bool:
    return (Decimal(option.saving_usd or 0) < 0) is not (Decimal(same.saving_usd or 0) < 0)


def _options(card: CardView) -> list[OptionView]:
    return [option for rental in card.rentals for option in rental.options]


def _card_rows(card: CardView) -> Iterator[tuple[str, ...]]:
    cost = money_in_words(card.usd) if card.runs else "-"
    yield (_tick(card, "modal"), f"Modal {card.gpu}", _per_hour(card.usd_per_hour), cost, "", "", "")
    for rental in card.rentals:
        for how in dict.fromkeys(option.how for option in rental.options):
            now, half, more = (option for option in rental.options if option.how == how)
            yield (
                _tick(card, f"{how} {rental.name}"),
                f"{rental.name}, {how}",
                _per_hour(now.usd_per_hour),
                money_in_words(now.usd),
                "none" if now.break_even_hours is None else f"{_time(now.break_even_hours)} of {_time(now.of_hours)}",
                _short(half),
                _short(more),
            )


def _tick(card: CardView, which: str) -> str:
    return TICK if card.cheapest == which else ""


def _short(option: OptionView) -> str:
    border = "none" if option.break_even_hours is None else _time(option.break_even_hours)
    return border if option.usd is None else f"{money_in_words(option.usd)} ({border})"


def _border(option: OptionView, every: str) -> str:
    if option.break_even_hours is None:
        return "beyond all it can do: Modal is cheaper at any use"
    return f"{_percent(option.break_even_hours / option.of_hours)} = {_time(option.break_even_hours)} {every}"


def _plans_line(plans: PlansView) -> str:
    return (
        f"All GPUs of this project: {money_in_words(plans.usd)} in 30 days; to pay on Starter, after its credit, "
        f"{money_in_words(plans.starter_usd)}; on Team, with its fee, {money_in_words(plans.team_usd)} "
        f"(plans of {plans.as_of}; other projects use the same credit)"
    )


def _per_hour(usd: str | None) -> str:
    return "-" if usd is None else price_text(nanodollars_of(Decimal(usd)))


def _percent(share: float) -> str:
    percent = share * 100
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def _time(hours: float) -> str:
    """`41 min`, `7.5 h`."""
    if 0 < hours < 0.5 / 60:
        return "<1 min"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{f'{hours:.1f}'.removesuffix('.0')} h"


def _span(hours: float) -> str:
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
