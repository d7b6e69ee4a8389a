"""`comfymodal engine install` and `remove`: ComfyUIs on this machine, several versions side by side."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from comfymodal.comfyui.engines import (
    ENGINE_VERSION,
    EngineInstall,
    alone,
    find_install,
    folder_bytes,
    list_installs,
    list_leftovers,
    pids_using,
    remove_folders,
)
from comfymodal.comfyui.install.engine import WAITING, install, plan_install
from comfymodal.comfyui.install.plan import InstallPlan
from comfymodal.errors import CancelledError, NotFoundError, NotReadyError, UsageError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk, Question
from comfymodal.operations.engine_results import EngineInstalled, EngineInstallPlanned, EnginesRemoved, InstalledView
from comfymodal.targets.local_setup import describe_install


@dataclass(frozen=True, slots=True)
class InstallRequest:
    """One `engine install` as asked for. Without a version it is the embedded one, or a repository's newest."""

    version: str | None = None
    source: str | None = None
    repository: str | None = None

    @property
    def is_git(self) -> bool:
        return self.source == "git" or self.repository is not None


def install_engine(request: InstallRequest, context: Context, desk: Desk) -> EngineInstalled:
    """Install what was asked for unless it is there; asks first."""
    _require_sense(request)
    if (there := _installed_already(request, context)) is not None:
        return EngineInstalled(view_install(there), was_there=True)
    plan = _plan(request, context, desk)
    if (there := find_install(context.local.engines, plan.version)) is not None:
        return EngineInstalled(view_install(there), was_there=True)
    if not desk.agree(describe_install(plan, f"install ComfyUI {plan.version}")):
        raise CancelledError("nothing was installed")
    return EngineInstalled(view_install(install(plan, on_event=desk.event)), was_there=False)


def plan_engine(request: InstallRequest, context: Context, desk: Desk) -> EngineInstallPlanned | EngineInstalled:
    """What `install_engine` would do; changes nothing."""
    _require_sense(request)
    if (there := _installed_already(request, context)) is not None:
        return EngineInstalled(view_install(there), was_there=True)
    plan = _plan(request, context, desk)
    return EngineInstallPlanned(
        version=plan.version,
        source=plan.source,
        repository=plan.repository,
        tag=plan.tag,
        commit=plan.commit,
        torch_build=plan.torch_build,
        download_bytes=plan.download_bytes,
        disk_bytes=plan.disk_bytes,
        path=str(plan.folder),
    )


def remove_engines(
    version: str | None, context: Context, desk: Desk, *, is_all: bool, is_dry_run: bool
) -> EnginesRemoved:
    """Delete one engine or all, and what interrupted installs left. Raises `NotReadyError` for a running one."""
    if (version is None) is not is_all:
        raise UsageError("name one version, or --all", hint="comfymodal engine status lists them")
    engines = context.local.engines
    doomed = tuple(view for view in list_views(engines) if is_all or view.version == _normal(version or ""))
    if not doomed:
        if is_all:
            return EnginesRemoved((), 0, is_dry_run)
        there = ", ".join(install.version for install in list_installs(engines)) or "none"
        raise NotFoundError(f"ComfyUI {version} is not installed; installed: {there}", hint="comfymodal engine status")
    _require_unused(doomed)
    removed = EnginesRemoved(doomed, sum(view.size_bytes for view in doomed), is_dry_run)
    if is_dry_run:
        return removed
    details = tuple(f"{view.path}  {view.size_bytes / 1e9:.1f} GB" for view in doomed)
    names = ", ".join(dict.fromkeys(view.version for view in doomed))
    if not desk.confirm(Question(f"remove ComfyUI {names}", details, "Remove it?")):
        raise CancelledError("nothing was removed")
    waiting = {"type": "install", "step": "lock", "message": WAITING}
    try:
        with alone(engines, lambda: desk.event(waiting)):
            _require_unused(doomed)
            desk.event({"type": "engine_removing", "name": f"ComfyUI {names}"})
            remove_folders([Path(view.path) for view in doomed], engines)
    except OSError as exc:
        raise NotReadyError(
            f"cannot remove {exc.filename or engines}: {exc.strerror or exc}", hint="is it in use, or not yours?"
        ) from exc
    return removed


def list_views(engines: Path) -> tuple[InstalledView, ...]:
    """Every engine's folder: the complete ones, newest first, then the others."""
    leftovers = (
        InstalledView(left.version, left.kind, None, None, folder_bytes(left.root), str(left.root))
        for left in list_leftovers(engines)
    )
    return (*map(view_install, list_installs(engines)), *leftovers)


def view_install(engine: EngineInstall) -> InstalledView:
    # Engines installed by the first release do not know their size.
    size_bytes = folder_bytes(engine.root) if engine.size_bytes is None else engine.size_bytes
    return InstalledView(engine.version, "installed", engine.source, engine.device, size_bytes, str(engine.root))


def _require_sense(request: InstallRequest) -> None:
    if request.source == "package" and request.repository is not None:
        raise UsageError("--from names a git repository", hint="--source git, or leave --from out")
    if request.version is not None and not re.fullmatch(r"v?[0-9][0-9A-Za-z.+-]*", request.version):
        raise UsageError(f"{request.version!r} is no version", hint=f"for example --version {ENGINE_VERSION}")


def _installed_already(request: InstallRequest, context: Context) -> EngineInstall | None:
    version = _normal(request.version) if request.version else None if request.is_git else ENGINE_VERSION
    there = find_install(context.local.engines, version) if version else None
    wanted = "git" if request.is_git else request.source
    if there is not None and wanted not in (None, there.source):
        raise NotReadyError(
            f"ComfyUI {there.version} is installed already, from the other source ({there.source})",
            hint=f"comfymodal engine remove {there.version}, then the same command",
        )
    return there


def _plan(request: InstallRequest, context: Context, desk: Desk) -> InstallPlan:
    desk.event({"type": "install", "step": "plan", "message": "finding out what is needed"})
    version = _normal(request.version) if request.version else None
    if request.is_git:
        from comfymodal.comfyui.install.git import OFFICIAL, plan_git_install

        repository = request.repository or OFFICIAL
        return plan_git_install(context.local.engines, version=version, repository=repository)
    if version not in (None, ENGINE_VERSION):
        raise NotFoundError(
            f"as a package there is only ComfyUI {ENGINE_VERSION}",
            hint=f"comfymodal engine install --source git --version {version}",
        )
    return plan_install(context.local.engines)


def _require_unused(doomed: tuple[InstalledView, ...]) -> None:
    for view in doomed:
        if pids := pids_using(Path(view.path)):
            raise NotReadyError(
                f"ComfyUI {view.version} is running (pid {', '.join(map(str, pids))})",
                hint="comfymodal engine stop --all, then the same command",
                pids=pids,
            )


def _normal(version: str) -> str:
    return version.removeprefix("v")
