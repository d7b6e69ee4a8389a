"""`train --eval WORKFLOW`: render checkpoint by prompt by strength, and lay the pictures out on one sheet."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comfymodal.comfyui.outputs import safe_name
from comfymodal.errors import ComfymodalError, NotFoundError, NotReadyError, UsageError, error_from_dict
from comfymodal.operations.check import check_workflow, nodes_of_engine
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.follow import submit
from comfymodal.operations.models import tidy
from comfymodal.operations.money import price_run
from comfymodal.operations.ready import ready_engine
from comfymodal.operations.render import Prepared, RenderRequest, build_run
from comfymodal.operations.render_end import RenderEnding
from comfymodal.operations.results import OutputFile, RunReport
from comfymodal.operations.sync import SyncRequest, sync
from comfymodal.operations.sync_jobs import Wish
from comfymodal.operations.train_eval_results import EvalCell, EvalReport
from comfymodal.operations.train_report import folder_of, require_training
from comfymodal.operations.train_sheet import draw_sheet
from comfymodal.operations.train_store import ROLE, Store
from comfymodal.operations.waiting import Waiting
from comfymodal.runs.ledger import Run
from comfymodal.targets.base import EngineFacts
from comfymodal.training.ai_toolkit.prompts import spoken
from comfymodal.training.ai_toolkit.values import read_values
from comfymodal.training.curves import evenly
from comfymodal.training.state import Checkpoint
from comfymodal.workflow.check import require_valid
from comfymodal.workflow.graph import Workflow, read_workflow
from comfymodal.workflow.override import Overridden, parse_overrides
from comfymodal.workflow.slots import LoraSlot, TextSlot, filled, find_lora, find_prompt

STRENGTHS = (0.6, 0.8, 1.0)
MOST_CHECKPOINTS = 6
MOST_PICTURES = 200
"""Of one sheet: more than anybody compares, at some seconds of a GPU each."""

STRONGEST = 10.0

FOLDER = "loras"
"""Where ComfyUI looks for them, in the models volume."""


@dataclass(frozen=True, slots=True)
class EvalWish:
    """How to evaluate. `lora` and `prompt` name a node and an input where the workflow leaves a choice."""

    workflow: Path
    strengths: tuple[float, ...] = STRENGTHS
    lora: str | None = None
    prompt: str | None = None
    overrides: tuple[str, ...] = ()
    """As `--set` of `render`."""
    gpu: str | None = None
    max_cost: int | None = None
    """Nanodollars."""


@dataclass(frozen=True, slots=True)
class EvalPlan:
    """A workflow that takes a LoRA and a prompt, checked against the engine."""

    wish: EvalWish
    workflow: Workflow
    overridden: Overridden
    facts: EngineFacts
    lora: LoraSlot
    text: TextSlot


@dataclass(frozen=True, slots=True)
class EvalCopy:
    """A checkpoint's weights as they lie among the models for the time of the evaluation."""

    checkpoint: Checkpoint
    folder: str

    @property
    def below(self) -> str:
        """Its path below the run's checkpoints, and below the folder of the copies."""
        return f"{self.checkpoint.folder.rpartition('/')[2]}/{self.checkpoint.weights[0].name}"

    @property
    def name(self) -> str:
        """As ComfyUI lists it."""
        return f"{self.folder}/{self.below}"


@dataclass(frozen=True, slots=True)
class _Cell:
    copy: EvalCopy
    prompt: str | None
    """None: the workflow's own."""
    strength: float


def parse_strengths(text: str | None) -> tuple[float, ...]:
    """Read `0.6,0.8,1.0`. Raises `UsageError`."""
    if text is None:
        return STRENGTHS
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(
            f"--eval-strengths {text!r} is no list of numbers", hint="--eval-strengths 0.6,0.8,1"
        ) from None
    # Also false for NaN.
    if not all(-STRONGEST <= strength <= STRONGEST for strength in found):
        raise UsageError(f"--eval-strengths takes numbers from -{STRONGEST:g} to {STRONGEST:g}, not {text}")
    return found


