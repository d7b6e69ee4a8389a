"""Everything /object_info lets us know about a graph before it is sent: all problems, not the first one."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from comfymodal.errors import ComfymodalError, InputFileError, NotFoundError, WorkflowError
from comfymodal.workflow.check_links import feeding_nodes, find_cycles, link_problems
from comfymodal.workflow.check_values import value_problems
from comfymodal.workflow.graph import Graph
from comfymodal.workflow.object_info import InputSpec, ObjectInfo, class_entry, hidden_names, input_specs
from comfymodal.workflow.problems import Kind, Place, Problem
from comfymodal.workflow.wording import did_you_mean, listed, near_names, sentences

__all__ = ["Kind", "Problem", "check_graph", "require_valid"]

# Widgets of ComfyUI's page that old and new exports carry along; a warning on each would teach to skip warnings.
_PAGE_ONLY = frozenset({"upload", "audioUI"})


def check_graph(
    graph: Graph,
    *,
    object_info: ObjectInfo,
    uploaded: Container[str] = (),
    known_classes: Collection[str] = (),
) -> tuple[Problem, ...]:
    """Return every problem of *graph*, unknown nodes first.

    The server validates only what feeds an output, so problems elsewhere are warnings; it refuses unknown classes
    anywhere. *uploaded* are the file names that will be there, *known_classes* what near names are looked up in
    when *object_info* holds only the classes of the workflow.
    """
    unknown = {node_id for node_id, node in graph.items() if class_entry(object_info, node["class_type"]) is None}
    outputs = {node_id for node_id in graph if _is_output(graph, node_id, object_info)}
    # An unknown class may well be the one that saves.
    used = feeding_nodes(graph, outputs | unknown)
    problems = [
        _unknown_node(Place(graph, node_id), known_classes or object_info) for node_id in graph if node_id in unknown
    ]
    for node_id in graph:
        found = _node_problems(Place(graph, node_id), object_info=object_info, uploaded=uploaded)
        problems.extend(found if node_id in used else map(_as_unused, found))
    for cycle in find_cycles(graph):
        problem = _cycle(graph, cycle)
        problems.append(problem if used.intersection(cycle) else _as_unused(problem))
    if not outputs and not unknown:
        problems.append(_no_output())
    return tuple(problems)


def require_valid(problems: Sequence[Problem]) -> None:
    """Raise one error for all blocking problems; warnings alone pass.

    NotFoundError when only models and node classes are missing, InputFileError when only files are, else
    WorkflowError.
    """
    blocking = [problem for problem in problems if not problem.is_warning]
    if not blocking:
        return
    more = f" (and {len(blocking) - 1} more)" if len(blocking) > 1 else ""
    kinds = {problem.kind for problem in blocking}
    error: type[ComfymodalError] = WorkflowError
    if kinds <= {"unknown_node", "missing_model"}:
        error = NotFoundError
    elif kinds == {"missing_file"}:
        error = InputFileError
    raise error(blocking[0].message + more, hint=blocking[0].hint, problems=[problem.to_dict() for problem in problems])


def _is_output(graph: Graph, node_id: str, object_info: ObjectInfo) -> bool:
    entry = class_entry(object_info, graph[node_id]["class_type"])
    return entry is not None and bool(entry.get("output_node"))


def _unknown_node(place: Place, known: Collection[str]) -> Problem:
    near = near_names(place.class_type, known)
    return place.problem(
        "unknown_node",
        "is of a class the engine does not know",
        hint=sentences(did_you_mean(near), "a custom node pack may be missing, or it failed to load"),
    )


def _node_problems(place: Place, *, object_info: ObjectInfo, uploaded: Container[str]) -> Iterator[Problem]:
    entry = class_entry(object_info, place.class_type)
    specs = input_specs(entry)
    inputs: Mapping[str, Any] = place.graph[place.node_id]["inputs"]
    for name, spec in specs.items():
        # An autogrow or dynamic input may stand in the graph by its parts only (`images.image0`).
        if name not in inputs and spec.is_required and not spec.is_dynamic:
            yield _missing_input(place.at(name), spec)
    for name, value in inputs.items():
        input_spec = specs.get(name)
        if isinstance(value, list):
            yield from link_problems(value, input_spec, place=place.at(name), object_info=object_info)
        elif input_spec is not None:
            yield from value_problems(value, input_spec, place=place.at(name), uploaded=uploaded)
        if entry is not None and not _is_accepted(name, specs, hidden_names(entry)):
            yield _unknown_input(place.at(name), specs)


def _is_accepted(name: str, specs: Mapping[str, InputSpec], hidden: Container[str]) -> bool:
    return name in specs or "." in name or name in hidden or name in _PAGE_ONLY


def _missing_input(place: Place, spec: InputSpec) -> Problem:
    default = spec.settings.get("default")
    target = f"{place.node_id}.{place.input_name}"
    example = f"set it: --set {target}={default}" if isinstance(default, int | float | str) else f"it takes {spec.type}"
    return place.problem("missing_input", "is required but not there", hint=example)


def _unknown_input(place: Place, specs: Mapping[str, InputSpec]) -> Problem:
    near = near_names(place.input_name or "", specs)
    inputs = f"inputs of {place.class_type}: {listed(specs, limit=30) or 'none'}"
    return place.problem(
        "unknown_input",
        "is unknown to the server, which ignores it",
        hint=sentences(did_you_mean(near), inputs),
        is_warning=True,
    )


def _cycle(graph: Graph, cycle: tuple[str, ...]) -> Problem:
    # Links point to where a value comes from: shown the other way round, as the data would flow.
    ring = [cycle[0], *reversed(cycle[1:]), cycle[0]]
    return Place(graph, cycle[0]).problem("cycle", f"feeds itself: {' -> '.join(ring)}", hint="cut one of these links")


def _no_output() -> Problem:
    return Problem(
        kind="no_output",
        node_id="",
        title="",
        class_type="",
        input_name=None,
        message="no node of the workflow saves or shows anything, so the server has nothing to do",
        hint="add an output node such as SaveImage or PreviewImage, and export the workflow again",
    )


def _as_unused(problem: Problem) -> Problem:
    return replace(problem, is_warning=True, message=f"{problem.message}; the node feeds no output, so it does not run")
