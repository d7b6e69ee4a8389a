"""Results as operations return them."""

from __future__ import annotations

from typing import Any

from comfymodal.operations.results import ChangeView, OutputFile, OutputText, RunReport, RunView


def run_view(**more: Any) -> RunView:
    given: dict[str, Any] = {
        "id": "261121-093012-k7f3",
        "kind": "render",
        "status": "succeeded",
        "target": "local",
        "title": "portrait.json",
        "created_at": "2026-11-21T09:30:12.345Z",
        "ended_at": "2026-11-21T09:30:20.345Z",
        "seconds": 8.0,
        "phases": {"prepare": 0.5, "queue": 0.01, "render": 7.0, "download": 0.2},
        "cost": None,
    }
    return RunView(**{**given, **more})


def output_file(**more: Any) -> OutputFile:
    given: dict[str, Any] = {
        "prompt": 0,
        "node_id": "9",
        "title": "Save Image",
        "kind": "image",
        "path": "/elsewhere/img.png",
        "media_type": "image/png",
        "size_bytes": 1_234_567,
        "sha256": "ab" * 32,
    }
    return OutputFile(**{**given, **more})


def run_report(**more: Any) -> RunReport:
    given: dict[str, Any] = {
        "run": run_view(),
        "outputs": (output_file(),),
        "texts": (OutputText(0, "7", "Preview", "a cat"),),
        "changes": (ChangeView("6", "Prompt", "text", "dog", "cat"),),
        "is_cached": False,
        "folder": "/elsewhere",
        "receipt": "/elsewhere/receipt.json",
        "error": None,
        "exit_code": 0,
    }
    return RunReport(**{**given, **more})
