"""Builds what people and scripts see of a graph: every node with its inputs and outputs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfymodal.operations.workflow_results import InputView, LinkView, NodeView, OutputView
from comfymodal.workflow.graph import Graph, is_link, title_of
from comfymodal.workflow.node_names import names_for_set
from comfymodal.workflow.object_info import InputSpec, ObjectInfo, class_entry, input_specs, output_types
from comfymodal.workflow.values import value_type


def describe_nodes(graph: Graph, object_info: ObjectInfo | None) -> tuple[NodeView, ...]:
    """Build the view of every node; without `object_info` the types are unknown."""
    names = names_for_set(graph)
    return tuple(_node(graph, node_id, object_info, names[node_id]) for node_id in graph)


def _node(graph: Graph, node_id: str, object_info: ObjectInfo | None, name: str) -> NodeView:
    class_type = str(graph[node_id]["class_type"])
    entry = class_entry(object_info, class_type) if object_info is not None else None
    specs = input_specs(entry)
    values: Mapping[str, Any] = graph[node_id]["inputs"]
    inputs = dict.fromkeys([*specs, *values])
    return NodeView(
        node_id=node_id,
        title=title_of(graph, node_id),
        class_type=class_type,
        is_known=None if object_info is None else entry is not None,
        is_output=bool(entry.get("output_node")) if entry is not None else None,
        inputs=tuple(_input(graph, values, input_name, specs.get(input_name), name) for input_name in inputs),
        outputs=_outputs(entry),
    )


def _input(graph: Graph, values: Mapping[str, Any], name: str, spec: InputSpec | None, node: str) -> InputView:
    value = values.get(name)
    link = _link(graph, value)
    is_settable = link is None and (value_type(spec, value) is not None or (spec is not None and spec.is_upload))
    settings = spec.settings if spec is not None else {}
    return InputView(
        name=name,
        value=None if link is not None else value,
        link=link,
        is_there=name in values,
        set=f"{node}.{name}" if is_settable else None,
        type=spec.type if spec is not None else None,
        is_required=spec.is_required if spec is not None else None,
        default=settings.get("default"),
        min=_number(settings.get("min")),
        max=_number(settings.get("max")),
        step=_number(settings.get("step")),
        choices=spec.options if spec is not None else None,
    )


def _link(graph: Graph, value: Any) -> LinkView | None:
    if not is_link(value):
        return None
    node_id, slot = value
    return LinkView(node_id, slot, title_of(graph, node_id) if node_id in graph else None)


def _outputs(entry: Mapping[str, Any] | None) -> tuple[OutputView, ...]:
    types = output_types(entry) or () if entry is not None else ()
    raw = entry.get("output_name") if entry is not None else None
    names = raw if isinstance(raw, list) and len(raw) == len(types) else types
    return tuple(OutputView(slot, str(name), kind) for slot, (name, kind) in enumerate(zip(names, types, strict=True)))


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
