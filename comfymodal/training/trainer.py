"""What the supervisor needs of any trainer; nothing here knows one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from comfymodal.training.events import Event

Wish = Literal["save", "stop"]


@dataclass(frozen=True, slots=True)
class Launch:
    argv: Sequence[str]
    cwd: Path
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture made on the way; `index` is that of its prompt."""

    path: Path
    step: int
    index: int


@dataclass(frozen=True, slots=True)
class Saved:
    weights: tuple[Path, ...]
    """More than one where a model is trained in parts."""
    is_final: bool


class Reader(Protocol):
    """Turns a trainer's output into events."""

    def feed(self, data: bytes) -> list[Event]:
        """Called with whatever arrived, cut anywhere."""

    def close(self) -> list[Event]:
        """Called once, when there is no more."""


class Trainer(Protocol):
    """One attempt at one training, in a folder of its own."""

    @property
    def name(self) -> str:
        """Of the run, and of its files."""

    @property
    def folder(self) -> Path:
        """Where checkpoints are put before the start and found after each save."""

    def prepare(self) -> Launch:
        """Write what it reads at its start. Called once, when the folder holds what to go on from. Raises `OSError`."""

    def reader(self) -> Reader:
        """A new one."""

    def ask(self, wish: Wish) -> bool:
        """Ask it while it runs; False when it cannot be asked. `stop` cuts off a save that has not ended."""

    def saved(self, said: Sequence[str]) -> Saved:
        """The files of a save that has ended; `said` are the paths it told since the save before."""

    def pulse(self) -> object:
        """Something that changes whenever the trainer got on; compared, never looked into. Cheap."""

    def samples(self) -> Sequence[Sample]:
        """All finished samples so far."""

    def losses(self, after: int) -> Sequence[tuple[int, float]]:
        """`(step, loss)` of the steps beyond `after`."""

    def take_up(self, folder: Path, step: int) -> None:
        """Go on with the logs that `keep_logs` put there in an earlier attempt, if any, up to the step that is gone on
        from. Called before `prepare`.
        """

    def keep_logs(self, folder: Path) -> None:
        """Put what else is worth keeping into `folder`, whole. Called while it runs and after. Raises `OSError`."""
