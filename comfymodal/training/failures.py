"""Why a training ended, in the operator's words, and whether the same run may go well a second time; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comfymodal.errors import (
    ComfymodalError,
    InputFileError,
    NotReadyError,
    OutOfMemoryError,
    RunFailedError,
    ServiceError,
    TrainingConfigError,
    TransferError,
)

Cause = Literal[
    "gpu_memory",
    "host_memory",
    "gpu_fault",
    "disk_full",
    "gated",
    "model_not_found",
    "offline",
    "dataset_empty",
    "file_missing",
    "config",
    "dependencies",
    "bad_checkpoint",
    "not_finite",
    "no_modules",
    "images_dropped",
    "stalled",
    "killed",
    "no_result",
    "unknown",
]

_KINDS: dict[Cause, type[ComfymodalError]] = {
    "gpu_memory": OutOfMemoryError,
    "gpu_fault": ServiceError,
    "disk_full": TransferError,
    "gated": NotReadyError,
    "model_not_found": NotReadyError,
    "offline": ServiceError,
    "dataset_empty": InputFileError,
    "file_missing": InputFileError,
    "images_dropped": InputFileError,
    "config": TrainingConfigError,
    "dependencies": NotReadyError,
    "stalled": ServiceError,
    "killed": ServiceError,
}
_PASSING: frozenset[Cause] = frozenset({"gpu_fault", "offline", "bad_checkpoint", "stalled", "killed"})
"""What another machine, or the checkpoint before, may do better. Out of memory is the same on the same machine."""

_KILLED = (-9, 137)


@dataclass(frozen=True, slots=True)
class Failure:
    """`said` is the trainer's own line, empty when it died without a word."""

    cause: Cause
    message: str
    hint: str | None = None
    said: str = ""

    @property
    def may_pass(self) -> bool:
        """Whether the same training, continued from its last checkpoint, may go well."""
        return self.cause in _PASSING

    def to_error(self) -> ComfymodalError:
        details = {"cause": self.cause, **({"said": self.said} if self.said and self.said not in self.message else {})}
        return _KINDS.get(self.cause, RunFailedError)(self.message, hint=self.hint, **details)


def silent_death(code: int, last_lines: Sequence[str]) -> Failure:
    """A trainer that ended without naming a failure and without its result; `code` as `subprocess` gives it."""
    tail = f"; its log ends with:\n{chr(10).join(last_lines)}" if last_lines else ""
    if code in _KILLED:
        return Failure(
            "host_memory",
            f"the trainer was killed without a word (signal 9): most likely the machine's memory was used up{tail}",
            "give the container more memory (training.memory), twice the size of the model's weights at least",
        )
    if code < 0 or code > 128:
        number = -code if code < 0 else code - 128
        return Failure("killed", f"the trainer was ended by signal {number}{tail}", "train again: it goes on")
    how = "without its result" if code == 0 else f"with exit code {code}"
    return Failure("no_result" if code == 0 else "unknown", f"the trainer ended {how}{tail}")
