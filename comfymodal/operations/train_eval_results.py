"""The frozen values of `--eval`. Field names are keys of `--json`: adding is free, renaming is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.operations.results import RunView


@dataclass(frozen=True, slots=True)
class EvalCell:
    """One picture of a sheet. `path` is None where nothing was rendered, `prompt` for the workflow's own."""

    step: int
    prompt: str | None
    strength: float
    path: str | None


@dataclass(frozen=True, slots=True)
class EvalReport:
    """What came of rendering with each checkpoint. `run` is the render, `sheet` the picture of all of them."""

    run: RunView
    trained_run: str
    sheet: str | None
    cells: tuple[EvalCell, ...]
    error: Mapping[str, Any] | None
    exit_code: int
