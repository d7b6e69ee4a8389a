"""`comfymodal runs report`: all that is known of a training, or of the variants of a sweep, for one page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfymodal.costs.rates import money_json
from comfymodal.errors import OutputFolderError, UsageError
from comfymodal.files import write_text
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.news import telling
from comfymodal.operations.runs import find_run
from comfymodal.operations.train_report_results import (
    CheckpointView,
    DatasetFacts,
    PromptView,
    ReportedRun,
    ReportWritten,
    SampleShot,
    Shot,
    TrainedRun,
    TrainingPage,
)
from comfymodal.operations.train_shots import shot_of
from comfymodal.operations.train_store import Store
from comfymodal.operations.views import iso_time, run_view
from comfymodal.runs.ledger import Run
from comfymodal.secret_shapes import without_secrets
from comfymodal.training.ai_toolkit.fix import to_yaml
from comfymodal.training.ai_toolkit.layout import Sample
from comfymodal.training.ai_toolkit.losses import VALIDATION_KEY, read_losses
from comfymodal.training.ai_toolkit.prompts import spoken
from comfymodal.training.ai_toolkit.values import read_values
from comfymodal.training.ai_toolkit.variants import differing_settings
from comfymodal.training.config import TrainingConfig
from comfymodal.training.curves import Curve, evenly, finite, smoothed
from comfymodal.training.sweep import MOST_RUNS

PAGE_FILE, SWEEP_FILE = "report.html", "sweep.html"

MOST_SHOTS = 240
"""Pictures on a page: some 10 MB, which a phone still opens."""

SHEETS = "eval*.png"
_EDGES = ((80, 512), (160, 384), (MOST_SHOTS, 320))
_SHEET_EDGE = 2000
_RELATIVES = 1000


def report_training(names: Sequence[str], out: Path | None, context: Context, desk: Desk) -> TrainingPage:
    """Read what these runs left on the training volume; nothing is started, a run that trains may be among them.

    Samples and losses are kept in the run's folder here. Raises `NotFoundError`, `UsageError` for a run that is no
    training, and what the volume raises.
    """
    with telling(context, desk):
        runs = _runs(names, context)
    settings = differing_settings([run.request["job"]["config"] for run in runs])
    read = [_read(run, context, desk, share=len(runs)) for run in runs]
    told = [replace(each, settings=own) for each, own in zip(read, settings, strict=True)]
    page = out.absolute() if out else folder_of(runs[-1], context) / (PAGE_FILE if len(runs) == 1 else SWEEP_FILE)
    return TrainingPage(tuple(told), str(page), iso_time(time.time()), tuple(settings[0]))


def write_report(report: TrainingPage, page: str) -> ReportWritten:
    """Write the page that was made of it, whole or not at all. Raises `OutputFolderError`."""
    path = Path(report.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
        size = path.stat().st_size
    except OSError as exc:
        raise OutputFolderError(f"cannot write {path}: {exc.strerror or exc}", hint="choose another: --out") from exc
    return ReportWritten(str(path), size, tuple(_reported(run) for run in report.runs))


def require_training(name: str, context: Context) -> Run:
    """The training of that name, `last` for the newest one of this machine, as it is now.

    Raises `NotFoundError`, and `UsageError` for another kind of run.
    """
    trainings = (run for run in context.ledger.newest(limit=_RELATIVES) if run.kind == "train")
    newest = next(trainings, None) if name == "last" else None
    run, _ = find_run(newest.id if newest else name, context)
    if run.kind != "train":
        raise UsageError(f"run {run.id} is a {run.kind}, not a training", hint="comfymodal runs list")
    return run


def _runs(names: Sequence[str], context: Context) -> list[Run]:
    found = {run.id: run for run in (require_training(name, context) for name in names)}
    if len(found) > MOST_RUNS:
        raise UsageError(f"{len(found)} runs are too many for one page", hint=f"at most {MOST_RUNS}")
    return list(found.values())


def folder_of(run: Run, context: Context) -> Path:
    """Where what the run left lies on this machine."""
    own = run.request.get("folder")
    return Path(own) if own else Path(context.project.render.output_dir).absolute() / run.id


def _read(run: Run, context: Context, desk: Desk, *, share: int) -> TrainedRun:
    """`share`: by how many runs the pictures of the page are shared."""
    job = run.request["job"]
    values = read_values(job["config"])
    store = Store(context.at_target_of(run).target, str(job["folder"]), folder_of(run, context))
    desk.event({"type": "phase", "phase": "reading", "name": run.id})
    outcome = run.result or {}
    result = outcome.get("result") or {}
    losses, validation = _curves(store)
    checkpoints = tuple(_checkpoints(store, result))
    samples, hidden = _chosen(store.samples(), MOST_SHOTS // share)
    attempts = _attempts(run, context)
    return TrainedRun(
        run=run_view(run),
        name=values.name,
        folder=store.folder,
        training=values.to_dict(),
        config=without_secrets(to_yaml(dict(job["config"]))),
        settings={},
        step=result.get("step") or _reached(result, losses, checkpoints),
        steps=values.steps,
        seconds_per_step=result.get("seconds_per_step"),
        losses=losses,
        smooth=smoothed(losses),
        validation=validation,
        prompts=_prompts(values),
        samples=tuple(_shots(samples, store, desk, shared=len(samples) * share)),
        steps_hidden=hidden,
        checkpoints=checkpoints,
        datasets=tuple(_datasets(values, job)),
        published=tuple(str(each["path"]) for each in outcome.get("published") or ()),
        phases=result.get("phases_s") or {},
        **_money(run, attempts),
        attempts=tuple(run_view(each) for each in attempts),
        warnings=tuple(_warnings(result)),
        error=outcome.get("error"),
        sheets=tuple(_sheets(store.cache)),
    )


def _reached(result: Mapping[str, Any], losses: Curve, checkpoints: Sequence[CheckpointView]) -> int | None:
    """The step it came to: by its own word, or else by what it left."""
    left = [step for step, _ in losses[-1:]] + [each.step for each in checkpoints]
    return result.get("step") or max(left, default=None)


def _curves(store: Store) -> tuple[Curve, Curve]:
    log = store.losses()
    if log is None:
        return (), ()
    losses, validation = read_losses(log), read_losses(log, key=VALIDATION_KEY)
    return (
        finite((loss.step, loss.value) for loss in losses),
        finite((loss.step, loss.value) for loss in validation),
    )


def _chosen(samples: Sequence[Sample], most: int) -> tuple[list[Sample], int]:
    """The samples for the page and how many steps are left out: whole columns, evenly spread."""
    # A run that went on from an earlier step made some twice; the last ones are of what was kept.
    newest = {(sample.step, sample.index): sample for sample in samples}
    steps = sorted({step for step, _ in newest})
    prompts = len({index for _, index in newest})
    shown = set(evenly(steps, max(2, most // max(1, prompts))))
    return [sample for (step, _), sample in sorted(newest.items()) if step in shown], len(steps) - len(shown)


def _shots(samples: Sequence[Sample], store: Store, desk: Desk, *, shared: int) -> Iterator[SampleShot]:
    edge = next((edge for most, edge in _EDGES if shared <= most), _EDGES[-1][1])
    for number, sample in enumerate(samples):
        desk.event({"type": "fetching", "done": number, "total": len(samples), "name": sample.path.name})
        yield SampleShot(sample.step, sample.index, shot_of(store.bring(sample), edge))


def _sheets(folder: Path) -> Iterator[Shot]:
    for path in sorted(folder.glob(SHEETS)):
        yield shot_of(path, _SHEET_EDGE)


def _prompts(values: TrainingConfig) -> tuple[PromptView, ...]:
    return tuple(PromptView(each.text, spoken(each.text, values.trigger_word)) for each in values.sample_prompts)


def _checkpoints(store: Store, result: Mapping[str, Any]) -> Iterator[CheckpointView]:
    for each in store.checkpoints(result):
        yield CheckpointView(
            step=each.step,
            size_bytes=sum(file.size_bytes for file in each.weights),
            sha256=each.weights[0].sha256 if each.weights else "",
            saved_at=iso_time(each.saved_at),
            is_final=each.is_final,
            has_optimizer=each.optimizer is not None,
        )


def _datasets(values: TrainingConfig, job: Mapping[str, Any]) -> Iterator[DatasetFacts]:
    """What was trained on, with what was known of it when the job was made."""
    known = {
        each["at"][4]: each
        for each in job.get("locations") or ()
        if len(each["at"]) > 5 and each["at"][3] == "datasets" and each.get("copies")
    }
    for number, dataset in enumerate(values.datasets):
        found = known.get(number, {})
        yield DatasetFacts(
            dataset.path, found.get("images"), found.get("sha256"), dataset.resolutions, dataset.num_repeats
        )


def _attempts(run: Run, context: Context) -> list[Run]:
    """All runs that trained in the same folder: what one of them was stopped at, another went on with."""
    folder = run.request["job"]["folder"]
    others = [
        other
        for other in context.ledger.newest(limit=_RELATIVES)
        if other.kind == "train" and other.target == run.target and other.request["job"].get("folder") == folder
    ]
    return sorted({each.id: each for each in (*others, run)}.values(), key=lambda each: each.created_at)


def _money(run: Run, attempts: Sequence[Run]) -> dict[str, Any]:
    rate = run.rate or {}
    costs = [each.cost_nanodollars for each in attempts if each.cost_nanodollars is not None]
    return {
        "gpu": rate.get("gpu"),
        "usd_per_hour": money_json(int(rate["nanodollars_per_s"]) * 3600) if rate else None,
        "prices_as_of": rate.get("as_of"),
        "cost": money_json(sum(costs)) if costs else None,
    }


def _warnings(result: Mapping[str, Any]) -> Iterator[str]:
    for warning in result.get("warnings") or ():
        hint = warning.get("hint")
        yield f"{warning['message']}; {hint}" if hint else str(warning["message"])
    if dropped := result.get("dropped_images"):
        yield f"{len(dropped)} pictures of the dataset could not be read and were left out: {', '.join(dropped[:5])}"


def _reported(run: TrainedRun) -> ReportedRun:
    return ReportedRun(
        id=run.run.id,
        name=run.name,
        status=run.run.status,
        settings=run.settings,
        step=run.step,
        steps=run.steps,
        loss=run.loss,
        validation_loss=run.validation_loss,
        seconds_per_step=run.seconds_per_step,
        cost=run.cost,
        checkpoints=len(run.checkpoints),
        samples=len(run.samples),
    )
