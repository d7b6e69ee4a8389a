"""Being the only writer of a Modal volume from this machine, also right after a command here was killed.

The lease itself is the one that containers take (`leases`). A killed holder keeps it for a minute and a half; but that
a holder of this machine is dead can be known at once: the system has freed its lock on a file here.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import modal
from filelock import FileLock, Timeout

from comfymodal.errors import BusyError
from comfymodal.files import write_text
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.leases import LEASES, hold

PATIENCE_S = 2.0


@contextmanager
def hold_from_here(
    volume: str, environment: str | None, about: Mapping[str, Any], state: Path, on_lost: Callable[[], None]
) -> Iterator[None]:
    """As `leases.hold`. `state` is this machine's state folder; its locks tell which holders of it live."""
    folder = state / "leases"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(f"{environment or ''}/{volume}".encode()).hexdigest()[:16]
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        raise BusyError(
            f"another command of this machine is writing to the volume {volume}",
            hint="run it again when that one has ended",
            volume=volume,
        ) from None
    try:
        desk = _desk(folder / "id")
        _remove_dead(volume, environment, desk)
        with hold(volume, environment, {**about, "desk": desk}, on_lost):
            yield
    finally:
        lock.release()


def _desk(path: Path) -> str:
    """What tells this state folder from all others."""
    try:
        return path.read_text()
    except FileNotFoundError:
        write_text(path, uuid.uuid4().hex)
        return path.read_text()


def _remove_dead(volume: str, environment: str | None, desk: str) -> None:
    """Free the volume of a holder that had our lock before us."""
    with translated(f"cannot ask who writes to the volume {volume}"):
        entries = modal.Dict.from_name(LEASES, environment_name=environment, create_if_missing=True)
        found = entries.get(volume)
        if isinstance(found, dict) and found.get("desk") == desk:
            entries.pop(volume, None)
