"""The frozen values of `costs estimate`. Field names are the keys of `--json`. Dollars are text; None is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EstimateRow:
    """One container that might do it: `name` is its GPU as Modal takes it, or the pair of a sync.

    `startup_usd`, `run_usd` and `idle_usd` are parts of the typical amount, `gpu_usd` and `cpu_memory_usd` its shares.
    `basis` says what the amounts come from; `fits` is None where nobody knows, `memory` says what is known of it.
    `overhead` is paid seconds for one of use.
    """

    name: str
    is_known: bool
    per_hour: str | None = None
    usd_per_hour: str | None = None
    prices_as_of: str | None = None
    run_s: float | None = None
    low_usd: str | None = None
    typical_usd: str | None = None
    high_usd: str | None = None
    worst_usd: str | None = None
    per_item_usd: str | None = None
    basis: str = ""
    samples: int = 0
    elsewhere_s: Mapping[str, float] | None = None
    startup_s: float | None = None
    idle_s: float | None = None
    startup_usd: str | None = None
    run_usd: str | None = None
    idle_usd: str | None = None
    gpu_usd: str | None = None
    cpu_memory_usd: str | None = None
    overhead: float | None = None
    vram_gb: int | None = None
    fits: bool | None = None
    memory: str = ""


@dataclass(frozen=True, slots=True)
class EgressView:
    """What leaves Modal: `usd` is what it costs beyond the plan's free part."""

    size_bytes: int
    usd: str


@dataclass(frozen=True, slots=True)
class CostsEstimated:
    """What a render, a training or syncs may cost. `items` are prompts, trainings or pairs; `notes` what is left out.

    `rows` are choices of one thing, or for a sync one per pair; empty where nothing is paid.
    """

    kind: str
    what: str
    target: str
    items: int
    rows: tuple[EstimateRow, ...]
    egress: EgressView | None
    notes: tuple[str, ...]
