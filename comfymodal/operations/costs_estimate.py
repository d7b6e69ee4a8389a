"""`comfymodal costs estimate render`: what a workflow may cost, from this machine's ledger and tables.

Starts, installs and asks nothing: works without a token and without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from comfymodal.costs.rates import EGRESS_NANODOLLARS_PER_GIB, dollars, parse_gpu
from comfymodal.errors import ComfymodalError, NotReadyError
from comfymodal.operations.check import check_workflow, nodes_of_catalog
from comfymodal.operations.context import Context
from comfymodal.operations.costs_estimate_results import CostsEstimated, EgressView, EstimateRow
from comfymodal.operations.costs_rows import LEFT_OUT, NOTHING_PAID, render_memory, row_of, unknown_row, unpriced_row
from comfymodal.operations.desk import Desk
from comfymodal.operations.experience import experience_of_render
from comfymodal.operations.modal_spec import modal_spec
from comfymodal.operations.terms import render_terms
from comfymodal.targets.spec import ContainerSpec
from comfymodal.workflow.graph import Graph, read_workflow
from comfymodal.workflow.override import apply_overrides, parse_overrides


@dataclass(frozen=True, slots=True)
class RenderWish:
    """One `costs estimate render` as asked for."""

    workflow: Path
    overrides: tuple[str, ...] = ()
    items: int = 1
    gpus: tuple[str, ...] = ()
    """To compare; empty: the project's, of which one is taken."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What the rows have in common."""

    fingerprint: str
    items: int
    peak_bytes: int | None
    limits: ContainerSpec


def estimate_render(wish: RenderWish, context: Context, desk: Desk) -> CostsEstimated:
    """What so many prompts of a workflow, one after the other in one container, may cost on each GPU.

    Raises `WorkflowError`, and `UsageError` for an override that is none.
    """
    for warning in context.warnings:
        desk.warn(warning)
    workflow, ledger = read_workflow(wish.workflow), context.ledger
    _check(workflow.graph, wish.overrides, context, desk)
    limits = modal_spec(context.project, context.state).containers
    work = _Work(workflow.sha256, wish.items, ledger.peak_vram(workflow.sha256), limits)
    choices: list[Sequence[str]] = [[name] for name in wish.gpus]
    if not choices and context.project.target == "modal":
        choices = [limits.gpus]
    return CostsEstimated(
        kind="render",
        what=str(wish.workflow),
        target="modal" if choices else context.project.target,
        items=wish.items,
        rows=tuple(_row(names, work, context) for names in choices),
        egress=_egress(ledger.output_bytes(workflow.sha256), wish.items) if choices else None,
        notes=_notes(wish) if choices else (NOTHING_PAID,),
    )


def _check(graph: Graph, arguments: Sequence[str], context: Context, desk: Desk) -> None:
    """Say what a render would refuse, as far as it is known here."""
    overrides = parse_overrides(arguments, graph)
    try:
        known = context.target.known_nodes(may_ask=False)
    except ComfymodalError:
        known = None
    if known is None:
        apply_overrides(graph, overrides, object_info={})
        desk.warn("no engine was ever asked about its nodes here: whether it takes this workflow is not checked")
        return
    _, problems = check_workflow(graph, overrides, nodes_of_catalog(known))
    for problem in problems:
        desk.warn(problem.message if problem.is_warning else f"it would be refused: {problem.message}")


def _notes(wish: RenderWish) -> tuple[str, ...]:
    of_file = ("earlier runs of the file count, whatever was set in them",) if wish.overrides else ()
    return ("a container that is warm already saves the start-up", *of_file, LEFT_OUT)


def _row(names: Sequence[str], work: _Work, context: Context) -> EstimateRow:
    for name in names:
        if (unknown := unknown_row(name)) is not None:
            return unknown
    choices = [parse_gpu(name) for name in names]
    try:
        terms = render_terms(work.limits, choices, context.rates)
    except NotReadyError as exc:
        return unpriced_row(" or ".join(names), exc)
    labels = [choice.label for choice in choices]
    seen = experience_of_render(context.ledger, work.fingerprint, labels, prompts=work.items)
    memory = render_memory(choices, work.peak_bytes)
    row = row_of(" or ".join(labels), terms, terms.estimate(seen), seen, items=work.items, memory=memory)
    if seen.run is not None and seen.run.typical > terms.deadline_s:
        return replace(row, basis=f"{row.basis}; comfyui.timeout ends it before it is done")
    return row


def _egress(sizes: Sequence[float], items: int) -> EgressView | None:
    """Of the outputs that are brought here; None where no earlier run left any."""
    if not sizes:
        return None
    size = round(median(sizes) * items)
    # Rounded up, as a bound must be.
    return EgressView(size, f"{dollars(-(-size * EGRESS_NANODOLLARS_PER_GIB // (1 << 30))):f}")
