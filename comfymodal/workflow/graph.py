"""The workflow in API format: read it from a file, and the few questions asked of a graph everywhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from comfymodal.errors import WorkflowError
from comfymodal.workflow.strict_json import parse_json
from comfymodal.workflow.wording import did_you_mean, near_files, sentences, shown

Graph = dict[str, dict[str, Any]]
"""node_id -> {"class_type", "inputs", "_meta"?}; `read_workflow` guarantees this shape."""

MAX_SIZE_BYTES = 64 * 1024 * 1024

_EXPORT_HINT = (
    "in ComfyUI use Workflow > Export (API); in older versions enable dev mode in the settings, then Save (API format)"
)
_SHAPE_HINT = 'an API-format workflow is {"node_id": {"class_type": "...", "inputs": {...}}}; ' + _EXPORT_HINT


@dataclass(frozen=True, slots=True)
class Workflow:
    """One workflow file: its graph, and what identifies the bytes it was read from."""

    graph: Graph
    path: Path
    sha256: str
    size_bytes: int


def read_workflow(path: Path) -> Workflow:
    """Read an API-format workflow, bare or wrapped as {"prompt": {...}}.

    Raises WorkflowError for anything that is not one: see the checks below.
    """
    data = _read_bytes(path)
    document = parse_json(_text_of(data, path), where=str(path))
    graph = _require_graph(document, path)
    return Workflow(graph=graph, path=path, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def title_of(graph: Graph, node_id: str) -> str:
    """Return the title a person gave the node, or else its class_type."""
    return own_title(graph[node_id]) or str(graph[node_id]["class_type"])


def own_title(node: dict[str, Any]) -> str | None:
    """Return `_meta.title` when it is a text, None otherwise."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return title if isinstance(title, str) and title else None


def node_text(graph: Graph, node_id: str) -> str:
    """Return how messages name a node, as in `node 6 (CLIPTextEncode)`."""
    return f"node {node_id} ({graph[node_id]['class_type']})"


def is_link(value: object) -> TypeGuard[list[Any]]:
    """Tell whether *value* is [node_id, slot]; the node need not exist."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
        and value[1] >= 0
    )


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # Not stat(): a pipe such as <(jq ...) has no size, and /dev/zero has no end.
            data = file.read(MAX_SIZE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise _missing(path) from exc
    except IsADirectoryError as exc:
        raise WorkflowError(f"{path} is a directory, not a workflow file", hint="name a .json file in it") from exc
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise WorkflowError(f"{path} cannot be read: {reason}", hint="check the path and its permissions") from exc
    if len(data) > MAX_SIZE_BYTES:
        raise WorkflowError(f"{path} is larger than 64 MiB: not a workflow file", hint=_EXPORT_HINT)
    return data


def _missing(path: Path) -> WorkflowError:
    near = near_files(path)
    other = None if path.parent.is_dir() else f"there is no folder {path.parent}"
    hint = sentences(did_you_mean(near), other) or "check the path; it is relative to the current folder"
    return WorkflowError(f"there is no workflow file {path}", hint=hint, path=str(path), near=near)


def _text_of(data: bytes, path: Path) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n") or (data.startswith(b"RIFF") and data[8:12] == b"WEBP"):
        raise WorkflowError(
            f"{path} is an image; the workflow inside an image is not read yet",
            hint=f"open the image in ComfyUI, then export it: {_EXPORT_HINT}",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise WorkflowError(
            f"{path} is not UTF-8 text (byte {exc.start})", hint=f"save it as UTF-8, or {_EXPORT_HINT}"
        ) from exc
    if not text.strip():
        raise WorkflowError(f"{path} is empty", hint=_EXPORT_HINT)
    return text


def _require_graph(document: Any, path: Path) -> Graph:
    graph = _unwrapped(document)
    if not isinstance(graph, dict):
        raise WorkflowError(f"{path} holds {_json_kind(graph)}, not a JSON object", hint=_SHAPE_HINT)
    if isinstance(graph.get("nodes"), list) and isinstance(graph.get("links"), list):
        raise WorkflowError(f"{path} is in UI format, which only ComfyUI's own page can run", hint=_EXPORT_HINT)
    if not graph:
        raise WorkflowError(f"{path} has no nodes", hint=_EXPORT_HINT)
    for node_id, node in graph.items():
        _require_node(node_id, node, path)
    return graph


def _unwrapped(document: Any) -> Any:
    """Return what `POST /prompt` and the history keep under "prompt", or the document itself."""
    prompt = document.get("prompt") if isinstance(document, dict) else None
    if isinstance(prompt, dict) and "class_type" not in prompt:  # else a node that has the id "prompt"
        return prompt
    if isinstance(prompt, list) and len(prompt) > 2 and isinstance(prompt[2], dict):
        return prompt[2]  # a history entry: [number, prompt_id, graph, extra_data, outputs]
    return document


def _require_node(node_id: str, node: Any, path: Path) -> None:
    name = shown(node_id)
    if not isinstance(node, dict):
        raise WorkflowError(
            f"{path}: node {name} is {_json_kind(node)}, not an object", hint=_SHAPE_HINT, node_id=node_id
        )
    class_type = node.get("class_type")
    if not isinstance(class_type, str) or not class_type:
        raise WorkflowError(f"{path}: node {name} has no class_type", hint=_SHAPE_HINT, node_id=node_id)
    if not isinstance(node.get("inputs"), dict):
        raise WorkflowError(
            f"{path}: node {name} ({class_type}) has no inputs object", hint=_SHAPE_HINT, node_id=node_id
        )


def _json_kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else "a number"
