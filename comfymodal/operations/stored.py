"""How much the volumes held when somebody last looked: what a report tells that asks nobody."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from comfymodal.files import read_json, write_json


@dataclass(frozen=True, slots=True)
class Stored:
    """`at` in Unix seconds."""

    size_bytes: int
    at: float


def note_stored(state: Path, project: str, role: str, size_bytes: int) -> None:
    """Remember it for reports. Raises nothing: a look that cannot be noted was worth having all the same."""
    path = _file(state, project)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**(read_json(path) or {}), role: {"size_bytes": size_bytes, "at": time.time()}})
    except OSError:
        return


def last_stored(state: Path, project: str) -> dict[str, Stored]:
    """By role; what is not as we write it counts as never seen."""
    found = {}
    for role, kept in (read_json(_file(state, project)) or {}).items():
        if isinstance(kept, dict) and isinstance(kept.get("size_bytes"), int) and isinstance(kept.get("at"), float):
            found[str(role)] = Stored(kept["size_bytes"], kept["at"])
    return found


def _file(state: Path, project: str) -> Path:
    return state / "projects" / project / "stored.json"
