"""What `workflow show` and `workflow check` answer. Field names are the keys of `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfymodal.operations.results import ChangeView


@dataclass(frozen=True, slots=True)
class LinkView:
    """Where a value comes from; `title` is that node's, or its class; null when there is no such node."""

    node_id: str
    slot: int
    title: str | None


@dataclass(frozen=True, slots=True)
class InputView:
    """One input. `is_there` is false for one the graph leaves out; `set` is what `--set` takes before the "=".

    What an engine must tell (`type` to `choices`) is null when none did; `choices` also where only the page knows.
    """

    name: str
    value: Any
    link: LinkView | None
    is_there: bool
    set: str | None
    type: str | None
    is_required: bool | None
    default: Any
    min: int | float | None
    max: int | float | None
    step: int | float | None
    choices: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class OutputView:
    slot: int
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node. `is_known` and `is_output` are null, and `outputs` empty, when no engine told about it."""

    node_id: str
    title: str
    class_type: str
    is_known: bool | None
    is_output: bool | None
    inputs: tuple[InputView, ...]
    outputs: tuple[OutputView, ...]


@dataclass(frozen=True, slots=True)
class EngineView:
    """Whose nodes were looked at. `freshness` is current, outdated or unreachable (see `--help` of check)."""

    version: str
    device: str
    how: str
    freshness: str
    asked_at: str


@dataclass(frozen=True, slots=True)
class WorkflowShown:
    """`engine` is null when none was ever asked: types are unknown then. `is_whole` asks for whole lists."""

    workflow: str
    sha256: str
    engine: EngineView | None
    nodes: tuple[NodeView, ...]
    changes: tuple[ChangeView, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class ProblemView:
    """One finding. `kind` is for scripts; a warning does not stop a render. `node_id` is empty for the whole file."""

    kind: str
    is_warning: bool
    node_id: str
    title: str
    class_type: str
    input_name: str | None
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """One workflow with all that is wrong with it."""

    workflow: str
    nodes: int
    problems: tuple[ProblemView, ...]
    exit_code: int


@dataclass(frozen=True, slots=True)
class WorkflowsChecked:
    """Every file that was named; `engine` is null when none could be read.

    `exit_code` is 4 when nothing but models and nodes is missing, 3 for worse.
    """

    engine: EngineView | None
    workflows: tuple[CheckedFile, ...]
    exit_code: int
