"""One error root for everything an operator can act on; imports nothing of ours.

Each class owns a stable `code` (for `--json` and for the trip out of a container, where exceptions
cannot travel) and the `exit_code` the process ends with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ComfymodalError(Exception):
    """Something the operator can act on: a message in their words, a hint with the next command.

    `details` are JSON values that scripts may key on (node_id, path, near ...).
    """

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def to_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "hint": self.hint, **self.details}


class RunFailedError(ComfymodalError):
    """The job itself failed: a node raised, or the GPU ran out of memory."""

    code = "run_failed"


class OutOfMemoryError(RunFailedError):
    """A node needed more memory than the GPU has; a larger one may do."""

    code = "out_of_memory"


class UsageError(ComfymodalError):
    """The command line does not make sense by itself."""

    code = "usage"
    exit_code = 2


class ProjectError(ComfymodalError):
    """The project file is wrong; nothing was started."""

    code = "project_invalid"
    exit_code = 3


class WorkflowError(ComfymodalError):
    """The workflow, or an override of it, is wrong; nothing was started."""

    code = "workflow_invalid"
    exit_code = 3


class InputFileError(ComfymodalError):
    """A file the workflow reads is missing or unreadable; nothing was started."""

    code = "input_file"
    exit_code = 3


class TrainingConfigError(ComfymodalError):
    """The training config is wrong; nothing was started. `problems` lists all that is wrong with it."""

    code = "training_config_invalid"
    exit_code = 3


class OutputFolderError(ComfymodalError):
    """Results cannot be written where they were asked for; nothing was started."""

    code = "output_folder"
    exit_code = 3


class NotFoundError(ComfymodalError):
    """Something named does not exist: a run, a model, a node class."""

    code = "not_found"
    exit_code = 4


class NotReadyError(ComfymodalError):
    """Something needed is not set up yet: an engine, a token."""

    code = "not_ready"
    exit_code = 4


class BillingUnavailableError(NotReadyError):
    """Modal does not show its bill to this token, or not on this plan; what is known without it stays known."""

    code = "billing_unavailable"


class ServiceError(ComfymodalError):
    """A server or the network failed; the same command may work later."""

    code = "service_failed"
    exit_code = 5


class BusyError(ServiceError):
    """Somebody else writes to the same volume or folder; they will be done."""

    code = "busy"


class EngineDiedError(ServiceError):
    """ComfyUI stopped, restarted or hung while it was needed."""

    code = "engine_died"


class TransferError(ComfymodalError):
    """A file could not be brought to its place (disk full, connection cut, wrong hash)."""

    code = "transfer_failed"
    exit_code = 5


class BudgetError(ComfymodalError):
    """What the operator allows does not pay for the run; nothing was started."""

    code = "budget_refused"
    exit_code = 7


class BudgetReachedError(BudgetError):
    """The run was ended because it had cost what it may."""

    code = "budget_reached"


class StillRunningError(ComfymodalError):
    """`--wait` ended before the run did."""

    code = "still_running"
    exit_code = 8


class CancelledError(ComfymodalError):
    """The run was cancelled on request."""

    code = "cancelled"
    exit_code = 130


class SyncRefusedError(ComfymodalError):
    """A sync was asked for that looks like a mistake (an empty side, too many deletions, a path that climbs out)."""

    code = "sync_refused"
    exit_code = 3


class ConflictError(ComfymodalError):
    """Somebody else changed the same thing; nothing of theirs was overwritten."""

    code = "conflict"
    exit_code = 6


class PartialError(ComfymodalError):
    """Some of it was done and some was not; the result lists both."""

    code = "partial"
    exit_code = 6


def error_from_dict(data: Mapping[str, Any]) -> ComfymodalError:
    """Rebuild an error that crossed a process or container border as JSON; unknown codes become the root class."""
    extra = {key: value for key, value in data.items() if key not in ("code", "message", "hint")}
    kind = _by_code().get(str(data.get("code")), ComfymodalError)
    return kind(str(data.get("message", "failed")), hint=data.get("hint"), **extra)


def _by_code() -> dict[str, type[ComfymodalError]]:
    found: dict[str, type[ComfymodalError]] = {}
    pending: list[type[ComfymodalError]] = [ComfymodalError]
    while pending:
        kind = pending.pop()
        found[kind.code] = kind
        pending.extend(kind.__subclasses__())
    return found
