"""What a step took in the project's earlier trainings: one with the same settings on the same GPU beats arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from comfymodal.errors import ComfymodalError
from comfymodal.operations.desk import Desk
from comfymodal.runs.ledger import Ledger
from comfymodal.training.ai_toolkit.reading import load_of
from comfymodal.training.ai_toolkit.values import read_values
from comfymodal.training.config import TrainingConfig
from comfymodal.training.needs import Load, Model

Alike = tuple[Load, Model | None]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds a step by settings and GPU, as Modal takes its name; empty where nothing was ever trained."""

    samples: tuple[tuple[Alike, str, float], ...] = ()

    def of(self, config: TrainingConfig, gpu: str) -> float | None:
        """The median of trainings with the same architecture, size, batch, rank and quantization on this GPU."""
        wanted = _alike(load_of(config)), gpu
        found = [seconds for before, on, seconds in self.samples if (before, on) == wanted]
        return median(found) if found else None


def read_step_times(path: Path | None, desk: Desk) -> StepTimes:
    """Of the ledger there, if there is one: a check makes none. One that cannot be read is told, and no fault."""
    if path is None or not path.exists():
        return StepTimes()
    try:
        ledger = Ledger(path)
        try:
            rows = ledger.step_times()
        finally:
            ledger.close()
    except ComfymodalError as exc:
        desk.warn(f"earlier trainings are not counted: {exc.message}")
        return StepTimes()
    return StepTimes(tuple((load, gpu, seconds) for config, gpu, seconds in rows if (load := _load_of(config))))


def _alike(load: Load) -> Alike:
    """What must be the same. Where a run finds its model is not: its config is rewritten for the container."""
    return replace(load, model_name=""), load.model


def _load_of(config: dict[str, Any]) -> Alike | None:
    try:
        return _alike(load_of(read_values(config)))
    except (ComfymodalError, ValueError, TypeError, KeyError, AttributeError):
        # Of another release, whose configs were of another shape.
        return None
