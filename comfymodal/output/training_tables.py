"""What a person reads of trainings that were run: files, figures, the next command; pure."""

from __future__ import annotations

import os
from typing import Any

from comfymodal.operations.train_eval_results import EvalReport
from comfymodal.operations.train_report_results import ReportedRun, ReportWritten
from comfymodal.operations.train_results import SweepReport, TrainReport
from comfymodal.output.words import bytes_in_words, cost_in_words, count, seconds_in_words, shown_path

Rows = list[tuple[str, ...]]

_SWEEP_TITLES = ("run", "settings", "status", "steps", "loss", "cost", "id")


def training_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows of a training or a sweep; None for any other result."""
    if isinstance(result, TrainReport):
        return (), _report_rows(result)
    if isinstance(result, SweepReport):
        return _SWEEP_TITLES, [_sweep_row(run) for run in result.runs]
    if isinstance(result, ReportWritten):
        return (), _written_rows(result)
    return ((), _eval_rows(result)) if isinstance(result, EvalReport) else None


def training_end(result: Any) -> list[str]:
    """The last lines: how it went, and what to do next."""
    if isinstance(result, TrainReport):
        return [_summary(result)]
    if isinstance(result, SweepReport):
        ended = sum(run.exit_code == 0 for run in result.runs)
        page = [f"side by side: {shown_path(result.page)}"] if result.page else []
        return [f"{ended} of {count(len(result.runs), 'run')} trained to the end", *page]
    return []


def training_details(report: TrainReport) -> Rows:
    """What `runs show` says of a training beside what it says of any run."""
    training = report.training or {}
    saves = ", ".join(str(each["step"]) for each in training.get("checkpoints") or ())
    warnings = [("warning", str(each["message"])) for each in training.get("warnings") or ()]
    pace = training.get("seconds_per_step")
    return [
        ("settings", report.settings),
        ("resumed", f"from step {training['resumed_from']}" if training.get("resumed_from") else ""),
        ("steps", f"{training['step']} of {training['steps']}" if training else ""),
        ("loss", f"{training['loss']:.4g}" if training.get("loss") is not None else ""),
        ("speed", f"{pace:.2f} s a step" if pace else ""),
        ("kept", f"checkpoints of steps {saves}" if saves else ""),
        *warnings,
        ("receipt", shown_path(report.receipt) if report.receipt else ""),
    ]


def _report_rows(report: TrainReport) -> Rows:
    weights = [each for each in report.outputs if each.kind != "sample"]
    samples = [each for each in report.outputs if each.kind == "sample"]
    rows: Rows = [(shown_path(each.path), each.kind, bytes_in_words(each.size_bytes), each.title) for each in weights]
    if samples:
        # A picture for each prompt and save is more than anybody reads; the page shows them.
        size = bytes_in_words(sum(each.size_bytes for each in samples))
        rows.append((shown_path(os.path.dirname(samples[0].path)), "samples", size, count(len(samples), "picture")))
    rows += [(shown_path(report.sheet), "sheet")] if report.sheet else []
    return rows + [(f"models:/{each['path']}", str(each["action"]).replace("_", " ")) for each in report.published]


def _sweep_row(report: TrainReport) -> tuple[str, ...]:
    training = report.training or {}
    steps = f"{training['step']} of {training['steps']}" if training else ""
    loss = f"{training['loss']:.3g}" if training.get("loss") is not None else ""
    cost = cost_in_words(report.run.cost) if report.run.cost is not None else ""
    return (report.name, report.settings, report.run.status, steps, loss, cost, report.run.id)


def _summary(report: TrainReport) -> str:
    """The last line after a training: how far, how long, and the next command."""
    run, training = report.run, report.training
    if run.status in ("running", "submitting"):
        return (
            f"run {run.id} goes on; watch it: comfymodal runs attach {run.id}; save and stop it: comfymodal runs stop"
        )
    parts = [f"{training['step']} of {training['steps']} steps"] if training else []
    parts += [f"in {seconds_in_words(run.seconds)}"] if run.seconds is not None else []
    parts += [f"loss {training['loss']:.3g}"] if training and training.get("loss") is not None else []
    parts += [cost_in_words(run.cost)] if run.cost is not None else []
    parts += [f"pushed to {report.push['to']}"] if report.push and report.push["status"] == "succeeded" else []
    follows = "report" if run.status in ("succeeded", "partial") else "resume"
    return f"{run.status}: {', '.join(parts)}; next: comfymodal runs {follows} {run.id}"


def _written_rows(result: ReportWritten) -> Rows:
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
