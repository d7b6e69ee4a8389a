"""What a person reads of `costs rates`, as lines of columns; pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from comfymodal.operations.costs_rates_results import PartView, RatesReport, RateView
from comfymodal.output.words import money_in_words

Rows = list[tuple[str, ...]]

UNKNOWN = "unknown"


def rates_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows of the prices; None for any other result."""
    if not isinstance(result, RatesReport):
        return None
    is_list = result.source == "list"
    rows = [_row(view, is_list=is_list) for view in (*result.gpus, *result.container)]
    rows += [(part.name, _price(part), "", part.note) for part in result.others]
    rows += [(f"region {one.regions}", f"{one.factor} times", "", _use(one.is_used, result)) for one in result.factors]
    rows.append(("prices", *_source(result)))
    return ("", "per hour", "per second", "" if is_list else f"our list of {result.list_as_of}"), rows


def _row(view: RateView, *, is_list: bool) -> tuple[str, ...]:
    per_hour = UNKNOWN if view.per_hour is None else money_in_words(view.per_hour)
    per_s = "" if view.per_s is None else f"${Decimal(view.per_s):.7f}"
    return view.name, per_hour, per_s, "" if is_list else _change(view)


def _change(view: RateView) -> str:
    if view.list_per_hour is None:
        return "not in it"
    listed = money_in_words(view.list_per_hour)
    if view.change is None:
        return f"{listed} there"
    return "the same" if view.change == 0 else f"{view.change:+.1%} ({listed} there)"


def _price(part: PartView) -> str:
    return f"{UNKNOWN if part.price is None else money_in_words(part.price)} per {part.unit}"


def _use(is_used: bool, result: RatesReport) -> str:
    told = f"GPU, cores and memory, as of {result.factors_as_of}"
    return f"{told}; this project's: {result.region}" if is_used else told


def _source(result: RatesReport) -> tuple[str, str, str]:
    if result.source == "workspace":
        return f"of workspace {result.workspace}", result.as_of, "ask again: comfymodal costs rates --refresh"
    return "of our list", result.as_of, f"{result.why_list}: comfymodal costs rates --refresh"
