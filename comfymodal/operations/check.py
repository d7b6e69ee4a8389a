"""The one check of a workflow: `render` and `workflow check` refuse the same, in the same words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from comfymodal.operations.context import Context
from comfymodal.targets.base import KnownNodes
from comfymodal.workflow.check import Problem, check_graph
from comfymodal.workflow.graph import Graph
from comfymodal.workflow.object_info import ObjectInfo
from comfymodal.workflow.override import Overridden, Override, apply_overrides


@dataclass(frozen=True, slots=True)
class Nodes:
    """What the check needs to know of an engine; what only hints need is asked for when there is one to give."""

    object_info: ObjectInfo
    known_classes: Callable[[], Collection[str]]
    model_files: Callable[[], Mapping[str, Sequence[str]]]
    models_root: str | None


def nodes_of_engine(graph: Graph, context: Context) -> Nodes:
    """Ask the engine that is ready about the classes of this graph: 3 ms for six, where all it knows takes 60."""
    target = context.target
    object_info = target.object_info(sorted({str(node["class_type"]) for node in graph.values()}))
    return Nodes(object_info, target.known_classes, target.model_files, target.models_root)


def nodes_of_catalog(known: KnownNodes) -> Nodes:
    """What is known without asking."""
    return Nodes(known.object_info, lambda: known.object_info, lambda: known.model_files, known.models_root)


def check_workflow(
    graph: Graph, overrides: tuple[Override, ...], nodes: Nodes
) -> tuple[Overridden, tuple[Problem, ...]]:
    """Apply the overrides and find every problem of what comes of it.

    Raises WorkflowError or InputFileError for an override that cannot be applied.
    """
    object_info = nodes.object_info
    overridden = apply_overrides(graph, overrides, object_info=object_info)
    is_complete = all(object_info.get(node["class_type"]) for node in graph.values())
    problems = check_graph(
        overridden.graph,
        object_info=object_info,
        uploaded={upload.name for upload in overridden.uploads},
        known_classes=() if is_complete else nodes.known_classes(),
    )
    if any(problem.kind == "missing_model" for problem in problems):
        from comfymodal.workflow.model_hints import add_model_hints

        problems = add_model_hints(
            problems,
            overridden.graph,
            object_info=object_info,
            model_files=nodes.model_files(),
            models_root=nodes.models_root,
        )
    return overridden, problems
