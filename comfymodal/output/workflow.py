"""A workflow on the screen: blocks for people at a terminal, rows for programs, problems as lines."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from comfymodal.operations.workflow_results import (
    CheckedFile,
    InputView,
    NodeView,
    OutputView,
    ProblemView,
    WorkflowsChecked,
    WorkflowShown,
)
from comfymodal.output.desk import TerminalDesk
from comfymodal.output.envelope import build_envelope
from comfymodal.output.screen import write_stderr
from comfymodal.output.show import show_document, show_lines
from comfymodal.output.words import count, shown_path

CHOICES_SHOWN = 12
INDENT = "   "
NARROWEST_VALUE = 12


def show_nodes(shown: WorkflowShown, desk: TerminalDesk) -> None:
    """Print what `workflow show` found."""
    desk.close()
    if desk.as_json:
        envelope = build_envelope(shown, command=["workflow", "show"], warnings=desk.warnings)
        del envelope["data"]["is_whole"]
        show_document(envelope)
    elif sys.stdout.isatty():
        show_lines([title_line(shown), *map(_emphasised, node_lines(shown, shutil.get_terminal_size().columns))])
    else:
        write_stderr(title_line(shown))
        show_lines(["\t".join(row) for row in node_rows(shown)])


def show_problems(checked: WorkflowsChecked, desk: TerminalDesk) -> None:
    """Print what `workflow check` found; with JSON, `errors` has what stops a render and `data` has all."""
    desk.close()
    if not desk.as_json:
        show_lines(problem_lines(checked))
        return
    envelope = build_envelope(checked, command=["workflow", "check"], warnings=desk.warnings)
    del envelope["data"]["exit_code"]
    envelope["errors"] = [
        {"code": problem.kind, "message": problem.message, "hint": problem.hint, "workflow": file.workflow}
        for file in checked.workflows
        for problem in file.problems
        if not problem.is_warning
    ]
    envelope["status"] = "error" if checked.exit_code else "success"
    show_document(envelope)


def node_rows(shown: WorkflowShown) -> list[tuple[str, ...]]:
    """One row an input, for other programs: node id, title, class, what `--set` takes, value, type and range."""
    return [
        (node.node_id, node.title, node.class_type, item.set or item.name, _value(item, shown), _kind(item, shown))
        for node in shown.nodes
        for item in _inputs(node, shown)
    ]


def node_lines(shown: WorkflowShown, width: int) -> list[str]:
    """Blocks of a node and its inputs, no line longer than `width`, unless one node was asked for in full."""
    lines: list[str] = []
    for node in shown.nodes:
        lines.append(_cut(_heading(node), width))
        lines += _block(_inputs(node, shown), shown, width)
    return lines


def problem_lines(checked: WorkflowsChecked) -> list[str]:
    """Every problem of every file with its hint, then how many there are; a clean file says so."""
    lines: list[str] = []
    for file in checked.workflows:
        for problem in file.problems:
            lines.append(_problem(file, problem))
            if problem.hint:
                lines.append(f"  hint: {problem.hint}")
        lines.append(_verdict(file))
    return lines


def title_line(shown: WorkflowShown) -> str:
    """What was looked at, and who told the types."""
    nodes = count(len(shown.nodes), "node")
    if shown.engine is None:
        return f"{shown_path(shown.workflow)}: {nodes}"
    return f"{shown_path(shown.workflow)}: {nodes}; types from ComfyUI {shown.engine.version} ({shown.engine.how})"


def _problem(file: CheckedFile, problem: ProblemView) -> str:
    # Errors of reading name the file, line and column themselves.
    message = problem.message
    if problem.kind != "unreadable":
        message = f"{shown_path(file.workflow)}: {message}"
    return f"warning: {message}" if problem.is_warning else message


def _verdict(file: CheckedFile) -> str:
    warnings = sum(problem.is_warning for problem in file.problems)
    found = [
        count(number, noun)
        for number, noun in ((len(file.problems) - warnings, "problem"), (warnings, "warning"))
        if number
    ]
    nodes = f" ({count(file.nodes, 'node')})" if file.nodes else ""
    return f"{shown_path(file.workflow)}{nodes}: {' and '.join(found) or 'ok'}"


def _heading(node: NodeView) -> str:
    name = node.class_type if node.title == node.class_type else f"{node.title} ({node.class_type})"
    notes = []
    if node.is_known is False:
        notes.append("unknown to the engine")
    if node.outputs:
        notes.append(f"-> {', '.join(_output(output) for output in node.outputs)}")
    elif node.is_output:
        notes.append("an output")
    return "  ".join([f"{node.node_id}  {name}", *notes])


def _output(output: OutputView) -> str:
    name = output.type if output.name == output.type else f"{output.name} ({output.type})"
    return f"{output.slot} {name}"


def _block(inputs: Sequence[InputView], shown: WorkflowShown, width: int) -> list[str]:
    """Three columns as wide as this node needs; the value gives way first, then the list of choices."""
    rows = [(item.set or item.name, _value(item, shown), _kind(item, shown)) for item in inputs]
    if not rows:
        return []
    if shown.is_whole:
        return [f"{INDENT}{name}\n{INDENT * 2}{value}\n{INDENT * 2}{kind}".rstrip() for name, value, kind in rows]
    names = max(len(row[0]) for row in rows)
    kinds = max(len(row[2]) for row in rows)
    left = width - len(INDENT) - names - 2
    values = min(max(len(row[1]) for row in rows), max(NARROWEST_VALUE, left - kinds - 2, left // 2 if kinds else left))
    return [
        _cut(f"{INDENT}{name:<{names}}  {_cut(value, values):<{values}}  {kind}".rstrip(), width)
        for name, value, kind in rows
    ]


def _inputs(node: NodeView, shown: WorkflowShown) -> list[InputView]:
    """Those the graph has or must have; the optional ones it leaves out only when one node is asked for."""
    return [item for item in node.inputs if shown.is_whole or item.is_there or item.is_required]


def _value(item: InputView, shown: WorkflowShown) -> str:
    if item.link is not None:
        slot = f"[{item.link.slot}]" if item.link.slot else ""
        return f"<- {item.link.node_id}{slot} {item.link.title or '(no such node)'}"
    if not item.is_there:
        return "missing" if item.is_required else "left out"
    return _literal(item.value)


def _literal(value: Any) -> str:
    """A text as it is typed after "=", quoted only where it would not show."""
    if isinstance(value, str) and value.strip() == value and value.isprintable() and value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _kind(item: InputView, shown: WorkflowShown) -> str:
    if item.type is None:
        return ""
    if item.choices is not None:
        return _choices(item.choices, shown)
    parts = [item.type.replace(",", "|")]
    low, high = item.min, item.max
    if low is not None and high is not None:
        parts.append(f"{low}..{high}")
    elif low is not None or high is not None:
        parts.append(f"from {low}" if low is not None else f"up to {high}")
    if shown.is_whole and item.step is not None:
        parts.append(f"in steps of {item.step}")
    if shown.is_whole and item.default is not None:
        parts.append(f"(default {_literal(item.default)})")
    return " ".join(parts)


def _choices(choices: Sequence[Any], shown: WorkflowShown) -> str:
    if not choices:
        return "nothing to choose from"
    listed = [str(choice) for choice in (choices if shown.is_whole else choices[:CHOICES_SHOWN])]
    more = f", ... ({len(choices) - len(listed)} more)" if len(choices) > len(listed) else ""
    return f"one of {len(choices)}: {', '.join(listed)}{more}"


def _emphasised(line: str) -> str:
    import typer

    return line if line.startswith(" ") or "NO_COLOR" in os.environ else typer.style(line, bold=True)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."
