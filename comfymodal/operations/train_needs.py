"""What a training needs on a GPU of Modal's: memory, disk, time, and money where it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from comfymodal.costs.rates import (
    GPUS,
    GpuChoice,
    RateTable,
    hourly_text,
    money_json,
    money_text,
    parse_gpu,
    training_rate,
)
from comfymodal.errors import NotReadyError, UsageError
from comfymodal.operations.terms import TRAIN_IDLE_S, TRAIN_STARTUP_S
from comfymodal.operations.train_datasets import Places
from comfymodal.operations.train_results import CostView, NeedsView, ProblemView
from comfymodal.training.ai_toolkit.accept import Accepted
from comfymodal.training.ai_toolkit.reading import load_of
from comfymodal.training.config import TrainingConfig
from comfymodal.training.dataset_report import DatasetReport, mean_area
from comfymodal.training.needs import (
    DiskNeed,
    Load,
    MemoryNeed,
    RunTime,
    StepTime,
    Work,
    cannot_train_on,
    disk_need,
    host_memory_gb,
    judge,
    memory_need,
    risk_s,
    run_time,
    step_time,
)
from comfymodal.training.recipes import recipe_of

DEFAULT_GPU = "A100-80GB"
"""For a model without a recipe."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A GPU and who named it."""

    choice: GpuChoice
    by: str


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier trainings and the project say: seconds of a step with these settings on this GPU, and the longest
    that a training may take. None is not known.
    """

    step_s: float | None = None
    timeout_s: float | None = None


def wanted_gpu(
    flag: str | None, accepted: Accepted, config: TrainingConfig | None, places: Places
) -> Wanted | ProblemView | None:
    """The GPU of the flag, else of the short form, the project, the recipe, and at last ours; a problem where the form
    names none of Modal's.

    Raises `UsageError` for the flag.
    """
    if flag is not None:
        try:
            return Wanted(parse_gpu(flag), "--gpu")
        except ValueError as exc:
            raise UsageError(f"--gpu {exc}") from exc
    if accepted.form and accepted.form.gpu:
        try:
            return Wanted(parse_gpu(accepted.form.gpu), "the config")
        except ValueError as exc:
            return ProblemView("error", "unknown_gpu", "", "gpu", str(exc), f"one of {', '.join(GPUS)}")
    if places.gpu is not None:
        return Wanted(parse_gpu(places.gpu), "training.gpu")
    recipe = recipe_of(config.arch, config.base_model) if config else None
    if recipe is not None:
        return Wanted(parse_gpu(recipe.gpu), "the recipe")
    return Wanted(parse_gpu(DEFAULT_GPU), "the default") if config is not None else None


def needs_of(
    config: TrainingConfig,
    wanted: Wanted,
    reports: Sequence[DatasetReport] | None,
    past: Past = Past(),
    *,
    table: RateTable | None,
) -> NeedsView:
    """`reports` of all datasets; without them a typical picture is as large as the resolution allows.

    No cost without a table.
    """
    load = load_of(config, mean_area(reports) if reports else None)
    memory, disk = memory_need(load), _disk(config, load, reports)
    step = step_time(load, wanted.choice.name, past.step_s)
    time = _time(config, load, step, reports)
    fitting = _fitting(memory)
    return NeedsView(
        gpu=wanted.choice.label,
        gpu_from=wanted.by,
        vram_gb=wanted.choice.card.vram_gb,
        memory_gb=round(memory.gb, 1) if memory else None,
        memory_certainty=memory.certainty if memory else None,
        memory_source=memory.source if memory else "",
        verdict=judge(memory, wanted.choice.card.vram_gb) if memory else None,
        gpus=fitting,
        host_memory_gb=host_memory_gb(load),
        download_gb=round(disk.download, 1) if disk else None,
        scratch_gb=round(disk.scratch, 1) if disk else None,
        volume_gb=round(disk.volume, 1) if disk else None,
        step_s=round(step.seconds, 2) if step else None,
        run_s=round(time.seconds) if time else None,
        run_low_s=round(time.low) if time else None,
        run_high_s=round(time.high) if time else None,
        time_certainty=time.certainty if time else None,
        risk_s=round(risk_s(step, config.save_every)) if step else None,
        cost=_cost(wanted, time, host_memory_gb(load), past, table) if time and table else None,
    )


def gpu_problems(needs: NeedsView, config: TrainingConfig, place: str, *, offloads: bool) -> Iterator[ProblemView]:
    """What speaks against the GPU. Only what is certain is an error: arithmetic may be off by a third."""
    key = "gpu"
    if why := cannot_train_on(needs.gpu):
        yield ProblemView("error", "useless_gpu", place, key, f"{needs.gpu} is no use: {why}", _others(needs))
        return
    if ":" in needs.gpu:
        one = needs.gpu.partition(":")[0]
        message = f"{needs.gpu}: the trainer uses one GPU, the others would be paid for and idle"
        yield ProblemView("warning", "many_gpus", place, key, message, f"--gpu {one}")
    if needs.verdict not in ("tight", "too_small"):
        return
    weights = (memory_need(load_of(config)) or MemoryNeed(0, "estimate", {})).parts.get("model", 0)
    is_hopeless = weights > needs.vram_gb and not offloads and not config.low_vram
    about = f"about {needs.memory_gb:.0f} GB ({needs.memory_certainty}{_source(needs)})"
    word = "has too little memory" if needs.verdict == "too_small" else "may have too little memory"
    message = f"{needs.gpu} {word}: {needs.vram_gb} GB, and it needs {about}"
    kind = "gpu_memory" if needs.verdict == "too_small" else "tight_memory"
    yield ProblemView("error" if is_hopeless else "warning", kind, place, key, message, _others(needs))


def _source(needs: NeedsView) -> str:
    return f": {needs.memory_source}" if needs.memory_source else ""


def _others(needs: NeedsView) -> str:
    if not needs.gpus:
        return "no single GPU holds it: quantize the model, fewer pixels, a smaller rank"
    return f"--gpu {needs.gpus[0]}, or quantize the model, fewer pixels"


def _fitting(memory: MemoryNeed | None) -> tuple[str, ...]:
    cheapest = sorted(GPUS.values(), key=lambda gpu: gpu.nanodollars_per_s)
    return tuple(
        gpu.name
        for gpu in (cheapest if memory else ())
        if memory and judge(memory, gpu.vram_gb) == "fits" and cannot_train_on(gpu.name) is None
    )


def _items(reports: Sequence[DatasetReport] | None) -> int:
    return sum(len(report.items) * len(report.settings.resolutions) for report in reports or ())


def _disk(config: TrainingConfig, load: Load, reports: Sequence[DatasetReport] | None) -> DiskNeed | None:
    size = sum(report.size_bytes for report in reports or ())
    return disk_need(load, size, _items(reports), config.keep_saves, config.sample_count)


def _time(
    config: TrainingConfig, load: Load, step: StepTime | None, reports: Sequence[DatasetReport] | None
) -> RunTime | None:
    if step is None:
        return None
    caches = any(dataset.caches_latents for dataset in config.datasets)
    work = Work(config.steps, config.sample_count, config.sample_steps, _items(reports) if caches else 0)
    return run_time(load, step, work)


def _cost(wanted: Wanted, time: RunTime, memory_gib: int | None, past: Past, table: RateTable) -> CostView | None:
    try:
        rate = training_rate(wanted.choice, memory_gib or 0, table)
    except NotReadyError:
        return None
    likely, low, high = (rate.cost(seconds) for seconds in (time.seconds, time.low, time.high))
    words = f"about {money_text(likely)} ({money_text(low)} to {money_text(high)})"
    told: dict[str, Any] = {"usd": money_json(likely), "low_usd": money_json(low), "high_usd": money_json(high)}
    if past.timeout_s is not None:
        worst = rate.cost(TRAIN_STARTUP_S + past.timeout_s + TRAIN_IDLE_S)
        words += f"; at most {money_text(worst)}"
        told["worst_usd"] = money_json(worst)
    return CostView(**told, words=words, per_hour=hourly_text(rate), as_of=rate.as_of)
