"""The kinds of values of a rented GPU in the project file. Reads no files, and no clock."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

from comfymodal.project.problems import Mistake

RENTAL_PRICES = ("usd_per_hour", "disk_usd_per_hour")
"""Keys that are dollars: never binary fractions."""

DEAREST_USD_PER_H = 10_000


def parse_usd_per_hour(text: str) -> Decimal:
    """Read `0.75` or `$0.75`. Raises ValueError for what is no price from 0 to 10000 with at most 9 decimals."""
    plain = text.strip().removeprefix("$")
    amount = Decimal(plain) if re.fullmatch(r"[0-9]{1,5}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}", plain) else None
    if amount is None or amount > DEAREST_USD_PER_H:
        raise Mistake(
            f"must be US dollars an hour, at most {DEAREST_USD_PER_H}, for example 0.75",
            hint="write the number alone, with a point",
        )
    return amount


def parse_price(text: str) -> Decimal:
    """As `parse_usd_per_hour`, above 0."""
    amount = parse_usd_per_hour(text)
    if not amount:
        raise Mistake("must be above 0: a card of your own has no price by the hour to compare with")
    return amount


def parse_day(text: str) -> date:
    """Read `2026-11-20`. Raises ValueError."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise ValueError("must be a day, written as 2026-11-20")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _between(least: float, most: float) -> tuple[Any, ...]:
    def check(value: float) -> float:
        # NaN is between nothing.
        if not least <= value <= most:
            raise ValueError(f"must be {least:g} to {most:g}, not {value:g}")
        return value

    return AfterValidator(check), WithJsonSchema({"type": "number", "minimum": least, "maximum": most})


def _as_day(text: str) -> str:
    return parse_day(text).isoformat()


def _plain(amount: Decimal) -> str:
    return f"{amount:f}"


_SHOWN = PlainSerializer(_plain, when_used="json")

UsdPerHour = Annotated[
    Decimal,
    PlainValidator(lambda value: parse_price(_text(value))),
    _SHOWN,
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": DEAREST_USD_PER_H}),
]
UsdPerHourOrNone = Annotated[
    Decimal,
    PlainValidator(lambda value: parse_usd_per_hour(_text(value))),
    _SHOWN,
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": DEAREST_USD_PER_H}),
]
Day = Annotated[
    str, AfterValidator(_as_day), WithJsonSchema({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"})
]
"""ISO date."""

Speed = Annotated[float, *_between(0.01, 100)]
SetupHours = Annotated[float, *_between(0, 1000)]
Rerun = Annotated[float, *_between(1, 10)]