def evaluate_run(name: str, wish: EvalWish, context: Context, desk: Desk) -> EvalReport:
    """Evaluate a training of the ledger. Raises as `plan_eval` and `evaluate` do."""
    run = require_training(name, context)
    context = context.at_target_of(run)
    return evaluate(plan_eval(wish, context, desk), run, context, desk)


def plan_eval(wish: EvalWish, context: Context, desk: Desk) -> EvalPlan:
    """Read and check the workflow, before anything is trained.

    Raises `WorkflowError` and what `render` raises; `NotReadyError` on somebody else's ComfyUI, where no LoRA of ours
    can be put.
    """
    workflow = read_workflow(wish.workflow)
    lora = find_lora(workflow.graph, wish.lora)
    overrides = parse_overrides(wish.overrides, workflow.graph)
    facts = ready_engine(context, desk)
    if context.target.models_root is None:
        raise NotReadyError(
            f"the ComfyUI at {facts.url} is not ours: what is trained cannot be put among its models",
            hint="leave out comfyui.url, or bring the LoRA there by hand: comfymodal runs fetch",
        )
    nodes = nodes_of_engine(workflow.graph, context)
    overridden, problems = check_workflow(workflow.graph, overrides, nodes)
    # What it loads in the file will be replaced, whether it is there or not.
    blocking = [
        problem
        for problem in problems
        if not problem.is_warning and (problem.node_id, problem.input_name) != (lora.node_id, "lora_name")
    ]
    require_valid(blocking)
    text = find_prompt(overridden.graph, nodes.object_info, wish.prompt)
    return EvalPlan(wish, workflow, overridden, facts, lora, text)


def evaluate(plan: EvalPlan, run: Run, context: Context, desk: Desk) -> EvalReport:
    """Render with the checkpoints of a training, as one job, and draw the sheet; the LoRAs are put away after.

    Raises what the sync, the render and the volume raise, `NotFoundError` without a checkpoint. Failures of single
    pictures are in the report: their places on the sheet stay empty.
    """
    context = context.at_target_of(run)
    job = run.request["job"]
    values = read_values(job["config"])
    store = Store(context.target, str(job["folder"]), folder_of(run, context))
    copies = copies_of(store.checkpoints((run.result or {}).get("result") or {}), run)
    texts = dict.fromkeys(spoken(each.text, values.trigger_word) for each in values.sample_prompts)
    prompts: list[str | None] = [*texts] or [None]
    # In this order a text is encoded once, where the LoRA leaves its encoder alone; and what is cut short still
    # compares all checkpoints by some prompts.
    cells = [_Cell(copy, prompt, strength) for prompt in prompts for copy in copies for strength in plan.wish.strengths]
    if len(cells) > MOST_PICTURES:
        raise UsageError(
            f"{len(copies)} checkpoints x {len(prompts)} prompts x {len(plan.wish.strengths)} strengths are "
            f"{len(cells)} pictures",
            hint=f"at most {MOST_PICTURES}: give fewer --eval-strengths",
        )
    with among_the_models(copies, store, context, desk):
        # What the target knew of the models was before these.
        context = context.reopen(context.flags)
        done = _render(plan, cells, store, context, desk)
    return _report(plan, run, cells, done, store)


def copies_of(checkpoints: Sequence[Checkpoint], run: Run) -> list[EvalCopy]:
    """What to render with: a few of the checkpoints, evenly spread, the last one among them.

    Raises `NotFoundError` without any, `UsageError` for a model in several files.
    """
    if not checkpoints:
        raise NotFoundError(f"run {run.id} has no checkpoint to render with", hint=f"comfymodal runs show {run.id}")
    if len(checkpoints[-1].weights) > 1:
        raise UsageError(
            f"run {run.id} trained a model in {len(checkpoints[-1].weights)} files, and --eval renders with one",
            hint="render with both by hand: comfymodal render",
        )
    # Of the last step there may be two, the save and the end: they are the same.
    by_step = {each.step: each for each in checkpoints}
    return [EvalCopy(each, f"eval-{run.id}") for each in evenly(list(by_step.values()), MOST_CHECKPOINTS)]


