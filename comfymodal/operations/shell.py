"""`comfymodal shell`: a shell in a container that lives, or in a small one of its own beside the project's volumes."""

from __future__ import annotations

from comfymodal.costs.rates import cpu_rate, money_text
from comfymodal.errors import NotReadyError
from comfymodal.operations import fleet as fleet_views
from comfymodal.operations.context import Context
from comfymodal.operations.fleet import Priced
from comfymodal.operations.fleet_results import ShellPlan
from comfymodal.targets.modal.deployment import read_deployment
from comfymodal.targets.modal.modal_cli import MODAL, environment_flag
from comfymodal.targets.modal.session import connect
from comfymodal.targets.modal.volumes import Volumes
from comfymodal.targets.modal.warm import read_warmth
from comfymodal.targets.spec import ModalSpec

SANDBOX_FACTOR = 3
"""Modal asks three times a function's price for CPU and memory of a shell's container."""

RENDERS = ("runs", "warm", "minimum", "idle", "starting")


def plan_shell(run: str | None, context: Context) -> ShellPlan:
    """The command that opens the shell, what it costs and how it ends; opens nothing.

    Raises `NotReadyError` when the run is in no container, or the project has no volumes yet.
    """
    run_id = context.ledger.get(run).id if run is not None else None
    spec = context.modal_spec()
    connect(spec.workspace)
    found = _look(spec)
    if run_id is not None:
        inside = next((one for one in found if one.view.run_id == run_id), None)
        if inside is None:
            raise NotReadyError(
                f"run {run_id} is in no container now", hint=f"what it left: comfymodal runs show {run_id}"
            )
        return _inside(inside)
    # The busiest first: that is the one somebody wants to look into.
    living = sorted(
        (one for one in found if one.view.does in RENDERS and one.view.started_at),
        key=lambda one: RENDERS.index(one.view.does),
    )
    return _inside(living[0]) if living else _beside(spec)


def _look(spec: ModalSpec) -> list[Priced]:
    deployment = read_deployment(spec, with_note=False)
    return fleet_views.look_at(spec, deployment.app_id, read_warmth(spec)) if deployment is not None else []


def _inside(one: Priced) -> ShellPlan:
    view = one.view
    return ShellPlan(
        argv=(*MODAL, "shell", view.id),
        container_id=view.id,
        run_id=view.run_id,
        per_hour=view.per_hour or "unknown",
        ends="the shell ends with exit, and with the container",
        notes=(f"container {view.id}: {view.gpu}, {view.why}", "the shell itself costs nothing more"),
    )


def _beside(spec: ModalSpec) -> ShellPlan:
    volumes = [volume.name for volume in spec.render_volumes.values()]
    if missing := [spec.volumes[role].name for role in Volumes(spec).missing()]:
        raise NotReadyError(f"there is no volume {', '.join(missing)} yet", hint="comfymodal setup")
    words = [word for name in volumes for word in ("--volume", name)]
    rate = cpu_rate(spec.rates.in_region(None)).nanodollars_per_s * SANDBOX_FACTOR * 3600
    return ShellPlan(
        argv=(*MODAL, "shell", *words, *environment_flag(spec.environment)),
        container_id=None,
        run_id=None,
        per_hour=f"about {money_text(rate)}/h",
        ends="it ends with exit, at the latest after 1h",
        notes=(
            "no container of this project lives: a small one on a CPU, without ComfyUI",
            f"volumes, writable: {', '.join(f'/mnt/{name}' for name in volumes)}",
        ),
    )
