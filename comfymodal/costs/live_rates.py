"""The prices of one workspace, as Modal's billing API tells them, and the file that keeps them on this machine.

The keys are irregular (`gpu_hour_cost_a10g`, `..._rtx6000`, `..._a100_40gb`) and may become more: see `parse_rates`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from comfymodal.costs.rates import GPUS, LIST, RateTable
from comfymodal.files import read_json, write_json

MOST_AGE_S = 30 * 24 * 3600.0
"""What was told longer ago prices nothing any more."""

CLOCK_SLACK_S = 24 * 3600.0
"""A file from farther in the future was written by another clock; nobody can say how old it is."""

GPU_KEY = "gpu_hour_cost_"
CORE_KEYS = ("cpu_hour_cost", "cpu_core_hour_cost")
MEMORY_KEYS = ("mem_gib_hour_cost",)
STORAGE_KEYS = ("volume_storage_gib_month_cost",)

_ALIASES = {"A10G": "A10", "RTX6000": "RTX-PRO-6000", "RTXPRO6000": "RTX-PRO-6000"}
"""By letters and digits only: names that say less or more than ours."""

_NANO, _HOUR_S, _FORMAT = 10**9, 3600, "comfymodal-rates/1"


@dataclass(frozen=True, slots=True)
class LiveRates:
    """`told` is Modal's answer, word for word: dollars per hour (storage: per month) by key, none of them dropped."""

    table: RateTable
    told: Mapping[str, str]
    workspace: str
    fetched_at: float
    """Unix seconds."""


def parse_rates(told: Mapping[str, object], *, as_of: str) -> RateTable:
    """The prices in Modal's mapping of decimal strings; what is no price above nothing is unknown.

    A GPU that came after this release is under the name its key ends in, in capitals.
    """
    gpus: dict[str, int] = {}
    for key, value in told.items():
        price = _per_second(value)
        if key.startswith(GPU_KEY) and price is not None:
            gpus[gpu_of_key(key)] = price
    return RateTable(
        gpus,
        _per_second(_first(told, CORE_KEYS)),
        _per_second(_first(told, MEMORY_KEYS)),
        as_of,
        source="workspace",
        storage_per_gib_month=_nanodollars(_first(told, STORAGE_KEYS)),
    )


def gpu_of_key(key: str) -> str:
    """`A100-80GB` of `gpu_hour_cost_a100_80gb`."""
    suffix = key.removeprefix(GPU_KEY).upper()
    plain = re.sub(r"[^A-Z0-9]", "", suffix)
    ours = {re.sub(r"[^A-Z0-9]", "", name): name for name in GPUS}
    return _ALIASES.get(plain) or ours.get(plain) or suffix.replace("_", "-")


def unread_keys(told: Mapping[str, object]) -> tuple[str, ...]:
    """Keys of Modal's answer that price no container of ours: sandboxes, and what is new."""
    read = {*CORE_KEYS, *MEMORY_KEYS, *STORAGE_KEYS}
    return tuple(key for key in told if key not in read and not key.startswith(GPU_KEY))


def keep(path: Path, told: Mapping[str, object], *, workspace: str, now: float | None = None) -> LiveRates:
    """Write what Modal told to `path`, whole or not at all. Raises `OSError`."""
    fetched_at = time.time() if now is None else now
    texts = {str(key): str(value) for key, value in told.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"format": _FORMAT, "workspace": workspace, "fetched_at": fetched_at, "rates": texts}, indent=1)
    return LiveRates(parse_rates(texts, as_of=_day(fetched_at)), texts, workspace, fetched_at)


def read_kept(path: Path) -> LiveRates | None:
    """What `keep` wrote, however old; None when there is nothing, or something else, or half of it."""
    found = read_json(path)
    if found is None or found.get("format") != _FORMAT:
        return None
    told, fetched_at = found.get("rates"), found.get("fetched_at")
    if not isinstance(told, dict) or not isinstance(fetched_at, (int, float)) or not 0 <= fetched_at < 10**11:
        return None
    texts = {key: str(value) for key, value in told.items()}
    table = parse_rates(texts, as_of=_day(fetched_at))
    # A file that prices nothing is no price list, whatever its form.
    return LiveRates(table, texts, str(found.get("workspace") or ""), float(fetched_at)) if table.gpus else None


def current_table(path: Path, *, now: float, workspace: str | None = None) -> RateTable:
    """The table that prices now: the workspace's own while it is fresh, else our list. Asks nobody.

    `workspace`: only what that workspace was told counts.
    """
    kept = read_kept(path)
    if kept is None or not is_fresh(kept, now) or workspace not in (None, kept.workspace):
        return LIST
    return kept.table


def is_fresh(kept: LiveRates, now: float) -> bool:
    """Whether it is young enough to price by."""
    return -CLOCK_SLACK_S <= now - kept.fetched_at < MOST_AGE_S


def rates_file(state: Path, workspace: str | None, environment: str | None) -> Path:
    """Where they are kept under the state folder."""
    return state / "modal" / f"rates-{workspace or 'any'}-{environment or 'default'}.json"


def _first(told: Mapping[str, object], keys: tuple[str, ...]) -> object:
    return next((told[key] for key in keys if key in told), None)


def _per_second(per_hour: object) -> int | None:
    return _nanodollars(per_hour, parts=_HOUR_S)


def _nanodollars(amount: Any, parts: int = 1) -> int | None:
    """None for what is no amount above nothing: '', '0E-8', 'NaN', -1."""
    try:
        value = Decimal(str(amount))
    except InvalidOperation:
        return None
    # The upper bound also keeps an exponent of thousands from being computed.
    if not value.is_finite() or not 0 < value < 1_000_000:
        return None
    return int((value * _NANO / parts).to_integral_value(ROUND_HALF_UP)) or None


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
