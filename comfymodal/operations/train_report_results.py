"""The frozen values of `runs report`. `TrainingPage` is what the page is made of, `ReportWritten` what scripts get:
its field names are keys of `--json`, adding one is free, renaming is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfymodal.operations.results import RunView
from comfymodal.training.curves import Curve


@dataclass(frozen=True, slots=True)
class PromptView:
    """A sample prompt as the config has it, and as the model was told it."""

    template: str
    text: str


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture for the page: a `data:` URI with its size in pixels; None where `file` is none that can be shown."""

    file: str
    uri: str | None
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class SampleShot:
    """`prompt` is the number of its prompt, from 0."""

    step: int
    prompt: int
    shot: Shot


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """`size_bytes` is that of the weights; with an optimizer's state a run can be gone on from there."""

    step: int
    size_bytes: int
    sha256: str
    saved_at: str
    is_final: bool
    has_optimizer: bool


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    path: str
    images: int | None
    sha256: str | None
    resolutions: tuple[int, ...]
    repeats: int


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """One training with all that is known of it. `training` is a `TrainingConfig` as JSON, `config` YAML.

    `attempts` are all runs that trained in its folder, the first one first; `cost` in dollars as text, of all of them,
    None where nothing is paid or nothing is known. `settings` are those in which the runs of a page differ.
    `steps_hidden`: how many steps have samples and are not on the page.
    """

    run: RunView
    name: str
    folder: str
    training: Mapping[str, Any]
    config: str
    settings: Mapping[str, str]
    step: int | None
    steps: int
    seconds_per_step: float | None
    losses: Curve
    smooth: Curve
    validation: Curve
    prompts: tuple[PromptView, ...]
    samples: tuple[SampleShot, ...]
    steps_hidden: int
    checkpoints: tuple[CheckpointView, ...]
    datasets: tuple[DatasetFacts, ...]
    published: tuple[str, ...]
    phases: Mapping[str, float]
    gpu: str | None
    usd_per_hour: str | None
    prices_as_of: str | None
    attempts: tuple[RunView, ...]
    cost: str | None
    warnings: tuple[str, ...]
    error: Mapping[str, Any] | None
    sheets: tuple[Shot, ...]

    @property
    def loss(self) -> float | None:
        """The last one, smoothed."""
        return self.smooth[-1][1] if self.smooth else None

    @property
    def validation_loss(self) -> float | None:
        return self.validation[-1][1] if self.validation else None


@dataclass(frozen=True, slots=True)
class TrainingPage:
    """One run, or the variants of a sweep in the order they were named. `path` is where the page goes."""

    runs: tuple[TrainedRun, ...]
    path: str
    made_at: str
    differing: tuple[str, ...]
    """Keys of the settings in which they differ."""


@dataclass(frozen=True, slots=True)
class ReportedRun:
    id: str
    name: str
    status: str
    settings: Mapping[str, str]
    step: int | None
    steps: int
    loss: float | None
    validation_loss: float | None
    seconds_per_step: float | None
    cost: str | None
    checkpoints: int
    samples: int


@dataclass(frozen=True, slots=True)
class ReportWritten:
    """The page that was written: one file that needs nothing else."""

    page: str
    size_bytes: int
    runs: tuple[ReportedRun, ...]
