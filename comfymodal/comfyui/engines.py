"""The engines installed on this machine, one folder each, side by side: find, choose, measure and remove them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from comfymodal.processes import pids_running_from

ENGINE_VERSION = "0.3.75"
"""The embedded engine: the one that needs neither git nor GitHub."""

LOCK_FILE = ".install.lock"

_BOOT = Path(__file__).with_name("boot.py")
_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class EngineInstall:
    """A complete install, as its engine.json says. `source` is `package` (embedded) or `git`."""

    version: str
    root: Path
    comfyui_path: Path
    python: Path
    device: str
    shims: tuple[str, ...]
    source: str = "package"
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Leftover:
    """A folder that is no engine: of an install that did not end, or of one that was damaged afterwards."""

    version: str
    root: Path
    kind: Literal["unfinished", "damaged"]


def find_install(engines_dir: Path, version: str = ENGINE_VERSION) -> EngineInstall | None:
    """The complete install of this version; None when it is absent or damaged in any way. Never raises."""
    root = folder_of(engines_dir, version)
    try:
        found = json.loads((root / "engine.json").read_text(encoding="utf-8"))
        engine = EngineInstall(
            version=found["version"],
            root=root,
            comfyui_path=root / found["comfyui_path"],
            python=root / found["python"],
            device=str(found["device"]),
            shims=tuple(str(name) for name in found["shims"]),
            source=str(found.get("source", "package")),
            size_bytes=found.get("size_bytes"),
        )
        # The interpreter is a link to the Python it was made with, which may be gone by now.
        is_whole = engine.python.is_file() and (engine.comfyui_path / "main.py").is_file()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return engine if is_whole and engine.version == version else None


def list_installs(engines_dir: Path) -> tuple[EngineInstall, ...]:
    """Every complete install, newest version first."""
    found = (find_install(engines_dir, version) for version in _versions(engines_dir, "comfyui-*"))
    return tuple(install for install in found if install is not None)


def list_leftovers(engines_dir: Path) -> tuple[Leftover, ...]:
    """What takes space and is no engine."""
    unfinished = [
        Leftover(version, partial_of(folder_of(engines_dir, version)), "unfinished")
        for version in _versions(engines_dir, ".comfyui-*.partial")
    ]
    damaged = [
        Leftover(version, folder_of(engines_dir, version), "damaged")
        for version in _versions(engines_dir, "comfyui-*")
        if find_install(engines_dir, version) is None
    ]
    return (*unfinished, *damaged)


def choose_install(engines_dir: Path, version: str | None) -> EngineInstall | None:
    """The version that was named; without a name the embedded one, else the newest there is."""
    if version is not None:
        return find_install(engines_dir, version)
    return find_install(engines_dir) or next(iter(list_installs(engines_dir)), None)


def launch_argv(engine: EngineInstall) -> list[str]:
    """The start of the command line; ComfyUI's own arguments follow."""
    main = str(engine.comfyui_path / "main.py")
    if not engine.shims:
        return [str(engine.python), main]
    return [str(engine.python), str(_BOOT), *(part for name in engine.shims for part in ("--shim", name)), main]


def pids_using(root: Path) -> list[int]:
    """Processes that run on this engine's Python, whoever started them."""
    return pids_running_from(root)


def remove_folders(roots: list[Path], engines_dir: Path) -> None:
    """Delete engines whole: each is renamed away first, so that a killed removal leaves nothing that looks alive.

    Call under `alone`. Raises OSError when a folder cannot be renamed; what a killed removal left is deleted too.
    """
    for root in roots:
        if root.exists():
            root.rename(root.with_name(f".{root.name.lstrip('.')}.{os.getpid()}.removed"))
    for removed in engines_dir.glob(".*.removed"):
        shutil.rmtree(removed, ignore_errors=True)


@contextlib.contextmanager
def alone(engines_dir: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold what keeps two installs or removals apart; `on_wait` is called while another one has it."""
    import filelock

    lock = filelock.FileLock(engines_dir / LOCK_FILE)
    patience_s = 0.0
    while not lock.is_locked:
        try:
            lock.acquire(timeout=patience_s)
        except filelock.Timeout:
            on_wait()
            patience_s = _WAIT_S
    try:
        yield
    finally:
        lock.release()


def folder_of(engines_dir: Path, version: str) -> Path:
    # Absolute: ComfyUI is started from another working directory.
    return engines_dir.absolute() / f"comfyui-{version}"


def partial_of(root: Path) -> Path:
    """Where an install of this engine grows until it is complete."""
    return root.with_name(f".{root.name}.partial")


def folder_bytes(root: Path) -> int:
    """What a folder holds; 40,000 files take about half a second."""
    total, pending = 0, [root]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def version_key(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Sorts 0.3.9 before 0.3.75, and a pre-release before its release."""
    numbers = re.match(r"[0-9.]*", version)
    digits = numbers[0] if numbers else ""
    rest = version[len(digits) :]
    return tuple(int(part) for part in digits.split(".") if part), not rest, rest


def _versions(engines_dir: Path, pattern: str) -> list[str]:
    prefix, _, suffix = pattern.partition("*")
    names = [path.name for path in engines_dir.absolute().glob(pattern) if path.is_dir()]
    versions = [name.removeprefix(prefix).removesuffix(suffix) for name in names]
    return sorted(versions, key=version_key, reverse=True)
