"""`comfymodal costs estimate train` and `sync`: from this machine's ledger and tables; asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from comfymodal.costs.estimate import Estimate, Span
from comfymodal.costs.rates import SYNC_CONTAINER_CORES, SYNC_CONTAINER_GIB, GpuChoice, parse_gpu
from comfymodal.errors import NotReadyError, TrainingConfigError
from comfymodal.operations.context import Context
from comfymodal.operations.costs_estimate_results import CostsEstimated, EstimateRow
from comfymodal.operations.costs_rows import LEFT_OUT, NOTHING_PAID, Memory, row_of, unknown_row, unpriced_row
from comfymodal.operations.desk import Desk
from comfymodal.operations.ends import one_way_pairs, pair_of
from comfymodal.operations.experience import Experience, experience_of_sync, experience_of_training
from comfymodal.operations.sync_jobs import Wish, draft_of
from comfymodal.operations.terms import SYNC_STARTUP_S, sync_terms, train_terms
from comfymodal.operations.train_check import CheckedRun, Examined, TrainRequest, examine
from comfymodal.operations.train_datasets import places_of
from comfymodal.operations.train_history import StepTimes, read_step_times
from comfymodal.operations.train_needs import Past, Wanted, needs_of
from comfymodal.operations.train_results import NeedsView

_OF_GPU = ("gpu_memory", "useless_gpu")
"""Problems of one GPU: they do not speak against the others."""


def estimate_training(request: TrainRequest, gpus: Sequence[str], context: Context, desk: Desk) -> CostsEstimated:
    """What a training, or all of a sweep, may cost on each GPU; without any on the one it would have.

    Raises `TrainingConfigError` for a config that is wrong.
    """
    places = places_of(context.project, context.state, context.warnings)
    examined = examine(replace(request, is_check=True), places, desk)
    _require_sound(examined)
    is_paid = bool(gpus) or context.project.target == "modal"
    wanted = list(gpus) or [run.gpu.label for run in examined.runs[:1] if run.gpu is not None]
    steps = read_step_times(places.ledger, desk)
    return CostsEstimated(
        kind="train",
        what=examined.source.shown,
        target="modal" if is_paid else context.project.target,
        items=len(examined.runs),
        rows=tuple(_training_row(name, examined.runs, steps, context) for name in wanted if is_paid),
        egress=None,
        notes=(LEFT_OUT,) if is_paid else (NOTHING_PAID,),
    )


def estimate_syncs(names: Sequence[str], context: Context, desk: Desk) -> CostsEstimated:
    """What the containers of these pairs, or of every one-way pair, cost by their earlier syncs.

    What there is to move only a look at both sides tells. Raises `NotFoundError` for a pair that is none.
    """
    for warning in context.warnings:
        desk.warn(warning)
    pairs = [pair_of(context.project, name) for name in names] if names else one_way_pairs(context.project)
    drafts = [draft_of(pair, Wish(), context) for pair in pairs]
    notes = (
        f"on Modal each runs in a container of {SYNC_CONTAINER_CORES} cores and {SYNC_CONTAINER_GIB} GiB",
        "what there is to move, and what the bucket's vendor asks for that: comfymodal sync PAIR --dry-run",
        LEFT_OUT,
    )
    return CostsEstimated(
        kind="sync",
        what=", ".join(draft.name for draft in drafts),
        target=context.project.target,
        items=len(drafts),
        rows=tuple(_sync_row(draft.name, draft.target, context) for draft in drafts),
        egress=None,
        notes=notes,
    )


def _require_sound(examined: Examined) -> None:
    for problem in examined.checked.problems:
        if problem.severity == "error" and problem.kind not in _OF_GPU:
            place = f"{problem.place}: " if problem.place else ""
            hint = f"all that is wrong: comfymodal train {examined.source.shown} --check"
            raise TrainingConfigError(f"{place}{problem.message}", hint=hint)


def _training_row(name: str, runs: Sequence[CheckedRun], steps: StepTimes, context: Context) -> EstimateRow:
    """All runs of a sweep together, each in a container of its own."""
    if (unknown := unknown_row(name)) is not None:
        return unknown
    choice = parse_gpu(name)
    needs = [_needs(run, choice, steps) for run in runs]
    try:
        memory_gb = max(each.host_memory_gb or 0 for each in needs)
        terms = train_terms(choice, memory_gb, context.rates, timeout_s=context.project.training.timeout)
    except NotReadyError as exc:
        return unpriced_row(name, exc)
    seen = [experience_of_training(each.run_s, each.run_low_s, each.run_high_s, each.time_certainty) for each in needs]
    told = _total([terms.estimate(each) for each in seen])
    return row_of(choice.label, terms, told, _together(seen), items=len(runs), memory=_memory(choice, needs))


def _needs(run: CheckedRun, choice: GpuChoice, steps: StepTimes) -> NeedsView:
    assert run.config is not None
    past = Past(steps.of(run.config, choice.label))
    return needs_of(run.config, Wanted(choice, "--gpus"), run.looked.all_reports, past, table=None)


def _total(told: Sequence[Estimate]) -> Estimate:
    def whole(name: str) -> int | None:
        amounts = [getattr(each, name) for each in told]
        return None if None in amounts else sum(amounts)

    worst, startup, idle = (sum(getattr(each, name) for each in told) for name in ("worst", "startup", "idle"))
    low, typical, high, run = (whole(name) for name in ("low", "typical", "high", "run"))
    return Estimate(low, typical, high, worst, startup, run, idle)


def _together(seen: Sequence[Experience]) -> Experience:
    spans = [each.run for each in seen if each.run is not None]
    whole = Span(*(sum(getattr(span, name) for span in spans) for name in ("low", "typical", "high")))
    return replace(seen[0], run=whole if len(spans) == len(seen) else None)


def _memory(choice: GpuChoice, needs: Sequence[NeedsView]) -> Memory:
    """Only what was measured or documented is sure; what is computed may be off by a third."""
    most = max(needs, key=lambda each: each.memory_gb or 0.0)
    if most.memory_gb is None:
        return Memory(choice.card.vram_gb, None, "what it needs is not known")
    is_sure = all(each.memory_certainty in ("measured", "documented") for each in needs)
    fits = True if is_sure and all(each.verdict == "fits" for each in needs) else None
    verdict = "" if most.verdict == "fits" else f", {str(most.verdict).replace('_', ' ')}"
    return Memory(choice.card.vram_gb, fits, f"about {most.memory_gb:g} GB ({most.memory_certainty}){verdict}")


def _sync_row(name: str, target: str, context: Context) -> EstimateRow:
    if target != "modal":
        basis = "it runs on this machine"
        return EstimateRow(name, is_known=True, low_usd="0", typical_usd="0", high_usd="0", worst_usd="0", basis=basis)
    seen, terms = experience_of_sync(context.ledger, "sync", f"sync {name}", SYNC_STARTUP_S), sync_terms(context.rates)
    return row_of(name, terms, terms.estimate(seen), seen)
