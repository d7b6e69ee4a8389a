"""What a person reads of `train` and `datasets`: problems as lines, then what is known as rows; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from comfymodal.operations.train_eval_results import EvalReport
from comfymodal.operations.train_report_results import ReportedRun, ReportWritten
from comfymodal.operations.train_results import (
    DatasetChecked,
    DatasetsListed,
    DatasetView,
    NeedsView,
    ProblemView,
    TrainChecked,
    TrainFixed,
    TrainPlan,
    ValueChange,
)
from comfymodal.output.words import bytes_in_words, cost_in_words, count, seconds_in_words, shown_path

Rows = list[tuple[str, ...]]

BUCKETS_SHOWN = 6
LONGEST_VALUE = 60


def train_lines(result: Any) -> list[str]:
    """What stands above the table: every problem with its hint."""
    if not isinstance(result, (TrainChecked, TrainFixed, DatasetChecked)):
        return []
    return [line for problem in result.problems for line in _problem_lines(problem)]


def train_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows of a result about trainings or datasets; None for any other result."""
    match result:
        case TrainChecked():
            return (), _checked_rows(result)
        case TrainFixed():
            return (), _fixed_rows(result)
        case DatasetChecked():
            return (), [("rules", f"of {result.rules}"), *_dataset_rows(result.dataset)]
        case DatasetsListed():
            return ("dataset", "pictures", "captions", "size"), _listed_rows(result)
        case ReportWritten() | EvalReport():
            return (), _report_rows(result) if isinstance(result, ReportWritten) else _eval_rows(result)
        case _:
            return None


def train_end(result: Any) -> list[str]:
    """The last lines: what to do next."""
    if isinstance(result, TrainChecked) and result.can_fix:
        return [f"hint: comfymodal train {result.config} --fix writes a corrected copy"]
    return []


def _problem_lines(problem: ProblemView) -> Iterator[str]:
    prefix = "" if problem.severity == "error" else f"{'note' if problem.severity == 'info' else problem.severity}: "
    words = [problem.place, problem.key, problem.message]
    of_runs = f" (only {', '.join(problem.runs)})" if problem.runs else ""
    yield prefix + ": ".join(word for word in words if word) + of_runs
    if problem.hint:
        yield f"  hint: {problem.hint}"


def _checked_rows(result: TrainChecked) -> Rows:
    words = {"native": "a config of ai-toolkit", "short": "short form"}[result.form]
    rows: Rows = [("config", f"{result.config} ({words}): {_verdict(result.problems)}")]
    first = result.plans[0]
    if len(result.plans) > 1:
        rows.append(("sweep", f"{count(len(result.plans), 'run')}; the figures below are of the first"))
    rows += _plan_rows(first)
    rows += [change for each in first.changes for change in _change_rows(each)]
    if len(result.plans) > 1:
        rows += [(plan.name, _variant(plan)) for plan in result.plans]
    return rows


def _verdict(problems: Iterable[ProblemView]) -> str:
    listed = list(problems)
    kinds = (("error", "problem"), ("warning", "warning"))
    numbers = [(sum(problem.severity == kind for problem in listed), noun) for kind, noun in kinds]
    return " and ".join(count(number, noun) for number, noun in numbers if number) or "ok"


def _plan_rows(plan: TrainPlan) -> Rows:
    rows: Rows = [("name", plan.name)] if plan.name else []
    if plan.training:
        rows += _training_rows(plan.training)
    for dataset in plan.datasets:
        rows += _dataset_rows(dataset)
    if plan.training and plan.steps_per_epoch and plan.epochs:
        steps = plan.training["steps"]
        rows.append(("epoch", f"{plan.steps_per_epoch:g} steps; {steps} steps are {plan.epochs:g} epochs"))
    return [*rows, *(_needs_rows(plan.needs) if plan.needs else [])]


def _training_rows(training: Mapping[str, Any]) -> Rows:
    what = "the whole model" if training["is_full_finetune"] else f"a LoRA of rank {training['rank']}"
    batch = training["batch_size"] * training["gradient_accumulation"]
    saves = f"every {training['save_every']} steps, {training['keep_saves']} are kept"
    made = training["sample_every"] and f", samples every {training['sample_every']}"
    return [
        ("model", f"{training['arch']}, {training['base_model']}"),
        ("trains", f"{what}, {training['steps']} steps of {count(batch, 'picture')}, lr {training['lr']:g}"),
        ("saves", f"{saves}{made or ', no samples'}"),
    ]


def _dataset_rows(dataset: DatasetView) -> Rows:
    name = dataset.path or "(no folder)"
    if not dataset.is_checked:
        why = "not found" if dataset.place == "nowhere" else f"{dataset.place}: not looked at"
        return [("dataset", f"{name}, {why}")]
    things = [
        count(number, noun) for number, noun in ((dataset.pictures, "picture"), (dataset.videos, "video")) if number
    ]
    parts = [*(things or ["nothing"]), count(dataset.captions, "caption"), bytes_in_words(dataset.size_bytes)]
    rows: Rows = [("dataset", f"{name}: {', '.join(parts)}, {dataset.place}")]
    rows += [(f"  at {table['resolution']}", _buckets(table)) for table in dataset.tables]
    return rows


