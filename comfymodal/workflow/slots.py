"""Where a LoRA and a prompt go into a workflow, found by following its links; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from comfymodal.errors import WorkflowError
from comfymodal.workflow.graph import Graph, is_link, node_text
from comfymodal.workflow.node_names import find_nodes
from comfymodal.workflow.object_info import ObjectInfo, class_entry, input_specs, output_types
from comfymodal.workflow.wording import listed

LOADERS: Mapping[str, tuple[str, ...]] = {
    "LoraLoader": ("strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("strength_model",),
}
"""Nodes that load one LoRA by `lora_name`, with their inputs for its strength."""

_CONDITIONING = "CONDITIONING"

_Link = tuple[str, int]
"""A node, and which of its outputs."""


@dataclass(frozen=True, slots=True)
class LoraSlot:
    """A node that loads a LoRA."""

    node_id: str
    strengths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextSlot:
    """The inputs of one node that take the prompt: an encoder of two models has two."""

    node_id: str
    inputs: tuple[str, ...]


def find_lora(graph: Graph, wanted: str | None = None) -> LoraSlot:
    """The node that loads a LoRA, or the one `wanted` names as `--set` names nodes.

    Raises `WorkflowError` when there is none, or several and none is named.
    """
    found = [node_id for node_id, node in graph.items() if node["class_type"] in LOADERS]
    if wanted is not None:
        named = find_nodes(f"{wanted}.lora_name", graph).node_ids
        if len(named) != 1 or named[0] not in found:
            raise WorkflowError(f"{wanted} is not one node that loads a LoRA", hint=f"there are: {_told(found, graph)}")
        found = list(named)
    if not found:
        raise WorkflowError(
            "the workflow has no node that loads a LoRA: there is nowhere to put what was trained",
            hint=f"add a {' or a '.join(LOADERS)} behind the model, and export the workflow again",
        )
    if len(found) > 1:
        raise WorkflowError(
            f"the workflow loads {len(found)} LoRAs: {_told(found, graph)}",
            hint=f"say which of them is the trained one: --eval-lora {found[0]}",
            node_ids=found,
        )
    return LoraSlot(found[0], LOADERS[str(graph[found[0]]["class_type"])])


def find_prompt(graph: Graph, object_info: ObjectInfo, wanted: str | None = None) -> TextSlot:
    """The node whose text leads to what a sampler takes as `positive`, or the input `wanted` names: `6.text`.

    Raises `WorkflowError` when there is none, or several and none is named.
    """
    if wanted is not None:
        named = find_nodes(wanted, graph)
        if len(named.node_ids) != 1 or not named.rest:
            raise WorkflowError(f"{wanted} does not name one input of one node", hint="--eval-prompt 6.text")
        return TextSlot(named.node_ids[0], (named.rest,))
    found = list(dict.fromkeys(_positive_texts(graph, object_info)))
    if len(found) == 1:
        return TextSlot(found[0], _text_inputs(graph, found[0], object_info))
    if not found:
        raise WorkflowError(
            "no text leads to the positive input of a sampler: it is not known where the prompts go",
            hint="say where: --eval-prompt 6.text",
        )
    raise WorkflowError(
        f"{len(found)} texts lead to a sampler as positive: {_told(found, graph)}",
        hint=f"say where the prompts go: --eval-prompt {found[0]}.{_text_inputs(graph, found[0], object_info)[0]}",
        node_ids=found,
    )


def filled(graph: Graph, lora: LoraSlot, text: TextSlot, *, file: str, strength: float, prompt: str | None) -> Graph:
    """A new graph with this LoRA, at this strength, and this prompt; None leaves the graph's own."""
    new: Graph = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in graph.items()}
    new[lora.node_id]["inputs"] |= {"lora_name": file, **dict.fromkeys(lora.strengths, strength)}
    if prompt is not None:
        new[text.node_id]["inputs"] |= dict.fromkeys(text.inputs, prompt)
    return new


def _positive_texts(graph: Graph, object_info: ObjectInfo) -> Iterator[str]:
    seen: set[_Link] = set()
    pending = list(_positive_links(graph, object_info))
    while pending:
        node_id, slot = pending.pop(0)
        if (node_id, slot) in seen or node_id not in graph:
            continue
        seen.add((node_id, slot))
        if _text_inputs(graph, node_id, object_info):
            yield node_id
        else:
            pending += _conditioning_links(graph, node_id, slot, object_info)


def _positive_links(graph: Graph, object_info: ObjectInfo) -> Iterator[_Link]:
    for node_id, node in graph.items():
        inputs = node["inputs"]
        # A guider without a negative side calls its only one `conditioning`.
        name = "conditioning" if "GUIDER" in _outputs(graph, node_id, object_info) else ""
        for value in (inputs.get("positive"), inputs.get(name)):
            if is_link(value):
                yield value[0], value[1]


def _conditioning_links(graph: Graph, node_id: str, slot: int, object_info: ObjectInfo) -> Iterator[_Link]:
    """What of a node's inputs goes on to this output of it."""
    inputs = graph[node_id]["inputs"]
    if {"positive", "negative"} <= inputs.keys():
        # Such nodes give out both, in this order.
        value = inputs["negative" if slot == 1 else "positive"]
        if is_link(value):
            yield value[0], value[1]
        return
    for value in inputs.values():
        if is_link(value) and value[0] in graph:
            outputs = _outputs(graph, value[0], object_info)
            if value[1] < len(outputs) and outputs[value[1]] == _CONDITIONING:
                yield value[0], value[1]


def _text_inputs(graph: Graph, node_id: str, object_info: ObjectInfo) -> tuple[str, ...]:
    """The inputs for a prompt of a node that encodes one; empty for any other node."""
    if _CONDITIONING not in _outputs(graph, node_id, object_info):
        return ()
    specs = input_specs(class_entry(object_info, str(graph[node_id]["class_type"])))
    return tuple(name for name, spec in specs.items() if spec.type == "STRING" and spec.settings.get("multiline"))


def _outputs(graph: Graph, node_id: str, object_info: ObjectInfo) -> tuple[str, ...]:
    entry = class_entry(object_info, str(graph[node_id]["class_type"]))
    return (output_types(entry) if entry else None) or ()


def _told(node_ids: list[str], graph: Graph) -> str:
    return listed(node_text(graph, node_id) for node_id in node_ids) or "none"
