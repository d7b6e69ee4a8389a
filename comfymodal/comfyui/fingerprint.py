"""What an engine's answers about nodes and files depend on, told without asking it: it need not even run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from comfymodal.comfyui.server import LEGACY_MODEL_FOLDERS, MODEL_FOLDERS, Launch

MOST_FILES = 100_000
"""Looking at as many names takes 0.08 s, at 20,000 0.015 s; beyond that the engine is asked each time."""

_OWN_FILES = ("comfyui_version.py", "nodes.py", "extra_model_paths.yaml")
_OWN_FOLDERS = ("comfy_extras", "comfy_api_nodes")


@dataclass(frozen=True, slots=True)
class EngineSignature:
    """What ComfyUI reads only when it starts. One that started before `changed_at` does not know the newest of it."""

    digest: str
    changed_at: float


def engine_signature(launch: Launch, folder: Path) -> EngineSignature:
    """Digest ComfyUI's own nodes, its custom nodes and the kinds of model folders; `folder` is the engine's own."""
    own = Path(launch.cwd)
    found = [_entry(own / name) for name in _OWN_FILES]
    for name in _OWN_FOLDERS:
        found += [_entry(entry) for entry in _children(own / name)]
    if "--disable-all-custom-nodes" not in launch.arguments:
        for entry in _children(_base(launch, folder) / "custom_nodes"):
            # A pull that changes a file in a subfolder leaves the folder's own time as it was.
            found += [_entry(entry), _entry(entry / ".git" / "logs" / "HEAD")]
    kinds = [(str(entry), 0) for entry in _unusual_kinds(launch)]
    told = repr([launch.argv, launch.arguments, launch.models, found, kinds])
    return EngineSignature(_digest(told), max((changed for _, changed in found), default=0) / 1e9)


def files_digest(folders: Iterable[str], *, flat: Iterable[str] = ()) -> str | None:
    """Digest the names of all files below `folders` and directly in the `flat` ones; None when they are too many."""
    names = [f"{folder}/{name}" for folder in flat for name in _names_in(folder)]
    for folder in folders:
        for path in _paths_below(folder):
            names.append(path)
            if len(names) > MOST_FILES:
                return None
    return _digest("\n".join(sorted(names)))


def input_folder(launch: Launch, folder: Path) -> str:
    """Where this engine looks for pictures, sounds and videos."""
    return _argument(launch, folder, "--input-directory") or str(_base(launch, folder) / "input")


def _base(launch: Launch, folder: Path) -> Path:
    return Path(_argument(launch, folder, "--base-directory") or launch.cwd)


def _argument(launch: Launch, folder: Path, name: str) -> str | None:
    found = None
    for argument, following in pairwise([*launch.arguments, ""]):
        if argument == name:
            found = following
        elif argument.startswith(f"{name}="):
            found = argument.partition("=")[2]
    return found.replace("{folder}", str(folder)) if found else None


def _unusual_kinds(launch: Launch) -> list[Path]:
    """Model folders of custom nodes: ComfyUI is told of them when it starts, of the usual ones always."""
    usual = {*MODEL_FOLDERS, *(name for names in LEGACY_MODEL_FOLDERS.values() for name in names)}
    found = _children(Path(launch.models)) if launch.models else []
    return [entry for entry in found if entry.name not in usual and entry.is_dir()]


def _entry(path: Path) -> tuple[str, int]:
    try:
        return str(path), path.stat().st_mtime_ns
    except OSError:
        return str(path), 0


def _children(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [folder / name for name in names if not name.startswith((".", "__pycache__"))]


def _names_in(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file()]
    except OSError:
        return []


def _paths_below(folder: str) -> Iterator[str]:
    # ComfyUI follows links to folders too; it would not survive a ring of them either, but we must.
    pending, seen = [folder], {os.path.realpath(folder)}
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if not entry.is_dir():
                        yield entry.path
                    elif not entry.is_symlink() or (real := os.path.realpath(entry.path)) not in seen:
                        seen.update([real] if entry.is_symlink() else [])
                        pending.append(entry.path)
        except OSError:
            continue


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
