"""What a trainer says of itself while it works, in words any trainer shares; pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from comfymodal.training.failures import Failure

PhaseName = Literal[
    "starting",
    "downloading",
    "loading",
    "quantizing",
    "resuming",
    "network",
    "dataset",
    "caching",
    "sampling",
    "training",
    "saving",
]


@dataclass(frozen=True, slots=True)
class Phase:
    """The trainer went on to something else."""

    name: PhaseName


@dataclass(frozen=True, slots=True)
class Bar:
    """How far something other than training is; `done` and `total` in whatever `label` counts."""

    phase: PhaseName
    label: str
    done: float
    total: float


@dataclass(frozen=True, slots=True)
class Step:
    """`done` of `total` steps are done. The loss belongs to the step that is being finished or was just finished."""

    done: int
    total: int
    loss: float | None = None
    lr: float | None = None
    seconds_per_step: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """All it tells beside `lr`, by its own names."""


@dataclass(frozen=True, slots=True)
class SaveStarted:
    """A save within the training; the last one of a run is not announced."""

    step: int


@dataclass(frozen=True, slots=True)
class WeightsSaved:
    path: str


@dataclass(frozen=True, slots=True)
class OptimizerSaved:
    """Only now what was saved is a whole that can be gone on from. `path` is None when it could not be saved."""

    path: str | None


@dataclass(frozen=True, slots=True)
class SaveRemoved:
    path: str


@dataclass(frozen=True, slots=True)
class Resuming:
    """It goes on from a file it found; `ResumedAt` tells the step."""

    path: str


@dataclass(frozen=True, slots=True)
class ResumedAt:
    step: int


@dataclass(frozen=True, slots=True)
class NetworkBuilt:
    """How many parts of the model will be trained, in all; 0 trains nothing and raises nothing."""

    modules: int


@dataclass(frozen=True, slots=True)
class ImagesFound:
    """`folder` as the config names it; said once per resolution."""

    folder: str
    count: int


@dataclass(frozen=True, slots=True)
class ImageDropped:
    """An unreadable image: the trainer goes on without it."""

    path: str


@dataclass(frozen=True, slots=True)
class LossNotFinite:
    """One step's loss was NaN or infinite; the trainer takes it for 0 and goes on."""


@dataclass(frozen=True, slots=True)
class BatchSkipped:
    """One step was skipped for want of GPU memory, the `in_row`th one after another."""

    in_row: int


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that does not end the training and changes what comes of it."""

    code: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """It stopped because it was asked to, by a signal or through its control."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Said once, when all of its output was read: the traceback, which names the cause, comes last."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Said:
    """A line for the log: neither a progress bar nor the dump of its config, which may hold secrets."""

    text: str


Event = (
    Phase
    | Bar
    | Step
    | SaveStarted
    | WeightsSaved
    | OptimizerSaved
    | SaveRemoved
    | Resuming
    | ResumedAt
    | NetworkBuilt
    | ImagesFound
    | ImageDropped
    | LossNotFinite
    | BatchSkipped
    | Warned
    | Ended
    | Failed
    | Said
)
