"""What every operation works with: the project, the target it names, the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfymodal.comfyui.find import EngineWish
from comfymodal.costs.rates import RateTable
from comfymodal.errors import UsageError
from comfymodal.operations.news import News
from comfymodal.project.folders import data_folder, ledger_file, state_folder
from comfymodal.runs.ledger import Ledger, Run
from comfymodal.targets.base import Target
from comfymodal.targets.billing import Billing
from comfymodal.targets.local import LocalTarget
from comfymodal.targets.local_worker import EarlyWorker
from comfymodal.targets.spec import LocalSpec, ModalSpec

if TYPE_CHECKING:
    from comfymodal.project.schema import Project


@dataclass(slots=True)
class Context:
    """One command's surroundings. The ledger is opened when first used: `--dry-run` needs none.

    `flags` are settings given on the command line; `reopen` makes the same context with other flags. `local` is this
    machine, whatever the target.
    """

    project: Project
    target: Target
    state: Path
    warnings: tuple[str, ...]
    flags: Mapping[str, Any]
    reopen: Callable[[Mapping[str, Any]], Context]
    local: LocalSpec
    environ: Mapping[str, str]
    folder: Path
    """The project's: where its file lies, or the working directory without one."""
    news: News = field(default_factory=News)
    _ledger: Ledger | None = field(default=None, init=False)

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger(ledger_file(self.project.project, self.state))
        return self._ledger

    def modal_spec(self) -> ModalSpec:
        """Modal as the project wants it. Raises `UsageError` for a project that renders on this machine."""
        from comfymodal.operations.modal_spec import modal_spec

        if self.project.target != "modal":
            raise UsageError(
                "this project renders on this machine (target: local)",
                hint="write target: modal into comfymodal.yaml, or add --target modal",
            )
        return modal_spec(self.project, self.state)

    @property
    def rates(self) -> RateTable:
        """What prices now on Modal, see `modal_spec.price_table`; asks nobody."""
        from comfymodal.operations.modal_spec import price_table

        return price_table(self.project, self.state)

    def billing(self) -> Billing:
        """What Modal tells about money; opened when first asked. Raises `UsageError` for a project that runs here."""
        from comfymodal.targets.modal_client import require_client

        spec = self.modal_spec()
        require_client()
        from comfymodal.targets.modal.billing import ModalBilling

        return ModalBilling(spec)

    def at_target_of(self, run: Run) -> Context:
        """This context, or the same at the target where the run is: a project may have moved since."""
        return self if run.target == self.target.name else self.reopen({**self.flags, "target": run.target})


def open_context(
    config: Path | None,
    *,
    environ: Mapping[str, str],
    cwd: Path,
    flags: Mapping[str, Any] | None = None,
    early_worker: EarlyWorker | None = None,
    news: News | None = None,
) -> Context:
    """Read the project file, if there is one, and make its target ready to be asked. Raises `ProjectError`."""
    from comfymodal.project.load import find_project_file, load_project

    loaded = load_project(find_project_file(config, cwd=cwd), environ=environ, flags=flags or {}, cwd=cwd)
    project = loaded.settings
    state = state_folder(environ)
    local = _local_spec(project, state, data_folder(environ))
    target = _target(project, state, local, environ, early_worker)
    news = news or News()

    def reopen(other: Mapping[str, Any]) -> Context:
        return open_context(config, environ=environ, cwd=cwd, flags=other, early_worker=early_worker, news=news)

    warnings = tuple(loaded.warnings)
    folder = loaded.path.parent if loaded.path else cwd
    return Context(project, target, state, warnings, flags or {}, reopen, local, environ, folder, news)


def _target(
    project: Project, state: Path, local: LocalSpec, environ: Mapping[str, str], early_worker: EarlyWorker | None
) -> Target:
    if project.target == "local":
        return LocalTarget(local, environ, early_worker)
    # Nobody pays for importing Modal's client who does not use it.
    from comfymodal.operations.modal_spec import modal_spec
    from comfymodal.targets.modal_client import require_client

    require_client()
    from comfymodal.targets.modal.target import ModalTarget

    return ModalTarget(modal_spec(project, state))


def _local_spec(project: Project, state: Path, data: Path) -> LocalSpec:
    named = {role: getattr(project.volumes, role) for role in type(project.volumes).model_fields}
    volumes = {role: volume.path or state / "volumes" / volume.name for role, volume in named.items()}
    comfyui = project.comfyui
    wish = EngineWish(
        url=comfyui.url,
        path=str(comfyui.path) if comfyui.path else None,
        python=str(comfyui.python) if comfyui.python else None,
        arguments=tuple(comfyui.args),
        discover=comfyui.discover,
        idle_stop_s=comfyui.idle_stop,
        boot_timeout_s=comfyui.boot_timeout,
        models=str(volumes["models"]),
        version=comfyui.version,
    )
    return LocalSpec(state=state, engines=data / "engines", volumes=volumes, engine=wish)
