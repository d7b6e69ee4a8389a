from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from comfymodal.operations.results import RenderPlan, RunCancelled, RunList
from comfymodal.output.envelope import build_envelope, build_error_envelope, dump
from tests.unit.output.result_samples import run_report, run_view

KEYS = ["schema", "command", "status", "data", "warnings", "errors"]
RUN_KEYS = {
    *("id", "kind", "status", "target", "title", "created_at", "ended_at", "seconds", "phases", "cost"),
}


def envelope(result: Any, *warnings: str) -> dict[str, Any]:
    found = json.loads(dump(build_envelope(result, command=["render"], warnings=warnings)))
    assert isinstance(found, dict)
    return found


def test_the_keys_of_a_run_are_a_contract() -> None:
    found = envelope(run_report(), "careful")
    assert list(found) == KEYS
    assert (found["schema"], found["command"], found["status"]) == ("comfymodal/1", ["render"], "success")
    assert (found["warnings"], found["errors"]) == (["careful"], [])
    assert set(found["data"]) == {"run", "outputs", "texts", "changes", "is_cached", "folder", "receipt", "push"}
    assert set(found["data"]["run"]) == RUN_KEYS
    assert set(found["data"]["outputs"][0]) == {
        *("prompt", "node_id", "title", "kind", "path", "media_type", "size_bytes", "sha256"),
    }
    assert set(found["data"]["texts"][0]) == {"prompt", "node_id", "title", "text"}
    assert set(found["data"]["changes"][0]) == {"node_id", "title", "input_name", "old", "new"}


@pytest.mark.parametrize(
    ("result", "keys"),
    [
        pytest.param(RunList((run_view(),)), {"runs"}, id="list"),
        pytest.param(
            RunCancelled(run_view(), was_active=True, is_still_running=False),
            {"run", "was_active", "is_still_running"},
            id="cancelled",
        ),
        pytest.param(
            RenderPlan("w.json", "local", "ComfyUI", 3, (), (), "out"),
            {"workflow", "target", "engine", "nodes", "changes", "uploads", "folder", "cost"},
            id="plan",
        ),
    ],
)
def test_the_keys_of_every_result_are_a_contract(result: Any, keys: set[str]) -> None:
    found = envelope(result)
    assert (list(found), set(found["data"]), found["status"]) == (KEYS, keys, "success")


ERROR = {"code": "run_failed", "message": "m", "hint": None}


@pytest.mark.parametrize(
    ("exit_code", "status"),
    [(0, "success"), (8, "success"), (6, "partial"), (1, "error"), (5, "error"), (130, "error")],
)
def test_the_status_follows_the_exit_code(exit_code: int, status: str) -> None:
    found = envelope(run_report(exit_code=exit_code, error=ERROR if exit_code else None))
    assert found["status"] == status
    assert found["errors"] == ([ERROR] if exit_code else [])
    # A failed run keeps what it left.
    assert len(found["data"]["outputs"]) == 1


def test_an_error_has_the_same_keys_and_no_data() -> None:
    found = build_error_envelope(ERROR, command=["runs", "show"])
    assert (list(found), found["status"], found["data"], found["errors"]) == (KEYS, "error", {}, [ERROR])


def test_a_document_is_ascii_on_one_line_unless_indented() -> None:
    document = {"ü": "猫 \udcff \ud83d", "path": PurePosixPath("a/b"), "lines": "a\nb\u2028c"}
    text = dump(document)
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text) == {**document, "path": "a/b"}
    assert json.loads(dump(document, indent=2)) == json.loads(text)
