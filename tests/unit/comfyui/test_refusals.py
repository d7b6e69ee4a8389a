"""Refusals as ComfyUI 0.3.75 words them (facts/comfyui.md §3.1), and as nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfymodal.comfyui.refusals import explain_node_error, explain_refusal
from comfymodal.errors import (
    ComfymodalError,
    InputFileError,
    NotFoundError,
    OutOfMemoryError,
    RunFailedError,
    WorkflowError,
)

GRAPH = {
    "3": {"class_type": "ImageScale", "inputs": {}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
    "5": {"class_type": "LoadImage", "inputs": {}},
}


def refusal(*errors: dict[str, Any], node: str = "3") -> dict[str, Any]:
    return {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {node: {"errors": list(errors), "dependent_outputs": ["9"], "class_type": "X"}},
    }


def error(kind: str, message: str = "said", details: str = "", **extra: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def missing_model(value: str = "sd15.safetensors", **more: Any) -> dict[str, Any]:
    return error(
        "value_not_in_list",
        "Value not in list",
        f"ckpt_name: '{value}' not in []",
        input_name="ckpt_name",
        input_config=[[], {"tooltip": "x"}],
        received_value=value,
        **more,
    )


@pytest.mark.parametrize(
    ("given", "kind", "input_name", "raised"),
    [
        pytest.param(
            error("required_input_missing", "Required input is missing", "width", input_name="width"),
            *("required_input_missing", "width", WorkflowError),
            id="missing input",
        ),
        pytest.param(missing_model(), "missing_model", "ckpt_name", NotFoundError, id="missing model"),
        pytest.param(missing_model("SDXL\\Big.GGUF"), "missing_model", "ckpt_name", NotFoundError, id="gguf, Windows"),
        pytest.param(
            error(
                "value_not_in_list", details="sampler_name: 'eulr' not in (list of length 42)", received_value="eulr"
            ),
            *("value_not_in_list", None, WorkflowError),
            id="not in a list",
        ),
        pytest.param(
            error("value_not_in_list", received_value=["a.safetensors"]),
            *("value_not_in_list", None, WorkflowError),
            id="not in a list, a list",
        ),
        pytest.param(
            error("invalid_input_type", details="width, abc", input_name="width", exception_message="x"),
            *("invalid_input_type", "width", WorkflowError),
            id="wrong type",
        ),
        pytest.param(
            error("value_bigger_than_max", input_name="width"),
            *("value_bigger_than_max", "width", WorkflowError),
            id="too big",
        ),
        pytest.param(error("value_smaller_than_min"), "value_smaller_than_min", None, WorkflowError, id="too small"),
        pytest.param(error("bad_linked_input"), "bad_linked_input", None, WorkflowError, id="bad link"),
        pytest.param(
            error("return_type_mismatch", details="samples, received_type(IMAGE)", linked_node=["1", 0]),
            *("return_type_mismatch", None, WorkflowError),
            id="wrong link",
        ),
        pytest.param(
            error("exception_during_inner_validation", details="'77'", exception_type="KeyError", traceback=["x"]),
            *("link_to_nowhere", None, WorkflowError),
            id="link to nowhere",
        ),
        pytest.param(
            error("exception_during_validation"), "exception_during_validation", None, WorkflowError, id="exception"
        ),
        pytest.param(
            error("custom_validation_failed", details="image - Invalid image file: example.png", input_name="image"),
            *("missing_file", "image", InputFileError),
            id="missing file",
        ),
        pytest.param(
            error("custom_validation_failed", details="text - too long"),
            *("custom_validation_failed", None, WorkflowError),
            id="a node's own check",
        ),
        pytest.param(error("of_the_future"), "of_the_future", None, WorkflowError, id="a type of the future"),
        pytest.param({}, "refused", None, WorkflowError, id="no words at all"),
        pytest.param(
            {"type": None, "message": None, "details": None, "extra_info": None},
            *("refused", None, WorkflowError),
            id="nulls",
        ),
        pytest.param(
            {"type": ["x"], "message": {"a": 1}, "details": [1], "extra_info": [1]},
            *("['x']", None, WorkflowError),
            id="no texts",
        ),
    ],
)
def test_every_kind_of_node_error_is_named(
    given: dict[str, Any], kind: str, input_name: str | None, raised: type[ComfymodalError]
) -> None:
    found = explain_refusal(refusal(given), GRAPH)
    (problem,) = found.details["problems"]
    assert type(found) is raised
    assert (problem["kind"], problem["node_id"], problem["class_type"]) == (kind, "3", "ImageScale")
    assert problem["input_name"] == input_name
    assert found.message.startswith("node 3 (ImageScale): ")
    json.dumps(found.to_dict())


def test_a_missing_file_names_the_flag_that_gives_one() -> None:
    given = error("custom_validation_failed", details="image - Invalid image file: a.png", input_name="image")
    assert explain_refusal(refusal(given, node="5"), GRAPH).hint == "give a local file: --set 5.image=PATH"


def test_a_missing_model_comes_first_and_the_others_are_counted() -> None:
    found = explain_refusal(refusal(error("required_input_missing", "Missing"), missing_model(), node="4"), GRAPH)
    assert type(found) is WorkflowError
    assert "sd15.safetensors" in found.message
    assert found.message.endswith("(and 1 more)")
    assert [problem["kind"] for problem in found.details["problems"]] == ["missing_model", "required_input_missing"]


@pytest.mark.parametrize(
    ("body", "raised", "words"),
    [
        pytest.param(
            {"error": {"type": "no_prompt", "message": "No prompt provided", "details": ""}},
            *(WorkflowError, "No prompt provided"),
            id="no prompt",
        ),
        pytest.param(
            {"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}, "node_errors": {}},
            *(WorkflowError, "Prompt has no outputs"),
            id="no outputs",
        ),
        pytest.param(
            {
                "error": {
                    "type": "invalid_prompt",
                    "message": "Cannot execute because node NoSuchNode does not exist.",
                    "details": "Node ID '#3'",
                }
            },
            *(NotFoundError, "NoSuchNode does not exist. Node ID '#3'"),
            id="unknown class",
        ),
        pytest.param(
            {"error": {"type": "missing_node_type", "message": "Node 'X' does not exist.", "extra_info": {}}},
            *(NotFoundError, "does not exist"),
            id="unknown class, newest",
        ),
        pytest.param(
            {"error": {"type": "invalid_prompt", "message": "a node is missing the class_type property."}},
            *(WorkflowError, "class_type"),
            id="no class_type",
        ),
        pytest.param(
            {"error": {"type": "invalid_prompt_id", "message": "not a UUID"}}, WorkflowError, "UUID", id="bad id"
        ),
        pytest.param(
            {"error": {"type": "prompt_outputs_failed_validation", "message": "failed"}, "node_errors": {}},
            *(WorkflowError, "probably a cycle"),
            id="empty node_errors",
        ),
        pytest.param({"error": "just words"}, WorkflowError, "just words", id="error is a text"),
        pytest.param({"error": None}, WorkflowError, "error", id="error is null"),
        pytest.param({"error": [1, 2]}, WorkflowError, "[1, 2]", id="error is a list"),
        pytest.param({"error": {"type": [], "message": None, "details": None}}, WorkflowError, "None", id="nulls"),
        pytest.param({"error": {"message": {"a": 1}}}, WorkflowError, "{'a': 1}", id="a message of an object"),
        pytest.param({}, WorkflowError, "{}", id="nothing"),
        pytest.param({"x": "y" * 10_000}, WorkflowError, "yyy", id="much of something else"),
        pytest.param({"node_errors": [1]}, WorkflowError, "node_errors", id="node_errors is a list"),
        pytest.param({"node_errors": {"3": None}}, WorkflowError, "node_errors", id="a node of null"),
        pytest.param({"node_errors": {"3": {"errors": None}}}, WorkflowError, "node_errors", id="errors are null"),
        pytest.param({"node_errors": {"3": {"errors": 5}}}, WorkflowError, "node_errors", id="errors are a number"),
        pytest.param({"node_errors": {"3": {"errors": "ab"}}}, WorkflowError, "node_errors", id="errors are a text"),
        pytest.param({"node_errors": {"3": {"errors": [5]}}}, WorkflowError, "node_errors", id="an error is a number"),
    ],
)
def test_any_body_becomes_one_error(body: dict[str, Any], raised: type[ComfymodalError], words: str) -> None:
    found = explain_refusal(body, GRAPH)
    assert type(found) is raised
    assert words in found.message
    assert len(found.message) < 400
    json.dumps(found.to_dict())


def test_a_node_that_is_not_in_the_workflow_is_still_named() -> None:
    found = explain_refusal(refusal(error("bad_linked_input"), node="77"), GRAPH)
    assert found.message == "node 77 (?): said"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(
            {"exception_type": "RuntimeError", "exception_message": "boom at step 2\n", "node_id": "1"},
            *("node 1 (Noise) failed: RuntimeError: boom at step 2",),
            id="an exception",
        ),
        pytest.param(
            {"exception_type": "torch.OutOfMemoryError", "exception_message": "Tried 2 GB\nTIPS: x", "node_id": "1"},
            *("node 1 (Noise) ran out of memory: Tried 2 GB",),
            id="out of memory by type",
        ),
        pytest.param(
            {"exception_type": "RuntimeError", "exception_message": "CUDA error: out of memory", "node_id": "1"},
            *("node 1 (Noise) ran out of memory: CUDA error: out of memory",),
            id="out of memory by words",
        ),
        pytest.param({}, "node ? (Noise) failed: error: error", id="nothing"),
        pytest.param(
            {"exception_type": 5, "exception_message": ["x"], "node_id": 3, "traceback": 7},
            *("node 3 (Noise) failed: 5: ['x']",),
            id="no texts",
        ),
        pytest.param({"traceback": "one text"}, "node ? (Noise) failed: error: error", id="a traceback of text"),
        pytest.param({"traceback": None}, "node ? (Noise) failed: error: error", id="no traceback"),
    ],
)
def test_a_node_error_is_said_in_one_line(given: dict[str, Any], words: str) -> None:
    found = explain_node_error(given, "Noise")
    assert type(found) is (OutOfMemoryError if "memory" in words else RunFailedError)
    assert found.message == words
    assert isinstance(found.details["traceback"], str)
    json.dumps(found.to_dict())


def test_the_traceback_of_a_node_is_kept() -> None:
    found = explain_node_error({"traceback": ["  File a\n", "  File b\n"], "node_type": "KSampler"}, "x")
    assert found.details["traceback"] == "  File a\n  File b\n"
    assert found.details["class_type"] == "KSampler"
