"""The server's validation answers and node errors, said in the operator's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from comfymodal.errors import (
    ComfymodalError,
    InputFileError,
    NotFoundError,
    OutOfMemoryError,
    RunFailedError,
    ServiceError,
    WorkflowError,
)

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""CUDA's words, and those of PyTorch's CPU allocator on Linux and Windows."""

MODEL_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl", ".sft", ".gguf", ".onnx")


def explain_refusal(body: Mapping[str, Any], graph: Mapping[str, Any]) -> ComfymodalError:
    """Turn the body of a refused (or partly refused) `POST /prompt` into one error that lists every problem."""
    problems = list(_problems(body.get("node_errors"), graph))
    if problems:
        # A missing model explains the refusal better than what follows from it.
        problems.sort(key=lambda problem: problem["kind"] != "missing_model")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        kind = _error_kind({problem["kind"] for problem in problems})
        return kind(problems[0]["message"] + more, hint=problems[0]["hint"], problems=problems)
    error = body.get("error")
    reported: Mapping[str, Any] = error if isinstance(error, dict) else {"message": str(error or body)[:200]}
    message = f"{reported.get('message', 'refused')} {reported.get('details') or ''}".strip()
    if reported.get("type") in ("missing_node_type", "invalid_prompt") and "does not exist" in message:
        return NotFoundError(message, hint="the server lacks the custom node pack that brings this class")
    if reported.get("type") == "prompt_outputs_failed_validation":
        return WorkflowError(
            f"{message}: no node to blame, so probably a cycle", hint="look for nodes linked in a ring"
        )
    return WorkflowError(message, hint=None)


def explain_node_error(error: Mapping[str, Any], title: str) -> ComfymodalError:
    """Turn an `execution_error` message into one error; running out of memory is told apart."""
    kind = str(error.get("exception_type") or "error").rpartition(".")[2]
    said = str(error.get("exception_message") or "").strip()
    node_id = str(error.get("node_id") or "?")
    trace = error.get("traceback")
    first_line = said.partition("\n")[0] or kind
    kind_of_error: type[RunFailedError] = RunFailedError
    if "OutOfMemory" in kind or any(words in said.lower() for words in _OUT_OF_MEMORY):
        kind_of_error = OutOfMemoryError
        message = f"node {node_id} ({title}) ran out of memory: {first_line}"
        hint = "render smaller or fewer at once, on a larger GPU, or start ComfyUI with --lowvram"
    else:
        message = f"node {node_id} ({title}) failed: {kind}: {first_line}"
        hint = "the traceback: comfymodal runs show --json"
    return kind_of_error(
        message,
        hint=hint,
        node_id=node_id,
        class_type=str(error.get("node_type") or ""),
        exception_type=str(error.get("exception_type") or ""),
        traceback="".join(str(line) for line in trace) if isinstance(trace, list) else str(trace or ""),
    )


def _problems(node_errors: object, graph: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for node_id, entry in node_errors.items() if isinstance(node_errors, dict) else ():
        errors = entry.get("errors") if isinstance(entry, dict) else None
        for error in errors if isinstance(errors, list) else ():
            if isinstance(error, dict):
                yield _problem(str(node_id), error, graph)


def _problem(node_id: str, error: Mapping[str, Any], graph: Mapping[str, Any]) -> dict[str, Any]:
    node = graph.get(node_id, {})
    class_type = str(node.get("class_type", "?"))
    extra = error.get("extra_info") if isinstance(error.get("extra_info"), dict) else {}
    assert isinstance(extra, dict)
    details = str(error.get("details") or "")
    input_name = str(extra.get("input_name") or "") or None
    kind = _problem_kind(error, details, extra)
    said = str(error.get("message") or error.get("type") or "refused")
    message = f"node {node_id} ({class_type}): {said}" + (f": {details}" if details else "")
    hints = {
        "missing_model": "put the model into the models folder, or choose one the server has",
        "missing_file": f"give a local file: --set {node_id}.{input_name or 'image'}=PATH",
        "link_to_nowhere": "the link names a node or a slot that is not in the workflow",
    }
    return {
        "kind": kind,
        "node_id": node_id,
        "class_type": class_type,
        "input_name": input_name,
        "message": message,
        "hint": hints.get(kind),
    }


def _problem_kind(error: Mapping[str, Any], details: str, extra: Mapping[str, Any]) -> str:
    kind = str(error.get("type") or "")
    if kind == "value_not_in_list":
        value = str(extra.get("received_value") or "")
        return "missing_model" if PurePosixPath(value.lower()).suffix in MODEL_SUFFIXES else kind
    if kind == "custom_validation_failed" and "Invalid" in details and "file" in details:
        return "missing_file"
    if kind == "exception_during_inner_validation":
        return "link_to_nowhere"
    return kind or "refused"


def _error_kind(kinds: set[str]) -> type[ComfymodalError]:
    if kinds == {"missing_model"}:
        return NotFoundError
    if kinds == {"missing_file"}:
        return InputFileError
    if not kinds:
        return ServiceError
    return WorkflowError
