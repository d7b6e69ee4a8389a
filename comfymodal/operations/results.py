"""The frozen values operations return. Field names are the keys of `--json`: adding one is free, renaming is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as people and scripts see it: times are ISO 8601 in UTC, `phases` seconds, `cost` US dollars or null."""

    id: str
    kind: str
    status: str
    target: str
    title: str
    created_at: str
    ended_at: str | None
    seconds: float | None
    phases: Mapping[str, float]
    cost: str | None


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file a run left, where it was written. `path` is absolute; `prompt` counts from 0."""

    prompt: int
    node_id: str
    title: str
    kind: str
    path: str
    media_type: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class OutputText:
    """One text a run left; it is no file."""

    prompt: int
    node_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class ChangeView:
    """One override as it was applied: proof of what was rendered."""

    node_id: str
    title: str
    input_name: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class RunReport:
    """One run with all that came of it. `error` is what `--json` shows under `errors`."""

    run: RunView
    outputs: tuple[OutputFile, ...]
    texts: tuple[OutputText, ...]
    changes: tuple[ChangeView, ...]
    is_cached: bool
    folder: str | None
    receipt: str | None
    error: Mapping[str, Any] | None
    exit_code: int
    push: Mapping[str, Any] | None = None
    """What `--push` came to: a pair as in `sync`."""


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """What `render --dry-run` would do: the graph after overrides, checked, and where its outputs would go."""

    workflow: str
    target: str
    engine: str
    nodes: int
    changes: tuple[ChangeView, ...]
    uploads: tuple[str, ...]
    folder: str
    cost: Mapping[str, Any] | None = None
    """What it may cost on Modal, as `Price.told`; None where nothing is paid."""


@dataclass(frozen=True, slots=True)
class RunList:
    runs: tuple[RunView, ...]


@dataclass(frozen=True, slots=True)
class RunCancelled:
    run: RunView
    was_active: bool
    is_still_running: bool
