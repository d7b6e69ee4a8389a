"""One pure builder per result: what a person reads on stdout, as lines of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfymodal.operations.config import ConfigShown, ConfigValidated
from comfymodal.operations.results import RenderPlan, RunCancelled, RunList, RunReport, RunView
from comfymodal.operations.sync_results import ErrandReport, SyncReport
from comfymodal.operations.train_results import TrainReport
from comfymodal.output.sync_tables import sync_details
from comfymodal.output.training_tables import training_details
from comfymodal.output.words import (
    bytes_in_words,
    cost_in_words,
    count,
    money_in_words,
    price_in_words,
    seconds_in_words,
    shown_path,
)

Rows = list[tuple[str, ...]]


def table_of(result: Any) -> tuple[tuple[str, ...], Rows]:
    """Column titles (empty for none) and rows of a result. Raises `TypeError` for a result without a builder."""
    if (rows := _untitled(result)) is not None:
        return (), rows
    if isinstance(result, RunList):
        return _runs_table(result)
    if isinstance(result, ConfigShown):
        return ("setting", "value", "from", "read at"), [
            (row.key, _value(row.value), row.origin, row.read_at) for row in result.rows
        ]
    raise TypeError(f"no table for {type(result).__name__}")


def _untitled(result: Any) -> Rows | None:
    match result:
        case RunReport():
            return _report_rows(result)
        case RenderPlan():
            return _plan_rows(result)
        case RunCancelled():
            status = result.run.status
            word = "was asked to stop and has not ended yet" if result.is_still_running else status
            return [(f"run {result.run.id} {word if result.was_active else f'had ended already: {status}'}",)]
        case ErrandReport():
            return _errand_rows(result)
        case ConfigValidated():
            return [(f"{shown_path(result.path)} is valid (project {result.project})",)]
    return None


def details_of(report: RunReport | SyncReport | ErrandReport | TrainReport) -> Rows:
    """What `runs show` says before the outputs: all that is known of a run."""
    run = report.run
    if run is None:
        return []
    rows: Rows = [
        ("run", run.id),
        ("status", run.status),
        ("workflow" if run.kind == "render" else "what", run.title),
        ("target", run.target),
        ("started", _time(run.created_at)),
        ("cost", "" if run.cost is None else cost_in_words(run.cost)),
        ("took", "" if run.seconds is None else f"{seconds_in_words(run.seconds)}{_phases(run)}"),
    ]
    if isinstance(report, SyncReport):
        rows += sync_details(report)
    if isinstance(report, TrainReport):
        rows += training_details(report)
    if isinstance(report, RunReport):
        rows += [("set", f"{change.node_id}.{change.input_name} = {_value(change.new)}") for change in report.changes]
        rows.append(("receipt", shown_path(report.receipt) if report.receipt else ""))
    return [row for row in rows if row[1]]


def summary_of(report: RunReport) -> str:
    """The last line after a run: what, how long by phase, and the next command."""
    files = count(len(report.outputs), "file")
    texts = f" and {count(len(report.texts), 'text')}" if report.texts else ""
    took = f" in {seconds_in_words(report.run.seconds)}" if report.run.seconds is not None else ""
    cached = ", from ComfyUI's cache" if report.is_cached else ""
    next_command = f"comfymodal runs again {report.run.id}"
    if report.run.status == "running":
        return f"run {report.run.id} goes on; its outputs: comfymodal runs fetch {report.run.id}"
    cost = f", {cost_in_words(report.run.cost)}" if report.run.cost is not None else ""
    pushed = f", pushed to {report.push['to']}" if report.push and report.push["status"] == "succeeded" else ""
    return f"{report.run.status}: {files}{texts}{took}{_phases(report.run)}{cached}{cost}{pushed}; next: {next_command}"


def _report_rows(report: RunReport) -> Rows:
    rows: Rows = [
        (shown_path(output.path), output.media_type, bytes_in_words(output.size_bytes), output.title)
        for output in report.outputs
    ]
    rows += [(f"{text.title}: {text.text}",) for text in report.texts]
    if not rows and report.run.status != "succeeded":
        rows.append((f"run {report.run.id}: {report.run.status}",))
    return rows


def _errand_rows(report: ErrandReport) -> Rows:
    """What the run says of itself; one that says nothing, how it ended."""
    return [(key.replace("_", " "), _value(value)) for key, value in report.result.items()] or [
        (f"run {report.run.id}: {report.run.status}",)
    ]


def _plan_rows(plan: RenderPlan) -> Rows:
    rows: Rows = [
        ("workflow", f"{plan.workflow} ({count(plan.nodes, 'node')}), checked"),
        ("engine", plan.engine),
    ]
    rows += [
        (f"set {change.node_id}.{change.input_name}", f"{_value(change.old)} -> {_value(change.new)}  ({change.title})")
        for change in plan.changes
    ]
    rows += [("upload", path) for path in plan.uploads]
    rows.append(("outputs", plan.folder))
    if plan.cost is not None:
        rows.append(("cost", price_in_words(plan.cost)))
    return rows


def _runs_table(result: RunList) -> tuple[tuple[str, ...], Rows]:
    """With what each cost, where any of them cost something."""
    is_paid = any(run.cost is not None for run in result.runs)
    titles = ("run", "status", "when", "took", *(("cost",) if is_paid else ()), "what")
    return titles, [_run_row(run, is_paid=is_paid) for run in result.runs]


def _run_row(run: RunView, *, is_paid: bool) -> tuple[str, ...]:
    took = "" if run.seconds is None else seconds_in_words(run.seconds)
    cost = ("" if run.cost is None else money_in_words(run.cost),) if is_paid else ()
    return (run.id, run.status, _time(run.created_at), took, *cost, run.title)


def _phases(run: RunView) -> str:
    told = [f"{name} {seconds_in_words(seconds)}" for name, seconds in run.phases.items() if seconds >= 0.05]
    return f" ({', '.join(told)})" if told else ""


def _time(iso: str) -> str:
    return iso.replace("T", " ").partition(".")[0] + " UTC"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return " ".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, Sequence):
        return " ".join(str(item) for item in value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
