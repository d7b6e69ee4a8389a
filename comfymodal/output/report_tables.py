"""What a person reads of `runs report` and `runs eval`; pure."""

from __future__ import annotations

from typing import Any

from comfymodal.operations.train_eval_results import EvalReport
from comfymodal.operations.train_report_results import ReportedRun, ReportWritten
from comfymodal.output.words import bytes_in_words, cost_in_words, count, shown_path

Rows = list[tuple[str, ...]]


def report_table(result: Any) -> tuple[tuple[str, ...], Rows] | None:
    """Column titles and rows of a result about a page or a sheet; None for any other result."""
    match result:
        case ReportWritten():
            return (), _report_rows(result)
        case EvalReport():
            return (), _eval_rows(result)
        case _:
            return None


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