@contextlib.contextmanager
def among_the_models(copies: Sequence[EvalCopy], store: Store, context: Context, desk: Desk) -> Iterator[None]:
    """Have copies of the weights in the models volume, for as long as the block runs."""
    words = (f"{ROLE}:/{store.folder}/checkpoints", f"models:/{FOLDER}/{copies[0].folder}")
    wish = Wish(include=tuple(f"/{each.below}" for each in copies))
    try:
        sent = sync(SyncRequest(words=words, wish=wish, cwd=context.folder), context, desk)
        if sent.error is not None:
            raise error_from_dict(sent.error)
        yield
    finally:
        _put_away(copies[0].folder, context, desk)


def _put_away(folder: str, context: Context, desk: Desk) -> None:
    """Delete the copies for good. One that stays is a nuisance, and no reason to lose what was rendered."""
    place = f"the copies in models:/{FOLDER}/{folder}"
    try:
        found = context.target.files("models", f"{FOLDER}/{folder}")
        if not found:
            return
        items = [{"path": path, "size_bytes": size} for path, size in found.items()]
        trashed = tidy("trash", {"role": "models", "items": items}, place, context, desk)
        gone = [{"path": each["path"], "stamp": each["stamp"]} for each in trashed.paths if each.get("stamp")]
        tidy("empty", {"role": "models", "items": gone}, place, context, desk)
    except ComfymodalError as exc:
        desk.warn(f"{place} stay there: {exc.message}")


def _render(plan: EvalPlan, cells: Sequence[_Cell], store: Store, context: Context, desk: Desk) -> RunReport:
    facts = ready_engine(context, desk)
    graphs = [
        filled(
            plan.overridden.graph,
            plan.lora,
            plan.text,
            file=cell.copy.name,
            strength=cell.strength,
            prompt=cell.prompt,
        )
        for cell in cells
    ]
    # Once: they differ in nothing else, and the engine must know the LoRAs now.
    _, problems = check_workflow(graphs[0], (), nodes_of_engine(graphs[0], context))
    require_valid([problem for problem in problems if not problem.is_warning])
    wish = plan.wish
    request = RenderRequest(
        workflow=wish.workflow,
        out=store.cache / "eval",
        # Where nothing is saved, what is only shown must do.
        keep_temporary=not any("Save" in node["class_type"] for node in graphs[0].values()),
        gpu=wish.gpu,
    )
    run = build_run(request, Prepared(plan.workflow, plan.overridden, facts), context)
    prompts = [{"prompt_id": str(uuid.uuid4()), "graph": graph, "extra_data": {}} for graph in graphs]
    run = replace(run, request={**run.request, "job": {**run.request["job"], "prompts": prompts}})
    run, price = price_run(run, context, desk, max_cost=wish.max_cost)
    if price is not None:
        desk.event(price.event(context.modal_spec()))
    for upload in plan.overridden.uploads:
        context.target.put_input(upload.path, Path(upload.name).name)
    # Waited for whatever it takes: the LoRAs are gone once this is left.
    return submit(run, context, desk, RenderEnding(), waiting=Waiting(), price=price)


def _report(plan: EvalPlan, run: Run, cells: Sequence[_Cell], done: RunReport, store: Store) -> EvalReport:
    pictures = _pictures(done.outputs)
    told = tuple(
        EvalCell(cell.copy.checkpoint.step, cell.prompt, cell.strength, pictures.get(number))
        for number, cell in enumerate(cells)
    )
    sheet = None
    if pictures:
        path = store.cache / f"eval-{safe_name(plan.wish.workflow.stem)}.png"
        title = f"{read_values(run.request['job']['config']).name} in {plan.wish.workflow.name}"
        sheet = str(draw_sheet(told, title, path))
    return EvalReport(done.run, run.id, sheet, told, done.error, done.exit_code)


def _pictures(outputs: Sequence[OutputFile]) -> Mapping[int, str]:
    """The first picture of each prompt."""
    found: dict[int, str] = {}
    for output in outputs:
        if output.media_type.startswith("image/"):
            found.setdefault(output.prompt, output.path)
    return found