def _buckets(table: Mapping[str, Any]) -> str:
    buckets = table["buckets"]
    shown = [f"{bucket['pictures']} of {bucket['width']}x{bucket['height']}" for bucket in buckets[:BUCKETS_SHOWN]]
    more = len(buckets) - len(shown)
    rest = [count(more, "more size")] if more > 0 else []
    return f"{', '.join([*shown, *rest]) or 'sizes unknown'}; {table['batches']} batches"


def _needs_rows(needs: NeedsView) -> Rows:
    rows: Rows = [("GPU", f"{needs.gpu} ({needs.gpu_from}): {_memory(needs)}")]
    if needs.host_memory_gb is not None:
        rows.append(("memory", f"{needs.host_memory_gb} GB beside the GPU"))
    if needs.scratch_gb is not None and needs.volume_gb is not None and needs.download_gb is not None:
        sizes = f"{needs.download_gb:g} GB to download once, {needs.scratch_gb:g} GB local, {needs.volume_gb:g} GB kept"
        rows.append(("disk", f"{sizes} (estimate)"))
    if needs.run_s is not None and needs.run_low_s is not None and needs.run_high_s is not None:
        low, high = seconds_in_words(needs.run_low_s), seconds_in_words(needs.run_high_s)
        rows.append(("time", f"about {seconds_in_words(needs.run_s)}, {low} to {high} ({needs.time_certainty})"))
    if needs.risk_s is not None:
        rows.append(("at risk", f"{seconds_in_words(needs.risk_s)} of work between two saves"))
    if needs.cost is not None:
        cost = needs.cost
        rows.append(("cost", f"{cost.words} at {cost.per_hour}, prices of {cost.as_of}"))
    return rows


def _memory(needs: NeedsView) -> str:
    if needs.memory_gb is None:
        return f"has {needs.vram_gb} GB; what this model needs is not known"
    verdict = {"fits": "fits", "tight": "tight", "too_small": "too small"}[str(needs.verdict)]
    source = f", {needs.memory_source}" if needs.memory_source else ""
    return f"{verdict}: needs about {needs.memory_gb:g} of {needs.vram_gb} GB ({needs.memory_certainty}{source})"


def _variant(plan: TrainPlan) -> str:
    parts = [plan.settings]
    if plan.needs is not None and plan.needs.run_s is not None:
        parts.append(f"about {seconds_in_words(plan.needs.run_s)}")
        if plan.needs.cost is not None:
            parts.append(plan.needs.cost.words)
    return ", ".join(parts)


def _fixed_rows(result: TrainFixed) -> Rows:
    rows = [row for change in result.changes for row in _change_rows(change)]
    rows += [("look at", note) for note in result.notes] if result.changes else []
    if result.written:
        rows.append(("written", f"{result.written} (comments are not carried over): {_verdict(result.problems)}"))
    elif result.changes:
        rows.append(("nothing written", f"it would be: {_verdict(result.problems)}"))
    else:
        rows.append((result.config, f"there is nothing that --fix can mend: {_verdict(result.problems)}"))
    return rows


def _change_rows(change: ValueChange) -> Rows:
    old, new = _cut(change.old), _cut(change.new)
    return [("change", f"{change.key}: {old} -> {new} ({change.reason})")]


def _cut(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 3]}..."


def _listed_rows(listed: DatasetsListed) -> Rows:
    rows: Rows = [
        (
            row.folder or "(no folder)",
            count(row.pictures, "picture") + (f", {count(row.videos, 'video')}" if row.videos else ""),
            count(row.captions, "caption"),
            bytes_in_words(row.size_bytes),
        )
        for row in listed.datasets
    ]
    rows.append((f"{count(len(rows), 'dataset')} in {listed.place}", "", "", bytes_in_words(listed.size_bytes)))
    return rows


def _report_rows(result: ReportWritten) -> Rows:
    samples = sum(run.samples for run in result.runs)
    words = f"{count(len(result.runs), 'run')}, {count(samples, 'sample')}, {bytes_in_words(result.size_bytes)}"
    return [(shown_path(result.page), words), *map(_reported_row, result.runs)]


def _reported_row(run: ReportedRun) -> tuple[str, ...]:
    known = (("loss", run.loss), ("validation loss", run.validation_loss))
    parts = [f"{run.status} at step {run.step or 0} of {run.steps}"]
    parts += [f"{name} {value:.4g}" for name, value in known if value is not None]
    return run.id, run.name, ", ".join([*parts, *([cost_in_words(run.cost)] if run.cost else [])])


def _eval_rows(result: EvalReport) -> Rows:
    done = sum(cell.path is not None for cell in result.cells)
    steps, strengths = ({getattr(cell, name) for cell in result.cells} for name in ("step", "strength"))
    words = f"{done} of {count(len(result.cells), 'picture')}: {count(len(steps), 'checkpoint')}"
    told = f"{words} at {count(len(strengths), 'strength')}"
    cost = (cost_in_words(result.run.cost),) if result.run.cost else ()
    return [(shown_path(result.sheet), told, *cost)] if result.sheet else []
