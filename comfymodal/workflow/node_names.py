"""Which nodes an override means: by id, by title, or by class."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from comfymodal.errors import UsageError, WorkflowError
from comfymodal.workflow.graph import Graph, own_title
from comfymodal.workflow.wording import did_you_mean, listed, near_names, sentences, shown

ALL = "[*]"
EXAMPLE = "write NODE.INPUT=VALUE, for example 6.text='a cat' or '\"Positive Prompt\".text=a cat'"


@dataclass(frozen=True, slots=True)
class NodeReference:
    """The nodes meant, and what follows the dot after their name (`text=a cat`)."""

    node_ids: tuple[str, ...]
    rest: str


@dataclass(frozen=True, slots=True)
class _Match:
    """A known name the argument starts with; *length* counts what was written for it, dot included."""

    kind: Literal["id", "title", "class"]
    name: str
    length: int
    is_all: bool = False


def find_nodes(argument: str, graph: Graph) -> NodeReference:
    """Split `NODE.INPUT=VALUE` after NODE and return the nodes it names.

    Raises UsageError when there is no NODE, WorkflowError when none or several fit.
    """
    if argument[:1] in ('"', "@"):
        match = _best_title(argument, graph)
    else:
        _require_node_part(argument)
        match = _best(argument, graph)
    if match is None:
        raise _unknown(argument, graph)
    node_ids = _nodes_of(match, graph)
    rest = argument[match.length :]
    if len(node_ids) > 1 and not match.is_all:
        raise _ambiguous(match, node_ids, rest)
    return NodeReference(node_ids=node_ids, rest=rest)


def names_for_set(graph: Graph) -> dict[str, str]:
    """Return for each node the name by which `--set` means it alone: its title, else its class, else its id.

    Titles and classes that would need quotes, or could be read in two ways, are passed over.
    """
    titles = Counter(own_title(node) for node in graph.values())
    classes = Counter(str(node["class_type"]) for node in graph.values())
    dotted = [name for name in [*graph, *_titles(graph), *classes] if "." in name]
    found: dict[str, str] = {}
    for node_id, node in graph.items():
        title, class_type = own_title(node), str(node["class_type"])
        found[node_id] = node_id
        if title and titles[title] == 1 and _is_plain(title, graph, dotted):
            found[node_id] = title
        elif classes[class_type] == 1 and not titles[class_type] and _is_plain(class_type, graph, dotted):
            found[node_id] = class_type
    return found


def _is_plain(name: str, graph: Graph, dotted: list[str]) -> bool:
    if name in graph or name.strip() != name or not name.isprintable() or name[0] in '"@-':
        return False
    return not set("=.[]") & set(name) and not any(other.startswith(f"{name}.") for other in dotted)


def _require_node_part(argument: str) -> None:
    node, dot, _ = argument.partition("=")[0].partition(".")
    if not dot:
        raise UsageError(f"--set {shown(argument)} names no node and input", hint=EXAMPLE, argument=argument)
    if not node.strip():
        raise UsageError(f"--set {shown(argument)} names no node", hint=EXAMPLE, argument=argument)


def _best_title(argument: str, graph: Graph) -> _Match | None:
    """`"Title".text`, `@Title.text` and `@"Title".text` mean a title, even where an id or class has that name."""
    found = []
    for title in _titles(graph):
        for written in (f'"{title}"', f"@{title}", f'@"{title}"'):
            if argument.startswith(f"{written}."):
                found.append(_Match("title", title, len(written) + 1))
    return max(found, key=lambda match: match.length, default=None)


def _best(argument: str, graph: Graph) -> _Match | None:
    """Names may contain dots, so the longest known one wins; an id wins where it leads to an input it has."""
    found = [_Match("id", name, len(name) + 1) for name in graph if _leads(argument, name)]
    found.sort(key=lambda match: -match.length)
    for match in found:
        input_name = argument[match.length :].partition("=")[0].removesuffix(":")
        if input_name in graph[match.name]["inputs"]:
            return match
    found += [_Match("title", name, len(name) + 1) for name in _titles(graph) if _leads(argument, name)]
    for name in _classes(graph):
        if _leads(argument, name):
            found.append(_Match("class", name, len(name) + 1))
        if _leads(argument, name + ALL):
            found.append(_Match("class", name, len(name + ALL) + 1, is_all=True))
    # max() keeps the first of equals: id before title before class.
    return max(found, key=lambda match: match.length, default=None)


def _leads(argument: str, name: str) -> bool:
    # A name with "=" would let a value decide which node is meant; such a title is reachable in quotes.
    return bool(name) and "=" not in name and argument.startswith(f"{name}.")


def _nodes_of(match: _Match, graph: Graph) -> tuple[str, ...]:
    if match.kind == "id":
        return (match.name,)
    if match.kind == "title":
        return tuple(node_id for node_id, node in graph.items() if own_title(node) == match.name)
    return tuple(node_id for node_id, node in graph.items() if node["class_type"] == match.name)


def _titles(graph: Graph) -> list[str]:
    return list(dict.fromkeys(title for node in graph.values() if (title := own_title(node))))


def _classes(graph: Graph) -> list[str]:
    return list(dict.fromkeys(str(node["class_type"]) for node in graph.values()))


def _ambiguous(match: _Match, node_ids: tuple[str, ...], rest: str) -> WorkflowError:
    input_name = rest.partition("=")[0].removesuffix(":")
    choices = listed(f"{node_id}.{input_name}" for node_id in node_ids)
    every = f", or all of them: '{match.name}{ALL}.{input_name}'" if match.kind == "class" else ""
    return WorkflowError(
        f"the {match.kind} {shown(match.name)} fits {len(node_ids)} nodes: {listed(node_ids)}",
        hint=f"say which: {choices}{every}",
        node_ids=list(node_ids),
    )


def _unknown(argument: str, graph: Graph) -> WorkflowError:
    wanted = _wanted(argument)
    known = [*graph, *_titles(graph), *_classes(graph)]
    near = near_names(wanted, known)
    nodes = [_described(node_id, graph) for node_id in graph]
    return WorkflowError(
        f"the workflow has no node {shown(wanted)} (--set {shown(argument)})",
        hint=sentences(did_you_mean(near), f"nodes: {listed(nodes)}"),
        node=wanted,
        near=near,
    )


def _wanted(argument: str) -> str:
    """Guess where the unknown name ends: at its closing quote, an id at its first dot, a title at its last."""
    quoted = re.match(r'@?"([^"]*)"', argument)
    if quoted:
        return quoted[1]
    head = argument.partition("=")[0]
    first = head.partition(".")[0]
    wanted = first if re.fullmatch(r"[\d:]+", first) else head.rpartition(".")[0]
    return (wanted or head).removeprefix("@").removesuffix(ALL)


def _described(node_id: str, graph: Graph) -> str:
    title, class_type = own_title(graph[node_id]), graph[node_id]["class_type"]
    return f"{node_id} {shown(title)} ({class_type})" if title and title != class_type else f"{node_id} ({class_type})"
