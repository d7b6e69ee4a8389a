"""Links of a graph: do they lead somewhere, do the types fit, which nodes feed an output, what runs in circles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from comfymodal.workflow.graph import Graph, is_link, node_text
from comfymodal.workflow.object_info import COMBO, InputSpec, ObjectInfo, class_entry, is_dynamic_type, output_types
from comfymodal.workflow.problems import Place, Problem
from comfymodal.workflow.wording import did_you_mean, near_names, sentences, shown

_LITERAL_TYPES = frozenset({COMBO, "STRING", "INT", "FLOAT", "BOOLEAN"})


def link_problems(value: list[Any], spec: InputSpec | None, *, place: Place, object_info: ObjectInfo) -> list[Problem]:
    """Return what is wrong with a list found as a value; without *spec* the type is not judged."""
    if not is_link(value):
        return [
            place.problem(
                "bad_link",
                f"is the list {shown(value)}, which the server reads as a link",
                hint='a link is ["NODE", 0]; a list of values is {"__value__": [...]}',
            )
        ]
    source_id, slot = value
    if source_id not in place.graph:
        near = near_names(source_id, place.graph)
        return [
            place.problem("bad_link", f"is linked to node {source_id}, which is not there", hint=did_you_mean(near))
        ]
    source = node_text(place.graph, source_id)
    entry = class_entry(object_info, place.graph[source_id]["class_type"])
    outputs = output_types(entry) if entry is not None else None
    if outputs is None:
        return []  # an unknown class is a problem of its own
    if slot >= len(outputs):
        has = f"its outputs: {', '.join(f'{i} {name}' for i, name in enumerate(outputs))}" if outputs else None
        return [
            place.problem(
                "bad_link",
                f"is linked to output {slot} of {source}, which has {len(outputs)}",
                hint=sentences(has, "outputs are counted from 0"),
            )
        ]
    if spec is not None and not _fits(outputs[slot], spec):
        return [place.problem("bad_link", f"needs {spec.type}, but output {slot} of {source} is {outputs[slot]}")]
    return []


def feeding_nodes(graph: Graph, roots: Iterable[str]) -> frozenset[str]:
    """Return *roots* and every node that a chain of links leads to from there."""
    seen: set[str] = set()
    pending = list(roots)
    while pending:
        node_id = pending.pop()
        if node_id not in seen:
            seen.add(node_id)
            pending.extend(_sources(graph, node_id))
    return frozenset(seen)


def find_cycles(graph: Graph) -> list[tuple[str, ...]]:
    """Return cycles as node ids in link order, one for each link that closes one and each set of nodes.

    Iterative, since a chain of a thousand nodes is legal and Python's stack is not that deep.
    """
    cycles: dict[frozenset[str], tuple[str, ...]] = {}
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        on_path: dict[str, int] = {}
        pending: list[tuple[str, Iterator[str]]] = []
        current: str | None = None if start in done else start
        while current is not None or pending:
            if current is not None:
                on_path[current] = len(path)
                path.append(current)
                pending.append((current, iter(_sources(graph, current))))
            node_id, sources = pending[-1]
            current = next((source for source in sources if source not in done), None)
            if current is None:
                done.add(node_id)
                pending.pop()
                path.pop()
                del on_path[node_id]
            elif current in on_path:
                cycle = tuple(path[on_path[current] :])
                cycles.setdefault(frozenset(cycle), cycle)
                current = None
    return list(cycles.values())


def _sources(graph: Graph, node_id: str) -> list[str]:
    values = graph[node_id]["inputs"].values()
    return [value[0] for value in values if is_link(value) and value[0] in graph]


def _fits(received: str, spec: InputSpec) -> bool:
    given = {part.strip() for part in received.split(",")}
    if "*" in given or "*" in spec.types or spec.is_dynamic or any(map(is_dynamic_type, given)):
        return True
    if COMBO in given or COMBO in spec.types:
        # A choice is a literal: primitives feed it, a picture never does.
        return given <= _LITERAL_TYPES and spec.types <= _LITERAL_TYPES
    return not given.isdisjoint(spec.types)
