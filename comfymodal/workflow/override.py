"""Overrides of single inputs: `--set NODE.INPUT=VALUE` read against the graph, then applied to a copy of it.

Two stages, so that whatever needs no engine is decided before one is started.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from comfymodal.errors import UsageError, WorkflowError
from comfymodal.workflow.graph import Graph, is_link, node_text, title_of
from comfymodal.workflow.node_names import EXAMPLE, find_nodes
from comfymodal.workflow.object_info import InputSpec, ObjectInfo, class_entry, input_specs
from comfymodal.workflow.strict_json import parse_json
from comfymodal.workflow.uploads import Upload, describe_upload, find_upload, local_path, read_text, require_file
from comfymodal.workflow.values import json_value, typed_value, value_type
from comfymodal.workflow.wording import did_you_mean, listed, near_names, sentences, shown

__all__ = ["Change", "Overridden", "Override", "Upload", "apply_overrides", "draw_seed", "parse_overrides"]

_SEED_NAMES = frozenset({"seed", "noise_seed"})


@dataclass(frozen=True, slots=True)
class Override:
    """One `--set`, its nodes found. *text* is what follows the operator, as typed (`@file` unread)."""

    node_ids: tuple[str, ...]
    input_name: str
    operator: Literal["=", ":="]
    text: str
    argument: str


@dataclass(frozen=True, slots=True)
class Change:
    """One input that got another value; *old* is None where the graph had none."""

    node_id: str
    title: str
    input_name: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Overridden:
    """A new graph, what changed in it (drawn seeds included), and the files it now reads."""

    graph: Graph
    changes: tuple[Change, ...]
    uploads: tuple[Upload, ...]


@dataclass(frozen=True, slots=True)
class _Target:
    """One input of one node that an override sets; *spec* is None when the server does not declare it."""

    graph: Graph
    node_id: str
    input_name: str
    spec: InputSpec | None

    @property
    def current(self) -> Any:
        return self.graph[self.node_id]["inputs"].get(self.input_name)

    @property
    def where(self) -> str:
        return f"{self.node_id}.{self.input_name} ({self.graph[self.node_id]['class_type']})"


def draw_seed() -> int:
    """Return a random seed below 2**53: ComfyUI takes 2**64, but its page rounds what JavaScript cannot hold."""
    return secrets.randbelow(2**53)


def parse_overrides(arguments: Sequence[str], graph: Graph) -> tuple[Override, ...]:
    """Read every argument against *graph*.

    Raises UsageError for bad syntax or an input set twice, WorkflowError for an unknown or ambiguous node, bad
    JSON or a link replaced by "=", InputFileError for an `@file` that is missing.
    """
    overrides = tuple(_parse(argument, graph) for argument in arguments)
    _require_distinct(overrides)
    return overrides


def apply_overrides(
    graph: Graph,
    overrides: Sequence[Override],
    *,
    object_info: ObjectInfo,
    draw_seed: Callable[[], int] = draw_seed,
) -> Overridden:
    """Return a new graph with every override in it; *graph* stays as it is.

    Raises WorkflowError for an unknown input or a value of the wrong type, InputFileError for a file that is
    missing or cannot be read. Whether a value is in range or in a list is for check_graph to say.
    """
    new: Graph = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in graph.items()}
    read_once = cache(read_text)  # a pipe such as @<(generate) can be read once, also for several nodes
    changes: list[Change] = []
    uploads: list[Upload] = []
    for override in overrides:
        for node_id in override.node_ids:
            target = _target(override, node_id, graph=graph, object_info=object_info)
            value = _value(override, target, read=read_once, draw_seed=draw_seed)
            if isinstance(value, Upload):
                uploads.append(value)
            literal = value.name if isinstance(value, Upload) else value
            new[node_id]["inputs"][override.input_name] = literal
            changes.append(Change(node_id, title_of(graph, node_id), override.input_name, target.current, literal))
    return Overridden(graph=new, changes=tuple(changes), uploads=tuple(uploads))


def _parse(argument: str, graph: Graph) -> Override:
    _require_syntax(argument)
    reference = find_nodes(argument, graph)
    left, equals, text = reference.rest.partition("=")
    if not equals:
        raise UsageError(f"--set {shown(argument)} has no value", hint=EXAMPLE, argument=argument)
    operator: Literal["=", ":="] = ":=" if left.endswith(":") else "="
    input_name = left.removesuffix(":")
    if not input_name.strip():
        raise UsageError(f"--set {shown(argument)} names no input", hint=EXAMPLE, argument=argument)
    override = Override(reference.node_ids, input_name, operator, text, argument)
    if operator == ":=":
        parse_json(text, where=_written(override))
        return override
    for node_id in override.node_ids:
        _require_no_link(graph, node_id, input_name)
    if text == "@":
        raise UsageError(f"--set {shown(argument)} names no file", hint=f"{_written(override)}@FILE", argument=argument)
    if (path := _named_file(text)) is not None:
        require_file(path, where=_written(override), more="a text that starts with @ is written @@")
    return override


def _require_syntax(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError as exc:
        # Bytes of another encoding reach Python as lone surrogates; neither JSON nor a terminal takes them.
        raise UsageError(
            f"--set {argument!a} is not UTF-8 text", hint="read the value from a UTF-8 file: NODE.INPUT=@FILE"
        ) from exc
    if "=" not in argument:
        raise UsageError(f"--set {shown(argument)} has no value", hint=EXAMPLE, argument=argument)


def _require_distinct(overrides: Sequence[Override]) -> None:
    owners: dict[tuple[str, str], Override] = {}
    for override in overrides:
        for node_id in override.node_ids:
            first = owners.setdefault((node_id, override.input_name), override)
            if first is not override:
                raise UsageError(
                    f"--set sets {node_id}.{override.input_name} twice: "
                    f"{shown(first.argument)} and {shown(override.argument)}",
                    hint="keep one of them",
                    node_id=node_id,
                    input_name=override.input_name,
                )


def _require_no_link(graph: Graph, node_id: str, input_name: str) -> None:
    current = graph[node_id]["inputs"].get(input_name)
    if is_link(current):
        source = graph.get(current[0])
        raise WorkflowError(
            f'{node_text(graph, node_id)} input "{input_name}" is a link to '
            f"{current[0]} ({source['class_type'] if source else 'a node that is not there'}); use := to replace it",
            hint=f"""a value: '{node_id}.{input_name}:="text"', a link: '{node_id}.{input_name}:=["NODE",0]'""",
            node_id=node_id,
            input_name=input_name,
        )


def _named_file(text: str) -> Path | None:
    """Return the file of `@file`; `@@x` is the text "@x"."""
    return local_path(text[1:]) if text.startswith("@") and not text.startswith("@@") else None


def _written(override: Override) -> str:
    """Return the part before the value, as typed: how messages name the override."""
    kept = len(override.argument) - len(override.text)
    return f"--set {override.argument[:kept]}"


def _target(override: Override, node_id: str, *, graph: Graph, object_info: ObjectInfo) -> _Target:
    if node_id not in graph:
        raise WorkflowError(f"the workflow has no node {node_id}", hint="parse the override against this graph")
    specs = input_specs(class_entry(object_info, graph[node_id]["class_type"]))
    name = override.input_name
    # `model.width` belongs to the dynamic input `model`: which such names exist depends on its choice.
    owner = specs.get(name.partition(".")[0])
    if name in specs or name in graph[node_id]["inputs"] or (owner is not None and owner.is_dynamic):
        return _Target(graph, node_id, name, specs.get(name))
    known = list(dict.fromkeys([*specs, *graph[node_id]["inputs"]]))
    near = near_names(name, known)
    inputs = f"inputs of {graph[node_id]['class_type']}: {listed(known, limit=30) or 'none'}"
    raise WorkflowError(
        f'{node_text(graph, node_id)} has no input "{name}"',
        hint=sentences(did_you_mean(near), inputs),
        node_id=node_id,
        input_name=name,
        near=near,
    )


def _value(
    override: Override, target: _Target, *, read: Callable[..., str], draw_seed: Callable[[], int]
) -> Any | Upload:
    text, spec = override.text, target.spec
    if override.operator == ":=":
        value = parse_json(text, where=_written(override))
        return json_value(value, is_link=is_link(value))
    path = _named_file(text)
    literal = text.removeprefix("@") if text.startswith("@@") else text
    if spec is not None and spec.is_upload:
        return _upload_or_name(path, literal, target=target, spec=spec)
    type_name = value_type(spec, target.current)
    if path is not None:
        return _text_of_file(path, type_name, target=target, where=_written(override), read=read)
    if type_name is None:
        kind = f" ({spec.type})" if spec else ""
        raise WorkflowError(
            f'the type of {target.where}{kind} is not one that "=" can write',
            hint=f"""use := with a JSON value, or a link: '{target.node_id}.{target.input_name}:=["NODE",0]'""",
        )
    if literal == "random" and type_name == "INT" and _is_seed(target):
        return _fitted(draw_seed(), spec)
    return typed_value(literal, type_name=type_name, spec=spec, where=target.where)


def _upload_or_name(path: Path | None, text: str, *, target: _Target, spec: InputSpec) -> Upload | str:
    """Return the upload for a local file, or the text as the name of a file the server has."""
    found = path or find_upload(text, spec, where=target.where)
    if found is None:
        return text
    return describe_upload(found, node_id=target.node_id, input_name=target.input_name, where=target.where)


def _text_of_file(path: Path, type_name: str | None, *, target: _Target, where: str, read: Callable[..., str]) -> str:
    if type_name != "STRING":
        raise WorkflowError(
            f"{target.where} takes no file: it is {type_name or 'no text'}",
            hint="=@FILE fills text inputs, and uploads for inputs that load a file",
        )
    return read(path, where=where)


def _is_seed(target: _Target) -> bool:
    marked = target.spec is not None and bool(target.spec.settings.get("control_after_generate"))
    return marked or target.input_name in _SEED_NAMES


def _fitted(seed: int, spec: InputSpec | None) -> int:
    """Bring a drawn seed into the input's range: custom nodes often stop at 2**32."""
    settings = spec.settings if spec else {}
    high = settings["max"] if isinstance(settings.get("max"), int) else max(seed, 2**53 - 1)
    low = settings["min"] if isinstance(settings.get("min"), int) else min(0, high)
    return seed if low <= seed <= high or low > high else low + (seed - low) % (high - low + 1)
