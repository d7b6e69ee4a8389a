"""Results and errors as the one JSON document that `--json` prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

SCHEMA = "comfymodal/1"


@runtime_checkable
class Verdict(Protocol):
    """A result that can be bad news and still has something to show."""

    @property
    def error(self) -> Mapping[str, Any] | None: ...

    @property
    def exit_code(self) -> int: ...


def build_envelope(result: Any, *, command: Sequence[str], warnings: Sequence[str]) -> dict[str, Any]:
    """A result as `{schema, command, status, data, warnings, errors}`; a failed run keeps its data."""
    errors: list[Mapping[str, Any]] = []
    status = "success"
    data = dataclasses.asdict(result)
    if isinstance(result, Verdict):
        data = {key: value for key, value in data.items() if key not in ("error", "exit_code")}
        errors = [result.error] if result.error else []
        if result.exit_code not in (0, 8):
            status = "partial" if result.exit_code == 6 else "error"
    return _envelope(command, status, data, warnings, errors)


def build_error_envelope(error: Mapping[str, Any], *, command: Sequence[str]) -> dict[str, Any]:
    return _envelope(command, "error", {}, (), [error])


def dump(document: Any, *, indent: int | None = None) -> str:
    # ASCII only: file names that are no valid Unicode must not break a script's pipe.
    return json.dumps(document, indent=indent, ensure_ascii=True, default=str)


def _envelope(
    command: Sequence[str],
    status: str,
    data: Mapping[str, Any],
    warnings: Sequence[str],
    errors: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "command": list(command),
        "status": status,
        "data": dict(data),
        "warnings": list(warnings),
        "errors": list(errors),
    }
