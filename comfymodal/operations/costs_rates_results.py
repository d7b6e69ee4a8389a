"""What `costs rates` returns. Field names are the keys of `--json`: adding one is free, renaming is not.

Money is US dollars as text, before credits; None is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RateView:
    """One price beside the one of our list; `change` is by how much it differs, 0.1 being a tenth dearer.

    `change` is None where one of the two is unknown, and 0 where they differ by rounding only.
    """

    name: str
    per_hour: str | None
    per_s: str | None
    list_per_hour: str | None
    change: float | None


@dataclass(frozen=True, slots=True)
class PartView:
    """A price that is not per hour: `unit` says per what, `note` what is free."""

    name: str
    price: str | None
    unit: str
    note: str


@dataclass(frozen=True, slots=True)
class FactorView:
    """What multiplies GPU, cores and memory; `is_used` by this project."""

    regions: str
    factor: str
    is_used: bool


@dataclass(frozen=True, slots=True)
class RatesReport:
    """`source` says whose prices these are, `as_of` of which day; `why_list` why they are not the workspace's own.

    `told` is Modal's answer by Modal's keys, as far as there is one; `unread` are keys of it that price nothing here.
    """

    source: Literal["list", "workspace"]
    as_of: str
    workspace: str | None
    list_as_of: str
    why_list: str | None
    region: str | None
    gpus: tuple[RateView, ...]
    container: tuple[RateView, ...]
    others: tuple[PartView, ...]
    factors: tuple[FactorView, ...]
    factors_as_of: str
    told: Mapping[str, str]
    unread: tuple[str, ...]
