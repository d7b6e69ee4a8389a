"""Rows of `costs estimate`: one container that might do it, with what it costs and what that is based on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comfymodal.costs.estimate import Batch, Estimate
from comfymodal.costs.rates import GpuChoice, Rate, hourly_text, money_json, parse_gpu
from comfymodal.errors import NotReadyError
from comfymodal.operations.costs_estimate_results import EstimateRow
from comfymodal.operations.experience import Experience
from comfymodal.operations.terms import Terms

FITS_PERCENT = 95
"""Of a card's nominal memory: the driver keeps some."""

LEFT_OUT = "left out: credits of the plan, failed and repeated attempts, the building of images, storage"
NOTHING_PAID = "on this machine nothing is paid; --gpus, or --target modal, says what Modal would ask"


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of a GPU's memory: whether it is enough is None where nobody knows."""

    vram_gb: int
    fits: bool | None
    words: str


def unknown_row(name: str) -> EstimateRow | None:
    """The row of a name that is no GPU of Modal's; None for one that is."""
    try:
        parse_gpu(name)
    except ValueError as exc:
        return EstimateRow(name, is_known=False, basis=f"unknown: {exc}")
    return None


def unpriced_row(name: str, why: NotReadyError) -> EstimateRow:
    """The row of a GPU whose price nobody has told."""
    return EstimateRow(name, is_known=False, basis=f"unknown: {why.message}")


def row_of(
    name: str, terms: Terms, told: Estimate, seen: Experience, *, items: int = 1, memory: Memory | None = None
) -> EstimateRow:
    """`told` and `seen` are of all `items`."""
    rate, idle_s = terms.rate, terms.idle_s
    amounts = {"low": told.low, "typical": told.typical, "high": told.high, "worst": told.worst}
    gpu, other = _shares(rate, told.typical)
    parts = {"startup": told.startup, "run": told.run, "idle": told.idle, "gpu": gpu, "cpu_memory": other}
    each = None if told.typical is None else told.typical // items
    usd = amounts | parts | {"per_item": each}
    return EstimateRow(
        name,
        is_known=True,
        per_hour=hourly_text(rate),
        usd_per_hour=money_json(rate.nanodollars_per_h),
        prices_as_of=rate.as_of,
        run_s=None if seen.run is None else round(seen.run.typical, 3),
        basis=seen.basis,
        samples=seen.samples,
        elsewhere_s=seen.elsewhere or None,
        startup_s=round(seen.startup.typical, 3),
        idle_s=idle_s,
        overhead=_overhead(seen, idle_s),
        vram_gb=memory.vram_gb if memory else None,
        fits=memory.fits if memory else None,
        memory=memory.words if memory else "",
        **{f"{part}_usd": money_json(amount) for part, amount in usd.items()},
    )


def render_memory(choices: Sequence[GpuChoice], peak_bytes: int | None) -> Memory:
    """Whether a workflow fits, where that is sure. With less than it used elsewhere it may work, slower: ComfyUI then
    keeps weights in main memory.
    """
    vram_gb = min(choice.card.vram_gb for choice in choices)
    if peak_bytes is None:
        return Memory(vram_gb, None, "how much it uses was never seen")
    used = f"{peak_bytes / 10**9:.1f} GB were seen in use"
    if peak_bytes * 100 <= FITS_PERCENT * vram_gb * 10**9:
        return Memory(vram_gb, True, used)
    return Memory(vram_gb, None, f"{used}, more than it has: it may work, slower")


def _shares(rate: Rate, typical: int | None) -> tuple[int | None, int | None]:
    """Of the typical amount: the GPU's, and that of the cores and the memory beside it."""
    if typical is None:
        return None, None
    gpu = typical * rate.gpu_nanodollars_per_s // rate.nanodollars_per_s
    return gpu, typical - gpu


def _overhead(seen: Experience, idle_s: float) -> float | None:
    if seen.run is None:
        return None
    found = Batch(1, seen.run.typical, seen.startup.typical + idle_s).overhead
    return None if found is None else round(found, 3)
