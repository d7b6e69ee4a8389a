"""Numbers and times as people read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from comfymodal.costs.rates import money_text, nanodollars_of


def seconds_in_words(seconds: float) -> str:
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def bytes_in_words(size: int) -> str:
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def shown_path(path: str) -> str:
    """Relative to the working directory where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except (ValueError, OSError):  # another drive; a working directory that was deleted
        return path
    return path if relative.split(os.sep)[0] == os.pardir else relative


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def home_path(path: str) -> str:
    home = str(Path.home())
    return "~" + path[len(home) :] if path.startswith(home + os.sep) else path


def harmless(text: str) -> str:
    """Text from a file or a server without what would steer a terminal; line ends and tabs stay."""
    return "".join(mark if mark in "\n\t" or mark.isprintable() else f"\\x{ord(mark):02x}" for mark in text)


def money_in_words(usd: str | None) -> str:
    """Dollars as JSON carries them -> `$0.0152`; `-` for what is not known."""
    return "-" if usd is None else money_text(nanodollars_of(Decimal(usd)))


def span_in_words(told: Mapping[str, Any]) -> str:
    """`$0.06 to $0.12, typically $0.09 (12 runs)` of `{low, typical, high, basis}`, amounts as words or None."""
    if told.get("typical") is None:
        return str(told["basis"])
    low, typical, high = str(told["low"]), str(told["typical"]), str(told["high"])
    span = f"{low} to {high}, " if low != high else ""
    return f"{span}typically {typical} ({told['basis']})"


def price_in_words(told: Mapping[str, Any]) -> str:
    """What a run may cost, on what and where: of a `price` event."""
    why = ", the budget's limit" if told.get("is_shortened") else ""
    limit = f"at most {told['worst']} (ends after {seconds_in_words(float(told['deadline_s']))}{why})"
    return f"{told['gpu']} {told['per_hour']} on {told['where']}: {span_in_words(told)}; {limit}"


def cost_in_words(usd: str) -> str:
    """What a run came to: an estimate until it is billed."""
    return f"{money_in_words(usd)} (est.)"
