"""`comfymodal workflow`: look at a workflow, and check it against an engine without rendering."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comfymodal.errors import ComfymodalError, NotReadyError, ServiceError, UsageError, WorkflowError
from comfymodal.operations.check import Nodes, check_workflow, nodes_of_catalog
from comfymodal.operations.context import Context
from comfymodal.operations.describe import describe_nodes
from comfymodal.operations.desk import Desk
from comfymodal.operations.results import ChangeView
from comfymodal.operations.views import iso_time
from comfymodal.operations.workflow_results import CheckedFile, EngineView, ProblemView, WorkflowsChecked, WorkflowShown
from comfymodal.targets.base import KnownNodes
from comfymodal.workflow.check import Problem, require_valid
from comfymodal.workflow.graph import Graph, own_title, read_workflow
from comfymodal.workflow.override import Override, apply_overrides, parse_overrides
from comfymodal.workflow.wording import did_you_mean, listed, near_names, sentences, shown


def show_workflow(
    path: Path, arguments: Sequence[str], context: Context, desk: Desk, *, node: str | None = None
) -> WorkflowShown:
    """Describe every node, or one, as it is after the overrides. Starts no engine and needs none."""
    for warning in context.warnings:
        desk.warn(warning)
    workflow = read_workflow(path)
    overrides = parse_overrides(arguments, workflow.graph)
    try:
        known = context.target.known_nodes(may_ask=True)
    except NotReadyError as error:
        known = None
        desk.warn(error.message)
    if known is None:
        desk.warn("types, ranges and choices are unknown until an engine was asked: comfymodal workflow check")
    else:
        _warn_of_age(known, desk)
    object_info = known.object_info if known else None
    overridden = apply_overrides(workflow.graph, overrides, object_info=object_info or {})
    wanted = _chosen(overridden.graph, node)
    nodes = describe_nodes(overridden.graph, object_info)
    return WorkflowShown(
        workflow=str(path),
        sha256=workflow.sha256,
        engine=_engine_view(known) if known else None,
        nodes=tuple(view for view in nodes if view.node_id in wanted),
        changes=tuple(
            ChangeView(change.node_id, change.title, change.input_name, change.old, change.new)
            for change in overridden.changes
        ),
        is_whole=node is not None,
    )


def check_workflows(
    paths: Sequence[Path], arguments: Sequence[str], context: Context, desk: Desk, *, is_offline: bool
) -> WorkflowsChecked:
    """Find everything that is wrong with each workflow; every `--set` is applied to every one.

    What `render` refuses is found by what `render` uses. Raises NotReadyError when no engine can be asked, and
    UsageError for a `--set` that is none.
    """
    for warning in context.warnings:
        desk.warn(warning)
    graphs = {path: _read(path) for path in dict.fromkeys(paths)}
    # Nothing to check is no reason to start anything.
    has_any = any(not isinstance(graph, ComfymodalError) for graph in graphs.values())
    known = _known(context, desk, is_offline=is_offline) if has_any else None
    checked = tuple(_checked_file(path, graph, arguments, known) for path, graph in graphs.items())
    codes = {file.exit_code for file in checked} - {0}
    # As within one file: 4 says "get what is missing", which is only true when that is enough everywhere.
    return WorkflowsChecked(_engine_view(known) if known else None, checked, exit_code=min(codes, default=0))


def _known(context: Context, desk: Desk, *, is_offline: bool) -> KnownNodes:
    """Prefer what is known and still holds; start an engine only when nothing else can tell."""
    known = context.target.known_nodes(may_ask=not is_offline)
    if known is None and is_offline:
        raise NotReadyError(
            "no engine was ever asked about its nodes here, and --offline asks none",
            hint="run the same command once without --offline",
        )
    if not is_offline and (known is None or known.freshness == "outdated"):
        from comfymodal.operations.ready import ready_engine

        ready_engine(context, desk)
        known = context.target.known_nodes(may_ask=True)
    if known is None:
        raise ServiceError("the engine started, but did not tell its nodes", hint="see comfymodal engine, or its log")
    _warn_of_age(known, desk)
    return known


def _warn_of_age(known: KnownNodes, desk: Desk) -> None:
    if known.freshness == "current":
        return
    reason = {
        "outdated": "nodes, models or input files changed since the engine was asked",
        "unreachable": "the server does not answer",
    }[known.freshness]
    desk.warn(f"{reason}; this is what it said {_age(time.time() - known.fetched_at)} ago")


def _age(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {name}{'s' if number > 1 else ''}"
    return "less than a minute"


def _read(path: Path) -> Graph | ComfymodalError:
    try:
        return read_workflow(path).graph
    except WorkflowError as error:
        return error


def _checked_file(
    path: Path, graph: Graph | ComfymodalError, arguments: Sequence[str], known: KnownNodes | None
) -> CheckedFile:
    if isinstance(graph, ComfymodalError):
        return CheckedFile(str(path), 0, (_error_view(graph, "unreadable"),), graph.exit_code)
    if known is None:
        raise ValueError("a readable workflow is checked against something")
    nodes = nodes_of_catalog(known)
    overrides, errors = _usable(graph, arguments, nodes)
    _, problems = check_workflow(graph, overrides, nodes)
    views = [_error_view(error, "bad_override") for error in errors]
    views += [_problem_view(problem) for problem in problems]
    codes = {error.exit_code for error in errors} | _exit_codes(problems)
    return CheckedFile(str(path), len(graph), tuple(views), min(codes, default=0))


def _usable(graph: Graph, arguments: Sequence[str], nodes: Nodes) -> tuple[tuple[Override, ...], list[ComfymodalError]]:
    """Try the overrides one by one, so that one mistake hides no other."""
    usable: list[str] = []
    errors: list[ComfymodalError] = []
    for argument in arguments:
        try:
            apply_overrides(graph, parse_overrides([argument], graph), object_info=nodes.object_info)
        except UsageError:
            raise
        except ComfymodalError as error:
            errors.append(error)
        else:
            usable.append(argument)
    return parse_overrides(usable, graph), errors


def _exit_codes(problems: Sequence[Problem]) -> set[int]:
    try:
        require_valid(problems)
    except ComfymodalError as error:
        return {error.exit_code}
    return set()


def _error_view(error: ComfymodalError, kind: str) -> ProblemView:
    found: dict[str, Any] = error.details
    input_name = found.get("input_name")
    return ProblemView(kind, False, str(found.get("node_id", "")), "", "", input_name, error.message, error.hint)


def _problem_view(problem: Problem) -> ProblemView:
    return ProblemView(**problem.to_dict())


def _engine_view(known: KnownNodes) -> EngineView:
    return EngineView(
        known.comfyui_version, known.device, known.how, known.freshness, asked_at=iso_time(known.fetched_at)
    )


def _chosen(graph: Graph, node: str | None) -> set[str]:
    """The ids that `--node` means: an id, or else every node of that title or class. Raises WorkflowError."""
    if node is None:
        return set(graph)
    if node in graph:
        return {node}
    found = {node_id for node_id in graph if node in (own_title(graph[node_id]), graph[node_id]["class_type"])}
    if not found:
        names = {str(name): None for item in graph.values() for name in (own_title(item), item["class_type"]) if name}
        raise WorkflowError(
            f"the workflow has no node {shown(node)}",
            hint=sentences(did_you_mean(near_names(node, [*graph, *names])), f"nodes: {listed(names)}"),
        )
    return found
