"""What a run's folder says of its checkpoints: `state.json`, written after the files it names; pure values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comfymodal.files import read_json, write_json

STATE_FILE = "state.json"
VERSION = 1
"""Raised when an older reader would misread it."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights after `step` steps, in a folder of their own. Without an optimizer's state a run goes on less well."""

    step: int
    folder: str
    """Relative to the run's folder, with `/`."""
    weights: tuple[StoredFile, ...]
    optimizer: StoredFile | None
    is_final: bool
    saved_at: float
    """Unix seconds."""

    @property
    def files(self) -> tuple[StoredFile, ...]:
        return (*self.weights, *((self.optimizer,) if self.optimizer else ()))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Checkpoint:
        """Raises `KeyError`, `TypeError` and `ValueError` for what is none."""
        optimizer = data["optimizer"]
        return cls(
            step=int(data["step"]),
            folder=_inside(data["folder"]),
            weights=tuple(_stored(each) for each in data["weights"]),
            optimizer=_stored(optimizer) if optimizer else None,
            is_final=bool(data["is_final"]),
            saved_at=float(data["saved_at"]),
        )


def read_state(folder: Path) -> tuple[Checkpoint, ...] | None:
    """The checkpoints, oldest first; None when there is no state or it cannot be understood."""
    data = read_json(folder / STATE_FILE)
    if data is None or data.get("version") != VERSION:
        return None
    try:
        return in_order(Checkpoint.from_dict(each) for each in data["checkpoints"])
    except (KeyError, TypeError, ValueError):
        return None


def write_state(folder: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """Replace the state whole. Raises `OSError`."""
    state = {"version": VERSION, "checkpoints": [each.to_dict() for each in in_order(checkpoints)]}
    write_json(folder / STATE_FILE, state, indent=1)


def in_order(checkpoints: Any) -> tuple[Checkpoint, ...]:
    """Oldest first, by what they learned and then by the clock."""
    return tuple(sorted(checkpoints, key=lambda each: (each.step, each.is_final, each.saved_at)))


def _stored(data: Mapping[str, Any]) -> StoredFile:
    return StoredFile(_inside(data["name"]), int(data["size_bytes"]), str(data["sha256"]))


def _inside(path: Any) -> str:
    # The state lies on a volume others write to.
    if not isinstance(path, str) or not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} is no path within the run's folder")
    return path
